/** Each errno of sendfile(2) and the condition that causes it. */

import { expect } from 'chai';
import { SF_NODISKIO, SF_USER_READAHEAD } from '../../src/kern/sendfile_flags.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { SOCK_DGRAM } from '../../src/kern/protosw.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { sbavail } from '../../src/kern/uipc_sockbuf.ts';
import {
  SHUT_WR,
  SO_ACCEPTCONN,
  soshutdown,
  sosend,
  SS_ISCONNECTED,
} from '../../src/kern/uipc_socket.ts';
import {
  EAGAIN,
  EBADF,
  EBUSY,
  ECONNRESET,
  EFAULT,
  EINTR,
  EINVAL,
  EIO,
  ENOBUFS,
  ENOTCONN,
  EPIPE,
  type Errno,
} from '../../src/sys/errno.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { Uio, UIO_WRITE } from '../../src/vm/uio.ts';
import { fileBytes } from './disk.ts';
import { type Call, type CallOptions, type Rig, rigEach } from './sendfile_rig.ts';
import { pcbOf } from './testproto.ts';

const counters = (): { iocnt: number; read: number; valid: number; bogus: number } => ({
  iocnt: sfstat.sf_iocnt,
  read: sfstat.sf_pages_read,
  valid: sfstat.sf_pages_valid,
  bogus: sfstat.sf_pages_bogus,
});

type TheFile = ReturnType<Rig['file']>;

interface Case {
  readonly errno: string;
  readonly error: Errno;
  readonly when: string;
  readonly options?: CallOptions;
  /** Size of the send buffer in bytes. Default 65536. */
  readonly hiwat?: number;
  /** Bytes of the file. Default 100,000. */
  readonly size?: number;
  /** `before` runs before the call, `during` right after its start. */
  readonly before?: (rig: Rig, f: TheFile) => void;
  readonly during?: (rig: Rig, call: Call, f: TheFile) => void;
  /**
   * The count passed to `sendfileDone`; null if sendfile() itself fails and `sendfileDone` is not
   * called.
   */
  readonly sbytes: number | null;
}

const bad = 'no bytes' as unknown as Uint8Array;
const many = Array.from({ length: 1025 }, () => new Uint8Array(1));

const CASES: Case[] = [
  {
    errno: 'EBADF',
    error: EBADF,
    when: 'the file is closed',
    sbytes: null,
    before: (_rig, { file }) => file.drop(),
  },
  {
    errno: 'EBADF',
    error: EBADF,
    when: 'the file is not open for reading',
    sbytes: null,
    before: (_rig, { disk }) => void (disk.readable = false),
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'the offset is negative',
    sbytes: null,
    options: { offset: -1 },
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'the count is negative',
    sbytes: null,
    options: { nbytes: -1 },
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'the file is not a regular file',
    sbytes: null,
    before: (_rig, { disk }) => void (disk.isFile = false),
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'the socket is not a stream socket',
    sbytes: null,
    before: ({ so }) => void ((so as { so_type: number }).so_type = SOCK_DGRAM),
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'there are more than 1024 headers',
    sbytes: null,
    options: { headers: many },
  },
  {
    errno: 'EINVAL',
    error: EINVAL,
    when: 'there are more than 1024 trailers',
    sbytes: null,
    options: { trailers: many },
  },
  {
    errno: 'EFAULT',
    error: EFAULT,
    when: 'a header is not a Uint8Array',
    sbytes: null,
    options: { headers: [bad] },
  },
  {
    errno: 'EFAULT',
    error: EFAULT,
    when: 'a trailer is not a Uint8Array',
    sbytes: null,
    options: { trailers: [new Uint8Array(1), bad] },
  },
  {
    errno: 'ENOTCONN',
    error: ENOTCONN,
    when: 'the socket is not connected',
    sbytes: 0,
    before: ({ so }) => void (so.so_state &= ~SS_ISCONNECTED),
  },
  {
    errno: 'ENOTCONN',
    error: ENOTCONN,
    when: 'the socket listens',
    sbytes: null,
    before: ({ so }) => void (so.so_options |= SO_ACCEPTCONN),
  },
  {
    errno: 'EPIPE',
    error: EPIPE,
    when: 'the send side is shut down',
    sbytes: 0,
    before: ({ so }) => void soshutdown(so, SHUT_WR),
  },
  {
    errno: 'EPIPE',
    error: EPIPE,
    when: 'the send side is shut down while the call waits for space',
    sbytes: 65_536,
    during: ({ so }) => void soshutdown(so, SHUT_WR),
  },
  {
    errno: 'so_error',
    error: ECONNRESET,
    when: 'a socket error is pending; it is reported once',
    sbytes: 0,
    before: ({ so }) => void (so.so_error = ECONNRESET),
    during: ({ so }) => expect(so.so_error).to.equal(0),
  },
  {
    errno: 'EAGAIN',
    error: EAGAIN,
    when: 'the socket is non-blocking and full',
    options: { nonblocking: true },
    sbytes: 65_536,
  },
  {
    errno: 'EBUSY',
    error: EBUSY,
    when: 'SF_NODISKIO meets a page that another call is reading',
    options: { flags: SF_NODISKIO },
    sbytes: 0,
    before: (rig, { file }) => void rig.call(file, { nbytes: 4096 }, rig.socket()),
  },
  {
    errno: 'ENOBUFS',
    error: ENOBUFS,
    when: 'no page list can be allocated',
    sbytes: 0,
    size: 1000,
    before: () => failPoint('mbuf_extpgs').arm(1),
  },
  {
    errno: 'ENOBUFS',
    error: ENOBUFS,
    when: 'no mbuf can be allocated for a mapped page',
    sbytes: 0,
    size: 1000,
    before: () => {
      mbParams.mb_use_ext_pgs = false;
      failPoint('mbuf').arm(1);
    },
  },
  {
    errno: 'EINTR',
    error: EINTR,
    when: 'the call is interrupted while it waits for space',
    sbytes: 65_536,
    during: (_rig, { call }) => call!.cancel(EINTR),
  },
  {
    errno: 'EIO',
    error: EIO,
    when: 'a read cannot be started',
    sbytes: 0,
    before: ({ disk }) => void disk.failReads.push(EIO),
  },
];

