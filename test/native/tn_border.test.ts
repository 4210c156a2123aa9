/** The argument checks of the native NIC: a wrong call is refused and has no other effect. */

import { setTimeout } from 'node:timers/promises';
import { expect } from 'chai';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../../src/host/arena.ts';
import { socketPairWires } from '../../src/host/fd_wire.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { NativeTnDevice } from '../../src/host/native_tn.ts';
import {
  TN_CTRL,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_DESC_SIZE,
  TN_ID,
  TN_ID_REV1,
  TN_IMS,
  TN_NSTATS,
  TN_ST_TX_FRAMES,
  TN_ST_TX_WIRE_ERROR,
  TN_TDBAL,
  TN_TDLEN,
  TN_TDT,
  TN_TXD_EOP,
  TN_TXD_RS,
} from '../../src/dev/tn/tnreg.ts';
import { CAPTURE_IDS_ALL } from '../../src/sys/capture.ts';
import { EAGAIN } from '../../src/sys/errno.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { TN_P_COUNT } from '../../native-bindings/tn_abi.ts';

const MAC = Uint8Array.of(2, 0, 0, 0, 0, 1);
const SIZE = 16 << 20;
/** vnet, timer, RAM base and bytes, capture offset, bytes and unit, now, own time. */
const params = (change: Record<number, number> = {}): Float64Array => {
  const p = new Float64Array(TN_P_COUNT);
  p.set([0, 1, 0, SIZE / 2, SIZE / 2, 65536, 1, 0, 1]);
  for (const [i, value] of Object.entries(change)) p[Number(i)] = value;
  return p;
};

