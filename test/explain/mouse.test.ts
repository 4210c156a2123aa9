/** The page of `tapnic explain --html` under the mouse, in headless Chromium. */

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Page } from '../support/chromium.ts';
import { needs } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { capturePath } from './captures.ts';

interface Rect {
  x: number;
  y: number;
  width: number;
  height: number;
}

/** Left edge of the time line in its canvas, and height of a lane. */
const LEFT = 170;
const LANE = 26;

describe('explain: the page under the mouse', function () {
  needs('chromium');
  this.timeout(120_000);
  let dir: string;
  let page: Page;
  before(async () => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-mouse-'));
    const html = join(dir, 'page.html');
    const args = ['explain', capturePath('nomap.pcapng'), '--html', html];
    execFileSync(process.execPath, [cliMain, ...args]);
    page = await Page.open(`file://${html}`, join(dir, 'profile'));
  });
  after(async () => {
    await page[Symbol.asyncDispose]();
    rmSync(dir, { recursive: true, force: true });
  });

  /** Scrolls an element into view and returns its rectangle. */
  async function rectOf(selector: string): Promise<Rect> {
    const element = `document.querySelector(${JSON.stringify(selector)})`;
    await page.evaluate(`${element}.scrollIntoView({ block: 'nearest' })`);
    const text = await page.evaluate(`JSON.stringify(${element}.getBoundingClientRect())`);
    return JSON.parse(text) as Rect;
  }
  const textOf = (selector: string): Promise<string> =>
    page.evaluate(`document.querySelector(${JSON.stringify(selector)})?.textContent ?? ''`);
  const image = (): Promise<string> => page.evaluate(`document.getElementById('time').toDataURL()`);
  const wheel = async (x: number, y: number, deltaY: number, times = 1): Promise<void> => {
    await page.mouse('mouseWheel', x, y, { deltaX: 0, deltaY });
    // Chromium sends one event per frame: make the others in the page.
    const event = `new WheelEvent('wheel', { clientX: ${x}, clientY: ${y}, deltaY: ${deltaY} })`;
    const send = `document.getElementById('time').dispatchEvent(${event})`;
    await page.evaluate(`for (let i = 1; i < ${times}; i++) ${send}`);
  };

  it('a click on a row of the list shows the packet', async () => {
    const row = await rectOf('#rows .row:nth-child(7)');
    await page.click(row.x + 50, row.y + row.height / 2);
    expect(await textOf('#detail')).to.match(/^Packet 7\D/);
    expect(await textOf('.row.sel')).to.match(/^ +7 /);
  });

  it('a click on the time line selects a packet of that lane, and scrolls to it', async () => {
    const { x, y, width } = await rectOf('#time');
    const selected: string[] = [];
    for (const lane of [0, 2]) {
      await page.click(x + LEFT + (width - LEFT) * 0.6, y + lane * LANE + LANE / 2);
      selected.push(await textOf('.row.sel'));
    }
    expect(selected[0]).to.match(/ tn0@sockbuf +out /);
    expect(selected[1]).to.match(/ tn0@ip +(out|in) /);
    const shown = await rectOf('.row.sel');
    const list = await rectOf('#list');
    expect(shown.y).to.be.within(list.y, list.y + list.height);
  });

  it('wheel, drag and double click zoom, move and show all', async () => {
    const { x, y, width } = await rectOf('#time');
    const at = [x + LEFT + (width - LEFT) * 0.5, y + LANE / 2] as const;
    await page.click(...at);
    const all = await image();
    const detail = await textOf('#detail');
    await wheel(...at, -100, 5);
    const zoomed = await image();
    expect(zoomed).to.not.equal(all);
    await page.mouse('mousePressed', ...at, { button: 'left', buttons: 1, clickCount: 1 });
    for (const dx of [20, 60, 100])
      await page.mouse('mouseMoved', at[0] + dx, at[1], { button: 'left', buttons: 1 });
    await page.mouse('mouseReleased', at[0] + 100, at[1], { button: 'left', clickCount: 1 });
    expect(await image(), 'moved').to.not.equal(zoomed);
    expect(await textOf('#detail'), 'a drag selects nothing').to.equal(detail);
    await wheel(...at, 100, 40);
    expect(await image(), 'zoomed out').to.equal(all);
    await wheel(...at, -100, 5);
    await page.click(...at, 1);
    await page.click(...at, 2);
    await page.evaluate(`document.getElementById('rows').children[0].click()`);
    const after = await image();
    await wheel(...at, 100, 40);
    expect(await image(), 'the double click had shown all').to.equal(after);
  });

  it('the wheel at the end of the time line never loses it', async () => {
    const { x, y, width } = await rectOf('#time');
    const at = [x + width - 11, y + LANE / 2] as const;
    await wheel(...at, 100, 40);
    const all = await image();
    await wheel(...at, -100, 80);
    await wheel(...at, 100, 80);
    expect(await image()).to.equal(all);
  });

  it('the filter shows what has its text; a click there shows the packet', async () => {
    const field = await rectOf('#filter');
    await page.click(field.x + 20, field.y + field.height / 2);
    await page.type('tn0@sockbuf');
    expect(await textOf('#found')).to.match(/^\d+ packets$/);
    expect(Number.parseInt(await textOf('#found'), 10)).to.be.within(1, 100);
    const row = await rectOf('#rows .row:nth-child(2)');
    await page.click(row.x + 50, row.y + row.height / 2);
    expect(await textOf('.row.sel')).to.include('tn0@sockbuf');
    const picture = process.env['TAPNIC_SCREENSHOT'];
    if (picture !== undefined) await page.screenshot(picture);
  });
});