describe('sendfile: errno', () => {
  const make = rigEach();

  for (const { errno, error, when, options, hiwat, size, before, during, sbytes } of CASES)
    it(`${errno}: ${when}`, () => {
      const rig = make(hiwat);
      const f = rig.file(size ?? 100_000);
      before?.(rig, f);
      const accepted = rig.so.so_snd.sb_ccc;
      const call = rig.call(f.file, options ?? {});
      during?.(rig, call, f);
      failPoint('mbuf').disarm();
      failPoint('mbuf_extpgs').disarm();
      if (sbytes === null) {
        expect(call.started).to.equal(error);
        expect(call.heard).to.deep.equal([]);
        expect(rig.so.so_snd.sb_ccc).to.equal(accepted);
      } else {
        expect(call.started).to.equal(0);
        call.expectDone(error, sbytes);
      }
      // Restore the socket, so that the rig can close it.
      (rig.so as { so_type: number }).so_type = rig.so.so_proto.pr_type;
      rig.so.so_state |= SS_ISCONNECTED;
      rig.so.so_options &= ~SO_ACCEPTCONN;
      if (f.file.f_count === 0) rig.files.length = 0;
    });

  it('EIO of an asynchronous read: the call succeeds, the connection is aborted, so_error is EIO', () => {
    const rig = make();
    const { file } = rig.file(10_000);
    const call = rig.call(file);
    call.expectDone(0, 10_000);
    rig.disk.fail();
    expect(pcbOf(rig.so).aborts).to.equal(1);
    expect(sbavail(rig.so.so_snd)).to.equal(0);
    const uio = new Uio().single(new Uint8Array(1), 0, 1, UIO_WRITE);
    // The closed send side is checked first and gives EPIPE; so_error still holds EIO.
    expect(sosend(rig.so, uio, null, 0)).to.equal(EPIPE);
    expect(rig.so.so_error).to.equal(EIO);
  });

  it('a failed page list allocation in the middle: the whole file is still sent', () => {
    const rig = make(1 << 20);
    const { file, bytes } = rig.file(300_000);
    failPoint('mbuf_extpgs').arm(3);
    const call = rig.call(file);
    const got = rig.drain();
    call.expectDone(0, 300_000);
    expect(Buffer.compare(got, bytes)).to.equal(0);
  });
});

