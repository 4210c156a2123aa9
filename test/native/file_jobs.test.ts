/** Argument checks of the addon's jobs on files; test/host tests what they do. */

import { expect } from 'chai';
import * as fc from 'fast-check';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';

const CROSS = 1;
const OPEN_DIR = 2;

describe('addon: jobs on files', () => {
  const addon = loadAddon();

  before(() => expect(addon.fileJobsOpen()).to.be.above(0));

  it('refuse bad arguments, and descriptors that no look-up opened', () => {
    const path = Buffer.from('/rootname');
    const result = (n: number): string => (n === 0 ? '0' : linuxErrnoName(-n));
    expect(result(addon.fileJob(1, 0, 4, -1, path, 5))).to.equal('EINVAL');
    expect(result(addon.fileJob(1, 0, CROSS | OPEN_DIR, -1, path, 9))).to.equal('EINVAL');
    expect(result(addon.fileJob(1, 0, 0, -1, path, 0))).to.equal('EINVAL');
    expect(result(addon.fileJob(1, 0, 0, -1, Buffer.from('rootname'), 4))).to.equal('EINVAL');
    expect(result(addon.fileJob(1, 0, 0, -1, Buffer.from('/root\0name'), 5))).to.equal('EINVAL');
    expect(result(addon.fileJob(1, 0, 0, -1, Buffer.alloc(9000, 0x2f), 5))).to.equal(
      'ENAMETOOLONG',
    );
    expect(result(addon.fileJob(1, 1, 0, 0, path, 0))).to.equal('EBADF');
    expect(result(addon.fileJob(1, 2, 0, 2, path, 0))).to.equal('EBADF');
    const out = new Float64Array(7);
    const data = Buffer.alloc(32768);
    const cached = (flags: number, name: Buffer, rootLen: number): string =>
      result(addon.fileLookupCached(flags, name, rootLen, out, data));
    expect(cached(CROSS, path, 5)).to.equal('EINVAL');
    expect(cached(0, path, 9)).to.equal('EINVAL');
    expect(cached(0, Buffer.from('/root\0name'), 5)).to.equal('EINVAL');
    expect(cached(0, Buffer.alloc(9000, 0x2f), 5)).to.equal('ENAMETOOLONG');
    expect(cached(0, Buffer.from('/none'), 1)).to.equal('EAGAIN');
    expect(cached(0, Buffer.from('/proc/self/root'), 5)).to.equal('EAGAIN');
    const stat = (name: Buffer, length = 7): string =>
      result(addon.fileStatCached(name, new Float64Array(length)));
    expect(stat(path, 6)).to.equal('EINVAL');
    expect(stat(Buffer.from('name'))).to.equal('EINVAL');
    expect(stat(Buffer.from('/'))).to.equal('EINVAL');
    expect(stat(Buffer.from('/root\0name'))).to.equal('EINVAL');
    expect(stat(Buffer.alloc(9000, 0x2f))).to.equal('ENAMETOOLONG');
    expect(stat(Buffer.from('/none'))).to.equal('EAGAIN');
    expect(stat(Buffer.from('/proc'))).to.equal('EAGAIN');
    expect(result(addon.fileJobNext(new Float64Array(6), Buffer.alloc(32768)))).to.equal('EINVAL');
    expect(result(addon.fileJobNext(new Float64Array(7), Buffer.alloc(32767)))).to.equal('EINVAL');
  });

  it('return a number for any argument list', () => {
    const calls = addon as unknown as Record<string, (...args: unknown[]) => unknown>;
    // Not kind 0: a look-up that succeeds has an id that nobody waits for.
    const kind = fc.oneof(fc.integer({ min: 1, max: 3 }), fc.anything());
    fc.assert(
      fc.property(kind, fc.array(fc.anything(), { maxLength: 6 }), (k, rest) => {
        expect(calls['fileJob']!(0, k, ...rest)).to.be.a('number');
        expect(calls['fileJobNext']!(...rest)).to.be.a('number');
        expect(calls['fileLookupCached']!(k, ...rest)).to.be.a('number');
        expect(calls['fileStatCached']!(...rest)).to.be.a('number');
      }),
      { numRuns: 300 },
    );
  });
});
