/**
 * A rig for tests of sendfile: a socket with its peer, a disk under the test's control, and the
 * results of the calls.
 */

import { expect } from 'chai';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import type { File } from '../../src/kern/kern_descrip.ts';
import {
  sendfile,
  type SendfileCall,
  sendfileResult,
  type SfHdtr,
} from '../../src/kern/kern_sendfile.ts';
import type { Mbuf } from '../../src/kern/mbuf.ts';
import { type Socket, soclose, SS_NOFDREF } from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { payloadBytesRead, payloadReasons, READ_SMALL } from '../../src/vm/payload.ts';
import { bootDisk, bootKern, expectAllBack } from './boot.ts';
import { must } from './chains.ts';
import { fileBytes, HandDisk, type HandFile } from './disk.ts';
import { connectedSocket, Peer } from './testproto.ts';
import { runUpcalls } from '../support/machine.ts';

export interface CallOptions {
  offset?: number;
  nbytes?: number;
  flags?: number;
  nonblocking?: boolean;
  headers?: Uint8Array[];
  trailers?: Uint8Array[];
}

/** A sendfile call and the results passed to its callback. */
export class Call {
  readonly call: SendfileCall | null;
  /** The return value of sendfile(). */
  readonly started: number;
  readonly #heard: { error: number; sbytes: number }[] = [];
  /** Runs inside the callback when the call is done. */
  whenDone: (() => void) | null = null;

  constructor(so: Socket, file: File, o: CallOptions) {
    const hdtr: SfHdtr | null =
      o.headers === undefined && o.trailers === undefined
        ? null
        : { headers: o.headers ?? [], trailers: o.trailers ?? [] };
    sendfileResult.call = null;
    this.started = sendfile(
      file,
      so,
      o.offset ?? 0,
      o.nbytes ?? 0,
      hdtr,
      o.flags ?? 0,
      o.nonblocking ?? false,
      {
        sendfileDone: (error, sbytes) => {
          this.#heard.push({ error, sbytes });
          this.whenDone?.();
        },
      },
    );
    this.call = sendfileResult.call;
  }

  /** What the callback was given so far, after the turns of the upcalls that wait. */
  get heard(): readonly { error: number; sbytes: number }[] {
    runUpcalls();
    return this.#heard;
  }

  get done(): boolean {
    return this.heard.length > 0;
  }

  /** Fails unless the call has ended exactly once, with this error and count. */
  expectDone(error: number, sbytes: number): void {
    expect(this.heard).to.deep.equal([{ error, sbytes }]);
  }
}

export class Rig {
  readonly clock: ManualClock;
  readonly disk = bootDisk(new HandDisk());
  readonly files: File[] = [];
  readonly socks: Socket[] = [];
  /** The first socket and its peer. */
  readonly so: Socket;
  readonly peer: Peer;

  constructor(hiwat = 65_536, vnet?: Vnet) {
    this.clock = current;
    this.so = this.socket(hiwat, vnet);
    this.peer = new Peer(this.so);
  }

  socket(hiwat = 65_536, vnet?: Vnet): Socket {
    const so = connectedSocket(hiwat, vnet);
    this.socks.push(so);
    return so;
  }

  file(n: number | Uint8Array): { file: File; disk: HandFile; bytes: Uint8Array } {
    const bytes = typeof n === 'number' ? fileBytes(n, n + 1) : n;
    const { file, disk } = this.disk.file(bytes);
    this.files.push(file);
    return { file, disk, bytes };
  }

  /** A file whose pages are all in the cache. */
  cachedFile(n: number): { file: File; disk: HandFile; bytes: Uint8Array } {
    const f = this.file(n);
    const so = connectedSocket(1 << 20);
    const peer = new Peer(so);
    const call = new Call(so, f.file, {});
    for (let i = 0; i < 1000; i++) {
      this.disk.completeAll();
      if (peer.take() === 0 && call.done) break;
    }
    soclose(so);
    expect(peer.received.length).to.equal(n);
    return f;
  }

  call(file: File, o: CallOptions = {}, so = this.so): Call {
    return new Call(so, file, o);
  }

  /** Completes reads and takes data until nothing is left; returns all bytes the peer received. */
  drain(peer = this.peer): Uint8Array {
    for (let i = 0; i < 10_000; i++) {
      this.disk.completeAll();
      runUpcalls();
      if (peer.take() === 0 && this.disk.pending === 0) return peer.received;
    }
    throw new Error('drain does not end');
  }

  /** Closes all sockets and files, and fails if anything leaked. */
  finish(): void {
    for (const so of this.socks) if ((so.so_state & SS_NOFDREF) === 0) soclose(so);
    for (const f of this.files) if (f.f_count > 0) f.drop();
    this.disk.completeAll();
    expectAllBack();
  }
}

let current: ManualClock;

/**
 * Boots a machine before each test and checks for leaks after it. Returns the function that makes
 * the rig.
 */
export function rigEach(): (hiwat?: number, vnet?: Vnet) => Rig {
  let rig: Rig | null = null;
  beforeEach(() => {
    current = bootKern();
    rig = null;
  });
  afterEach(function () {
    if (this.currentTest?.state === 'passed') rig?.finish();
  });
  return (hiwat, vnet) => (rig = new Rig(hiwat, vnet));
}

/** The mbufs of a send buffer. */
export function sndMbufs(so: Socket): Mbuf[] {
  const out: Mbuf[] = [];
  for (let m = so.so_snd.sb_mb; m !== null; m = m.m_next) out.push(m);
  return out;
}

export const npgsOf = (m: Mbuf): number => must(m.m_ext.ext_pgs).npgs;

/** Fails if the CPU read a file byte for anything but small copies. */
export function expectNoPayloadReads(): void {
  for (let i = 0; i < payloadReasons.length; i++)
    if (i !== READ_SMALL) expect(payloadBytesRead(i), payloadReasons[i]).to.equal(0);
}

export function expectSame(got: Uint8Array, want: Uint8Array): void {
  expect(got.length, 'bytes received').to.equal(want.length);
  expect(Buffer.compare(got, want), 'compare').to.equal(0);
}
