/**
 * Reads without a pager, each in a separate process, since an isolate has one completion callback.
 */

import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { addonPaths } from '../../native-bindings/index.ts';

const addonFile = addonPaths().find((p) => existsSync(p));

function run(code: string): unknown {
  const prelude = `
    const addon = require(${JSON.stringify(addonFile)});
    const fd = require('node:fs').openSync(process.execPath, 'r');
    const say = (what) => console.log(JSON.stringify(what));`;
  const args = ['-e', prelude + code];
  return JSON.parse(execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 30_000 }));
}

describe('addon: reads', () => {
  it('need an arena and a callback', () => {
    const code = `
      const iov = new Uint32Array([0, 1]);
      const answers = [addon.filePread(0, fd, 0, iov, 1)];
      addon.readCallback(() => {});
      answers.push(addon.filePread(0, fd, 0, iov, 1), addon.cksum(0, 0, 0, 0), addon.arenaFd());
      say(answers);`;
    expect(run(code)).to.deep.equal([-6, -14, -14, -6]);
  });

  it('are at most 64 at a time, and each completes once with its number', () => {
    const code = `
      addon.arenaAlloc(1 << 24);
      const answers = [];
      const back = [];
      addon.readCallback((id, error, nbytes) => {
        back.push([id, error, nbytes]);
        if (back.length === 64) say([answers, back.sort((a, b) => a[0] - b[0])]);
      });
      const iov = new Uint32Array([0, 512]);
      for (let i = 0; i < 70; i++) answers.push(addon.filePread(1000 + i, fd, 0, iov, 1));`;
    const [answers, back] = run(code) as [number[], number[][]];
    expect(answers).to.deep.equal([...Array(64).fill(0), ...Array(6).fill(-11)]);
    expect(back).to.deep.equal(Array.from({ length: 64 }, (_, i) => [1000 + i, 0, 512]));
  });

  it('return a number for any argument list, and call back only for reads that started', () => {
    const code = `
      addon.arenaAlloc(1 << 24);
      let started = 0;
      let back = 0;
      addon.readCallback(() => back++);
      const any = [-1, 0, 1, 2, fd, 999, 1024, 1025, 2 ** 31, 2 ** 32, 2 ** 53, -(2 ** 53), 0.5, NaN,
        Infinity, null, undefined, 'x', 7n, {}, [], Symbol('s'), new Uint8Array(4), new Uint32Array(0),
        new Uint32Array([0, 1]), new Uint32Array([1 << 24, 1]), new Uint32Array([0xffffffff, 0xffffffff]),
        new Uint32Array([0, 4, 8, 4]), new DataView(new ArrayBuffer(8))];
      let seed = 1;
      const pick = (list) => list[(seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0) % list.length];
      let odd = 0;
      for (let i = 0; i < 50000; i++) {
        const likely = [[1], [fd, 999, -1], [0, 5, 2 ** 53 - 1], any.slice(-6), [1, 2, 3]];
        const args = likely.map((list) => pick([list, list, list, any])).map(pick);
        const n = addon.filePread(...args.slice(0, pick([5, 5, 5, 5, 4, 6])));
        if (n === 0) started++;
        else if (![-9, -11, -14, -22].includes(n)) odd++;
      }
      process.on('exit', () => say([odd, started > 0, back - started]));`;
    expect(run(code)).to.deep.equal([0, true, 0]);
  });

  it('report an error, and continue after a callback that throws', () => {
    const code = `
      addon.arenaAlloc(1 << 24);
      const errors = [];
      process.on('uncaughtException', (e) => errors.push(e.message));
      let n = 0;
      addon.readCallback((id, error, nbytes) => {
        if (n++ === 0) {
          addon.filePread(2, fd, 0, new Uint32Array([0, 4, 100, 4]), 2);
          throw new Error('mine');
        }
        say([id, error, nbytes, errors]);
      });
      addon.filePread(1, 999, 0, new Uint32Array([0, 1]), 1);`;
    expect(run(code)).to.deep.equal([2, 0, 8, ['mine']]);
  });

  it('go into the arena they were started with, even if a newer one has replaced it', () => {
    const code = `
      const old = new Uint8Array(addon.arenaAlloc(1 << 24));
      let next;
      addon.readCallback((id, error, nbytes) => {
        say([error, nbytes, Buffer.from(old.subarray(1, 4)).toString(), next[1]]);
      });
      addon.filePread(1, fd, 0, new Uint32Array([0, 1 << 20]), 1);
      next = new Uint8Array(addon.arenaAlloc(1 << 24));`;
    expect(run(code)).to.deep.equal([0, 1 << 20, 'ELF', 0]);
  });
});