describe('native: argument checks of the NIC tn', () => {
  const addon = loadAddon();
  let arena: ArrayBuffer;
  let fds: Int32Array;

  before(() => {
    arena = allocArena(SIZE);
  });
  beforeEach(() => {
    fds = new Int32Array(2);
    expect(addon.socketPair(fds, 0)).to.equal(0);
  });
  afterEach(() => {
    for (const fd of fds) addon.fdClose(fd);
  });

  const name = (n: number): string => (n >= 0 ? String(n) : linuxErrnoName(-n));

  it('opens only on a descriptor of the addon, with parameters in range', () => {
    const open = (fd: number, p: Float64Array, mac = MAC): string => name(addon.tnOpen(fd, mac, p));
    expect(open(0, params())).to.equal('EBADF');
    expect(open(-1, params())).to.equal('EBADF');
    expect(open(fds[0]!, params(), MAC.slice(1))).to.equal('EINVAL');
    expect(open(fds[0]!, params().slice(1))).to.equal('EINVAL');
    for (const [at, bad] of [
      [0, 2],
      [1, -1],
      [2, 2 ** 53],
      [2, Number.NaN],
      [3, 0.5],
      [4, 4],
      [5, 4088],
      [5, 8193],
      [7, -1],
      [8, Infinity],
      [TN_P_COUNT - 1, 65536],
    ] as const)
      expect(open(fds[0]!, params({ [at]: bad })), `${at}: ${bad}`).to.equal('EINVAL');
    expect(open(fds[0]!, params({ 3: SIZE + 1 }))).to.equal('EFAULT');
    // The ids of frames follow the capture ring.
    const last = SIZE - 65536 - CAPTURE_IDS_ALL;
    expect(open(fds[0]!, params({ 4: last + 8 }))).to.equal('EFAULT');
    expect(open(fds[0]!, params({ 4: 2 ** 40 }))).to.equal('EFAULT');
    const id = addon.tnOpen(fds[0]!, MAC, params({ 4: last }));
    expect(id).to.be.at.least(0);
    expect(addon.tnClose(id)).to.equal(0);
  });

  it('opens at most 64 devices, then returns EMFILE', () => {
    const ids = Array.from({ length: 64 }, () => addon.tnOpen(fds[0]!, MAC, params()));
    expect(Math.min(...ids)).to.be.at.least(0);
    expect(name(addon.tnOpen(fds[0]!, MAC, params()))).to.equal('EMFILE');
    for (const id of ids) expect(addon.tnClose(id)).to.equal(0);
  });

  it('refuses unknown device numbers and arguments that are not valid numbers', () => {
    const id = addon.tnOpen(fds[0]!, MAC, params());
    const out = new Float64Array(TN_NSTATS);
    for (const bad of [id + 1, 64, 0xffffffff]) {
      expect(addon.tnRead(bad, TN_ID)).to.equal(0xffffffff);
      expect(name(addon.tnWrite(bad, TN_CTRL, 0))).to.equal('EBADF');
      expect(name(addon.tnEvent(bad, 0))).to.equal('EBADF');
      expect(name(addon.tnStats(bad, out))).to.equal('EBADF');
      expect(name(addon.tnReasons(bad, out))).to.equal('EBADF');
      expect(name(addon.tnTime(bad, 0))).to.equal('EBADF');
      expect(name(addon.tnTimer(bad))).to.equal('EBADF');
      expect(name(addon.tnClose(bad))).to.equal('EBADF');
    }
    for (const bad of [-1, 0.5, Number.NaN, 2 ** 32]) {
      expect(name(addon.tnWrite(id, bad, 0))).to.equal('EINVAL');
      expect(name(addon.tnWrite(id, 0, bad))).to.equal('EINVAL');
      expect(name(addon.tnEvent(id, bad))).to.equal('EINVAL');
      expect(name(addon.tnWrite(bad, 0, 0))).to.equal('EINVAL');
    }
    expect(name(addon.tnEvent(id, 8))).to.equal('EINVAL');
    expect(name(addon.tnTime(id, -1))).to.equal('EINVAL');
    expect(name(addon.tnStats(id, out.subarray(1)))).to.equal('EINVAL');
    expect(name(addon.tnReasons(id, new Float64Array(3)))).to.equal('EINVAL');
    expect(name(addon.tnStats(id, new Uint8Array(999) as unknown as Float64Array))).to.equal(
      'EINVAL',
    );
    expect(addon.tnRead(id, TN_ID)).to.equal(TN_ID_REV1);
    expect(addon.tnClose(id)).to.equal(0);
    expect(name(addon.tnClose(id))).to.equal('EBADF');
  });

  /** A device with a ring of 256 descriptors at offset 4096, which all send the same 60 bytes. */
  function sender(): { dev: NativeTnDevice; close: () => void; drain: () => void } {
    const [a, b] = socketPairWires(arena, false, 4 << 20);
    const dev = new NativeTnDevice({
      wire: a,
      intr: { raise: () => {} },
      clock: new ManualClock(),
      mode: 'wire',
      mac: MAC,
      ramBase: 0,
      ramBytes: SIZE / 2,
    });
    const view = new DataView(arena);
    dev.write32(TN_TDBAL, 4096);
    dev.write32(TN_TDLEN, 256 * TN_DESC_SIZE);
    dev.write32(TN_CTRL, TN_CTRL_TXE);
    for (let i = 0; i < 256; i++) {
      view.setUint32(4096 + i * 16, 65536, true);
      view.setUint32(4096 + i * 16 + 8, 60, true);
      view.setUint32(4096 + i * 16 + 12, TN_TXD_EOP | TN_TXD_RS, true);
    }
    const iov = Uint32Array.of(SIZE - 4096, 4096);
    return {
      dev,
      close: () => {
        dev.close();
        a.close();
        b.close();
      },
      drain: () => {
        while (b.readv(iov, 1) > 0);
      },
    };
  }

  it('counts wire errors after its descriptor is closed, and does not use a new one with that number', () => {
    const { dev, close } = sender();
    const before = dev.stats[TN_ST_TX_FRAMES]!;
    dev.write32(TN_TDT, 1);
    expect(dev.stats[TN_ST_TX_FRAMES]! - before).to.equal(1);
    const id = addon.tnOpen(fds[0]!, MAC, params());
    addon.tnWrite(id, TN_TDBAL, 4096);
    addon.tnWrite(id, TN_TDLEN, 4096);
    addon.tnWrite(id, TN_CTRL, TN_CTRL_TXE);
    new DataView(arena).setUint32(4096 + 12, TN_TXD_EOP, true);
    const old = fds[0]!;
    expect(addon.fdClose(old)).to.equal(0);
    const again = new Int32Array(2);
    expect(addon.socketPair(again, 0)).to.equal(0);
    expect([...again]).to.include(old);
    addon.tnWrite(id, TN_TDT, 1);
    const stats = new Float64Array(TN_NSTATS);
    addon.tnStats(id, stats);
    expect(stats[TN_ST_TX_FRAMES]).to.equal(0);
    expect(stats[TN_ST_TX_WIRE_ERROR]).to.equal(1);
    expect(addon.tnClose(id)).to.equal(0);
    for (const fd of again) addon.fdClose(fd);
    close();
  });

  it('continues on another wire, and accepts only descriptors of the addon', async () => {
    const { dev, close } = sender();
    dev.write32(TN_TDT, 1);
    const [c, d] = socketPairWires(arena, false, 4096);
    const iov = Uint32Array.of(SIZE - 4096, 4096);
    dev.rewire(c);
    dev.write32(TN_TDT, 2);
    expect(d.readv(iov, 1)).to.equal(60);
    expect(d.readv(iov, 1)).to.equal(-EAGAIN);
    // The wire is full. After the move to a wire with room, the device continues to send.
    dev.write32(TN_TDT, 255);
    const [e, f] = socketPairWires(arena, false, 4 << 20);
    const before = dev.stats[TN_ST_TX_FRAMES]!;
    expect(before).to.be.below(255);
    dev.rewire(e);
    for (let i = 0; i < 100 && dev.stats[TN_ST_TX_FRAMES]! < 255; i++) await setTimeout(1);
    expect(dev.stats[TN_ST_TX_FRAMES]).to.equal(255);
    for (let n = 0; n < 255 - before; n++) expect(f.readv(iov, 1)).to.equal(60);
    expect(f.readv(iov, 1)).to.equal(-EAGAIN);
    const id = addon.tnOpen(fds[0]!, MAC, params());
    expect(name(addon.tnRewire(id, 1))).to.equal('EBADF');
    expect(name(addon.tnRewire(id + 1, fds[0]!))).to.equal('EBADF');
    expect(name(addon.tnRewire(id, 0.5))).to.equal('EINVAL');
    expect(addon.tnClose(id)).to.equal(0);
    close();
    for (const wire of [c, d, e, f]) wire.close();
  });

  it('does nothing after it is closed', () => {
    const { dev, close } = sender();
    dev.close();
    dev.close();
    dev.write32(TN_TDT, 5);
    dev.write32(TN_CTRL, TN_CTRL_RXE);
    dev.wireReadable();
    expect(dev.read32(TN_ID)).to.equal(0xffffffff);
    expect(dev.stats[TN_ST_TX_FRAMES]).to.equal(0);
    close();
  });

  it('allocates nothing for a doorbell or a register', () => {
    const { dev, close, drain } = sender();
    const view = new DataView(arena);
    let slot = 0;
    const doorbell = (): void => {
      view.setUint32(4096 + slot * 16 + 12, TN_TXD_EOP | TN_TXD_RS, true);
      slot = (slot + 1) % 256;
      dev.write32(TN_TDT, slot);
      if (slot % 64 === 0) drain();
    };
    expect(bytesPerCall(doorbell)).to.be.below(8);
    expect(bytesPerCall(() => dev.read32(TN_IMS))).to.be.below(8);
    expect(dev.stats[TN_ST_TX_FRAMES]).to.be.above(1000);
    close();
  }).timeout(60_000);
});
