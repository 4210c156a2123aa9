/** A directory with files of known content, and `tapnic serve` on it in a network namespace. */

import { createHash } from 'node:crypto';
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SeededPrng } from '../../src/host/prng.ts';
import { Instance } from './instance.ts';
import { Netns } from './netns.ts';

/** Pseudo-random bytes; the same seed gives the same bytes. */
export function seededBytes(length: number, seed: number): Buffer {
  const words = new Uint32Array(Math.ceil(length / 4));
  const prng = new SeededPrng(seed);
  for (let i = 0; i < words.length; i++) words[i] = prng.next32();
  return Buffer.from(words.buffer, 0, length);
}

export function sha256(bytes: Uint8Array): string {
  return createHash('sha256').update(bytes).digest('hex');
}

/** The SHA-256 of a file, without holding it in memory. */
export async function sha256File(path: string): Promise<string> {
  const hash = createHash('sha256');
  for await (const chunk of createReadStream(path)) hash.update(chunk as Buffer);
  return hash.digest('hex');
}

/** A temporary directory of files; `Symbol.dispose` removes it. */
export class Site implements Disposable {
  readonly dir = mkdtempSync(join(tmpdir(), 'tapnic-site-'));

  /** Writes a file and returns its bytes. */
  file(name: string, length: number, seed = length): Buffer {
    const bytes = seededBytes(length, seed);
    writeFileSync(join(this.dir, name), bytes);
    return bytes;
  }

  path(name: string): string {
    return join(this.dir, name);
  }

  [Symbol.dispose](): void {
    rmSync(this.dir, { recursive: true, force: true });
  }
}

/**
 * Runs `body` with a new instance that serves `site`. Throws if the instance does not stop cleanly.
 */
export async function withServed(
  site: Site,
  args: string[],
  body: (tapnic: Instance) => Promise<void>,
): Promise<void> {
  using ns = new Netns();
  const tapnic = await Instance.start(ns, ['serve', site.dir, ...args]);
  try {
    await body(tapnic);
  } catch (e) {
    tapnic.kill('SIGKILL');
    const { signal, stderr } = await tapnic.exited();
    // The instance may have exited by itself before; then its stderr explains the error.
    if (signal !== 'SIGKILL' && e instanceof Error) e.message += `; tapnic had ended: ${stderr}`;
    throw e;
  }
  const { code, leaked, stderr } = await tapnic.stop();
  if (code !== 0 || JSON.stringify(leaked) !== '{}')
    throw new Error(`stopped with ${code}, leaked ${JSON.stringify(leaked)}: ${stderr}`);
}