describe('sendfile: holes and valid pages', () => {
  const make = rigEach();

  it('sparse files: holes are sent as zeros without I/O', () => {
    const rig = make(1 << 20);
    const bytes = fileBytes(40 * 4096 - 5, 9);
    // Holes: pages 2 to 9 and half of page 10, and pages 20 to the end of the file except page 30.
    const holes: [number, number][] = [
      [2 * 4096, 10 * 4096 + 2000],
      [20 * 4096, 30 * 4096],
      [31 * 4096, bytes.length],
    ];
    for (const [from, to] of holes) bytes.fill(0, from, to);
    const { file, disk } = rig.file(bytes);
    disk.holes = holes;
    const call = rig.call(file);
    call.expectDone(0, bytes.length);
    expect(rig.disk.firstPages()).to.eql([0, 10, 30]);
    expect(rig.disk.pagesPending()).to.eql([2, 10, 1]);
    const got = rig.drain();
    expect(Buffer.compare(got, bytes)).to.equal(0);
    const { valid } = counters();
    rig.call(file).expectDone(0, bytes.length);
    expect(rig.disk.pending).to.equal(0);
    expect(counters().valid - valid, 'pages of holes are valid now').to.equal(40);
  });

  it('counts one valid page of a hole among pages that are not valid', () => {
    const rig = make(1 << 20);
    const { file, disk, bytes } = rig.file(new Uint8Array(4 * 4096));
    disk.holes = [[0, 4 * 4096]];
    rig.call(file, { offset: 2 * 4096, nbytes: 4096 }).expectDone(0, 4096);
    const { valid } = counters();
    const at = rig.drain().length;
    rig.call(file).expectDone(0, 4 * 4096);
    expect(counters().valid - valid).to.equal(1);
    expect(Buffer.compare(rig.drain().subarray(at), bytes)).to.equal(0);
  });

  it('a file that is one hole needs no I/O', () => {
    const rig = make(1 << 20);
    const { file, disk, bytes } = rig.file(new Uint8Array(100_000));
    disk.holes = [[0, 100_000]];
    rig.call(file).expectDone(0, 100_000);
    expect(rig.disk.pending).to.equal(0);
    expect(Buffer.compare(rig.drain(), bytes)).to.equal(0);
  });

  it('valid pages inside a read are replaced by the bogus page, keep their bytes, and are counted', () => {
    const rig = make(200_000);
    const { file, disk, bytes } = rig.file(10 * 4096);
    for (const page of [3, 4, 9]) {
      rig.call(file, { offset: page * 4096, nbytes: 4096, flags: SF_USER_READAHEAD });
      rig.drain();
    }
    const before = { ...counters() };
    // Change these pages on the disk without a new change time: the valid pages in memory stay in
    // use.
    disk.bytes = Uint8Array.from(bytes);
    for (const page of [3, 4, 9]) disk.bytes.fill(0xee, page * 4096, (page + 1) * 4096);
    const at = rig.peer.received.length;
    rig.call(file);
    expect(rig.disk.firstPages()).to.eql([0]);
    expect(rig.disk.pagesPending()).to.eql([9]); // the valid page at the end is not read
    const got = rig.drain().subarray(at);
    expect(Buffer.compare(got, bytes)).to.equal(0);
    const now = counters();
    expect(now.iocnt - before.iocnt).to.equal(1);
    expect(now.read - before.read).to.equal(9);
    expect(now.valid - before.valid).to.equal(3);
    expect(now.bogus - before.bogus).to.equal(2);
  });

  it('without a frame for the bogus page the read is split', () => {
    const rig = make(200_000);
    const { file, bytes } = rig.file(5 * 4096);
    rig.call(file, { offset: 2 * 4096, nbytes: 4096, flags: SF_USER_READAHEAD });
    rig.drain();
    // The four missing pages get frames; the allocation of the bogus page fails.
    failPoint('vm_page').arm(5);
    const at = rig.peer.received.length;
    rig.call(file);
    failPoint('vm_page').disarm();
    expect(rig.disk.pagesPending()).to.eql([2, 2]);
    expect(Buffer.compare(rig.drain().subarray(at), bytes)).to.equal(0);
  });

  it('a failed read leaves valid pages valid', () => {
    const rig = make(200_000);
    const { file } = rig.file(5 * 4096);
    rig.call(file, { offset: 2 * 4096, nbytes: 4096, flags: SF_USER_READAHEAD });
    rig.drain();
    rig.call(file);
    expect(rig.disk.pagesPending()).to.eql([5]);
    rig.disk.fail();
    const so = rig.socket();
    rig
      .call(file, { offset: 2 * 4096, nbytes: 4096, flags: SF_USER_READAHEAD }, so)
      .expectDone(0, 4096);
    expect(rig.disk.pending).to.equal(0);
    expect(sbavail(so.so_snd)).to.equal(4096);
    // A read that cannot be started leaves them valid, too.
    rig.disk.failReads.push(EIO);
    rig.call(file, {}, rig.socket()).expectDone(EIO, 0);
  });
});
