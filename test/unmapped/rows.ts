/** Helpers of the tests in this folder: mbufs of a send buffer, data frames, counters. */

import { expect } from 'chai';
import { type Mbuf, M_NOMAP, EXT_SFBUF } from '../../src/kern/mbuf.ts';
import type { ZoneLine } from '../../src/ctl/vmstat.ts';
import { soreceive, type Socket } from '../../src/kern/uipc_socket.ts';
import { UIO_READ, Uio } from '../../src/vm/uio.ts';
import { must } from '../kern/chains.ts';
import { expectSame, sndMbufs } from '../kern/sendfile_rig.ts';
import { decodeFrame, type Frame } from '../support/frames.ts';
import type { Conn, World, WorldFile } from '../support/world.ts';

/** Returns the line of zone `name` in `vmstat -z --json`. */
export function zone(w: World, name: string): ZoneLine {
  const lines = w.ask('vmstat', { report: 'z' }) as ZoneLine[];
  const line = lines.find((z) => z.name === name);
  if (line === undefined) throw new Error(`vmstat -z: no zone ${name}`);
  return line;
}

export const isUnmapped = (m: Mbuf): boolean => (m.m_flags & M_NOMAP) !== 0;
export const isSfbuf = (m: Mbuf): boolean => !isUnmapped(m) && m.m_ext.ext_type === EXT_SFBUF;

/** Counts the mbufs of a send buffer: all, unmapped, and EXT_SFBUF. */
export function chainOf(conn: Conn): { mbufs: number; unmapped: number; sfbuf: number } {
  const all = sndMbufs(conn.so);
  return {
    mbufs: all.length,
    unmapped: all.filter(isUnmapped).length,
    sfbuf: all.filter(isSfbuf).length,
  };
}

/** Frames of the host under test that carry TCP payload. */
export function dataFrames(w: World): Frame[] {
  return w.port.frames
    .map((bytes) => decodeFrame(bytes, { l4: 'none' }))
    .filter((frame) => (frame.ip?.tcp?.payload.length ?? 0) > 0);
}

/** File bytes that the CPU read, except for the reasons in `but`. */
export function cpuReads(w: World, ...but: string[]): number {
  const reads = Object.entries(w.m.emulator.payload_bytes_read);
  return reads.reduce((sum, [reason, n]) => sum + (but.includes(reason) ? 0 : n), 0);
}

/** Sends `file` on a new connection and compares the received bytes. */
export function expectArrives(w: World, file: WorldFile): Conn {
  const conn = w.connect();
  expectSame(w.transfer(conn, file), file.bytes);
  return conn;
}

/**
 * Fails unless all transfers have released their page lists, unmapped mbufs, mappings and wired
 * pages.
 */
export function expectAllReleased(w: World): void {
  const { ext_pgs, emulator } = w.m;
  expect(ext_pgs.current, 'ext_pgs').to.equal(0);
  expect(emulator.unmapped_mbufs_current, 'unmapped mbufs').to.equal(0);
  expect(emulator.sf_bufs.current, 'sf_bufs').to.equal(0);
  expect(emulator.pages.wired_file, 'wired file pages').to.equal(0);
}

/** Sends a file from an accepted connection to `so`, a socket of the same stack, and checks it. */
export function expectArrivesLocally(w: World, so: Socket): void {
  w.pass(10);
  const server = must(w.accepted.at(-1));
  const file = w.file(300_000);
  const call = w.sendfile({ so: server }, file);
  const parts: Uint8Array[] = [];
  let got = 0;
  w.until(() => {
    const buf = new Uint8Array(65_536);
    const uio = new Uio().single(buf, 0, buf.length, UIO_READ);
    const error = soreceive(so, uio);
    const n = error === 0 ? buf.length - uio.uio_resid : 0;
    parts.push(buf.slice(0, n));
    got += n;
    return got === file.bytes.length;
  });
  call.expectDone(0, file.bytes.length);
  expectSame(Buffer.concat(parts), file.bytes);
  expect(w.m.emulator.conversions, 'local delivery converts').to.be.above(0);
  w.closeLocal(so, server);
  w.settle();
  expectAllReleased(w);
}
