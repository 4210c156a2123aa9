/** The addon's compiler for filter expressions: argument checks, results, end of a worker. */

import { execFileSync } from 'node:child_process';
import { Worker } from 'node:worker_threads';
import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';
import { skipSuite } from '../support/needs.ts';

const ENOENT = -2;
const E2BIG = -7;
const EAGAIN = -11;
const EBUSY = -16;
const EINVAL = -22;

describe('addon: filterCompile', () => {
  const addon = loadAddon();
  const program = new Uint32Array(4 * 64);
  const why = new Uint8Array(256);

  /** Compiles `text`; returns the result. */
  async function result(text: string, into = program): Promise<number> {
    const started = await new Promise<number>((resolve) => {
      const error = addon.filterCompile(Buffer.from(text), () => resolve(0));
      if (error !== 0) resolve(error);
    });
    return started !== 0 ? started : addon.filterResult(into, why);
  }

  before(async function () {
    if ((await result('ip')) === ENOENT) skipSuite(this, 'no libpcap');
  });

  it('compiles one expression at a time', async () => {
    expect(await result('ip')).to.equal(4);
    expect([...program.subarray(0, 8)]).to.deep.equal([40, 0, 0, 12, 21, 0, 1, 0x800]);
    const done = new Promise<void>((resolve) => {
      expect(addon.filterCompile(Buffer.from('arp'), resolve)).to.equal(0);
    });
    expect(addon.filterCompile(Buffer.from('ip'), () => undefined)).to.equal(EBUSY);
    expect(addon.filterResult(program, why)).to.equal(EAGAIN);
    await done;
    expect(addon.filterCompile(Buffer.from('ip'), () => undefined)).to.equal(EBUSY);
    expect(addon.filterResult(program, why)).to.equal(4);
    expect(addon.filterResult(program, why)).to.equal(EAGAIN);
    expect(program[7]).to.equal(0x806);
  });

  it('returns the text of an error', async () => {
    expect(await result('port 99999')).to.equal(EINVAL);
    expect(Buffer.from(why.subarray(0, why.indexOf(0))).toString()).to.equal(
      'illegal port number 99999 > 65535',
    );
    expect(await result('(')).to.equal(EINVAL);
  });

  it('refuses bad arguments and long texts', async () => {
    const bad = addon as unknown as Record<string, (...args: unknown[]) => number>;
    for (const args of [[], ['ip'], [new Uint8Array(1), 7], [new Uint32Array(4), () => undefined]])
      expect(bad['filterCompile']!(...args)).to.equal(EINVAL);
    for (const args of [[], [program], [why, why], [program, new Uint8Array(255)]])
      expect(bad['filterResult']!(...args)).to.equal(EINVAL);
    expect(await result('ip\0')).to.equal(EINVAL);
    expect(await result(' '.repeat(8192))).to.equal(E2BIG);
    expect(await result(`ip${' '.repeat(8189)}`)).to.equal(4);
    expect(await result('tcp port 80', new Uint32Array(4))).to.equal(E2BIG);
    expect(await result('()'.repeat(4000))).to.equal(EINVAL);
    expect(await result('('.repeat(8191))).to.equal(EINVAL);
  });

  it('survives the end of a worker that compiles', async () => {
    const url = new URL('../../native-bindings/index.js', import.meta.url).href;
    const code = `
      const { loadAddon } = await import(${JSON.stringify(url)});
      loadAddon().filterCompile(Buffer.from('tcp port 80 or '.repeat(500) + 'udp'), () => {});
      process.exit(0);
    `;
    for (let i = 0; i < 5; i++) {
      const worker = new Worker(new URL(`data:text/javascript,${encodeURIComponent(code)}`));
      await new Promise((resolve, reject) => worker.on('exit', resolve).on('error', reject));
    }
    const main = `
      const { loadAddon } = await import(${JSON.stringify(url)});
      loadAddon().filterCompile(Buffer.from('tcp port 80 or '.repeat(500) + 'udp'), () => {});
      process.exit(0);
    `;
    execFileSync(process.execPath, ['--input-type=module', '-e', main]);
  });
});
