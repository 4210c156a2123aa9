/** The end of `packetdrill`: its output is not read, or its terminal was closed. */

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { within } from '../support/instance.ts';
import { cliMain } from '../support/root.ts';

const WAIT_MS = 30_000;

describe('commands: the end of packetdrill', function () {
  this.timeout(2 * WAIT_MS);
  let dir: string;
  beforeEach(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-pdstop-'))));
  afterEach(() => rmSync(dir, { recursive: true }));

  async function bound(socket: string): Promise<void> {
    for (const end = performance.now() + WAIT_MS; !existsSync(socket);) {
      if (performance.now() > end) throw new Error(`${socket}: not bound`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  for (const signal of ['SIGTERM', 'SIGHUP'] as const)
    it(`ends on ${signal}, although nothing reads its output`, async () => {
      const socket = join(dir, 'sock');
      // A pipe that is full: the shell has opened both ends, and dd has written its 64 KiB.
      const script =
        'mkfifo "$1" && exec 3<>"$1" && dd if=/dev/zero bs=65536 count=1 status=none >&3 && ' +
        'shift && exec "$@" >&3';
      const words = [process.execPath, cliMain, 'packetdrill', '--json', '--socket', socket];
      const child = spawn('sh', ['-c', script, 'sh', join(dir, 'fifo'), ...words], {
        stdio: ['ignore', 'ignore', 'inherit'],
      });
      try {
        await bound(socket);
        await new Promise((resolve) => setTimeout(resolve, 500));
        const end = new Promise((resolve) => child.once('exit', (code, by) => resolve(code ?? by)));
        child.kill(signal);
        expect(await within(end, WAIT_MS, () => 'it did not end')).to.equal(0);
        expect(existsSync(socket)).to.equal(false);
      } finally {
        child.kill('SIGKILL');
      }
    });
});
