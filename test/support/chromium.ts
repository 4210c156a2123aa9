/** Headless Chromium for tests of pages: opens a page, moves the mouse, types, and evaluates expressions. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import type { Readable, Writable } from 'node:stream';

/** A message of the DevTools protocol. */
interface Message {
  id?: number;
  result?: Record<string, unknown>;
  error?: { message: string };
}

const READY_MS = 30_000;
const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** One page in a browser of its own. */
export class Page implements AsyncDisposable {
  readonly #child: ChildProcess;
  readonly #waiting = new Map<number, (message: Message) => void>();
  #last = 0;
  #session: string | null = null;

  private constructor(child: ChildProcess) {
    this.#child = child;
    let held = '';
    (child.stdio[4] as Readable).setEncoding('utf8').on('data', (text: string) => {
      const messages = (held + text).split('\0');
      held = messages.pop()!;
      for (const one of messages) {
        const message = JSON.parse(one) as Message;
        this.#waiting.get(message.id ?? 0)?.(message);
      }
    });
  }

  /** Opens `url`, and resolves when its script has set `data-ready`. @param profile an empty directory */
  static async open(url: string, profile: string): Promise<Page> {
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--window-size=1200,900'];
    const child = spawn(
      'chromium',
      [...flags, '--remote-debugging-pipe', `--user-data-dir=${profile}`, 'about:blank'],
      { stdio: ['ignore', 'ignore', 'ignore', 'pipe', 'pipe'] },
    );
    const page = new Page(child);
    const { targetId } = await page.#send('Target.createTarget', { url: 'about:blank' });
    const attach = { targetId, flatten: true };
    const { sessionId } = await page.#send('Target.attachToTarget', attach);
    page.#session = sessionId as string;
    await page.#send('Page.navigate', { url });
    const end = performance.now() + READY_MS;
    // While it navigates there is no document.
    const ready = (): Promise<string> =>
      page.evaluate('document.documentElement.dataset.ready ?? ""').catch(() => '');
    while ((await ready()) === '') {
      if (performance.now() > end) throw new Error(`${url}: not ready in ${READY_MS} ms`);
      await sleep(20);
    }
    return page;
  }

  async #send(method: string, params: object): Promise<Record<string, unknown>> {
    const id = ++this.#last;
    const answer = new Promise<Message>((resolve) => this.#waiting.set(id, resolve));
    const session = this.#session === null ? {} : { sessionId: this.#session };
    const text = JSON.stringify({ id, method, params, ...session });
    (this.#child.stdio[3] as Writable).write(`${text}\0`);
    const { result, error } = await answer;
    this.#waiting.delete(id);
    if (error !== undefined) throw new Error(`${method}: ${error.message}`);
    return result!;
  }

  /** The value of an expression as text. Rejects if it throws. */
  async evaluate(expression: string): Promise<string> {
    const answer = await this.#send('Runtime.evaluate', { expression, returnByValue: true });
    if (answer['exceptionDetails'] !== undefined) throw new Error(`${expression}: it throws`);
    const { value } = answer['result'] as { value?: unknown };
    return String(value);
  }

  /** An event of the mouse at a point of the page. */
  async mouse(type: string, x: number, y: number, more: object = {}): Promise<void> {
    await this.#send('Input.dispatchMouseEvent', { type, x, y, ...more });
  }

  /** Presses and releases the left button. @param count 2: the second click of a double click */
  async click(x: number, y: number, count = 1): Promise<void> {
    const button = { button: 'left', clickCount: count };
    await this.mouse('mouseMoved', x, y);
    await this.mouse('mousePressed', x, y, { ...button, buttons: 1 });
    await this.mouse('mouseReleased', x, y, button);
  }

  /** Types into the element that has the focus. */
  async type(text: string): Promise<void> {
    await this.#send('Input.insertText', { text });
  }

  /** Writes a PNG of what the window shows. */
  async screenshot(file: string): Promise<void> {
    const { data } = await this.#send('Page.captureScreenshot', { format: 'png' });
    writeFileSync(file, Buffer.from(data as string, 'base64'));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const gone = once(this.#child, 'close');
    this.#child.kill('SIGKILL');
    await gone;
  }
}
