/** bpf(4) through the calls of a program: open, ioctl, read, write, kevent, close. */

import { expect } from 'chai';
import { Bsd } from '../../src/api/bsd.ts';
import {
  EBADF,
  EBUSY,
  EINVAL,
  EMSGSIZE,
  ENETDOWN,
  ENOENT,
  ENOMEM,
  ENOTTY,
  ENXIO,
  EPERM,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import { EV_ADD, EVFILT_READ, EVFILT_WRITE } from '../../src/kern/kern_event.ts';
import { inPass } from '../../src/sys/pass.ts';
import { bpfStats } from '../../src/net/bpf_desc.ts';
import { if_down } from '../../src/net/if.ts';
import { ether_ifdetach } from '../../src/net/if_ethersubr.ts';
import { IFF_PROMISC } from '../../src/net/if_var.ts';
import { OUR_MAC, PEER, PEER_MAC, Rig, US } from '../netinet/rig.ts';
import { buildEther, buildIcmp, buildIp4, BROADCAST_MAC } from '../support/frames.ts';

interface Packet {
  readonly sec: number;
  readonly frac: bigint;
  readonly datalen: number;
  readonly bytes: Uint8Array;
}

/** The packets in what a read returned. */
function packets(buf: Uint8Array, n: number): Packet[] {
  const view = new DataView(buf.buffer, buf.byteOffset, n);
  const found: Packet[] = [];
  for (let at = 0; at < n;) {
    const caplen = view.getUint32(at + 16, true);
    const hdrlen = view.getUint16(at + 24, true);
    found.push({
      sec: Number(view.getBigInt64(at, true)),
      frac: view.getBigUint64(at + 8, true),
      datalen: view.getUint32(at + 20, true),
      bytes: buf.slice(at + hdrlen, at + hdrlen + caplen),
    });
    at += Math.ceil((hdrlen + caplen) / 8) * 8;
  }
  return found;
}

/** struct bpf_insn[] of [code, jt, jf, k] tuples. */
function filter(...insns: number[][]): Uint8Array {
  const out = Buffer.alloc(8 * insns.length);
  insns.forEach(([code, jt, jf, k], i) => {
    out.writeUInt16LE(code!, 8 * i);
    out[8 * i + 2] = jt!;
    out[8 * i + 3] = jf!;
    out.writeUInt32LE(k!, 8 * i + 4);
  });
  return Uint8Array.from(out);
}

function frame(size: number, dst = OUR_MAC, src = PEER_MAC): Uint8Array {
  return buildEther({ dst, src }, 0x88b5, new Uint8Array(size - 14).fill(7));
}

function ping(seq: number): Uint8Array {
  return buildIp4(
    { src: PEER, dst: US },
    1,
    buildIcmp({ type: 8, id: 7, seq, payload: new Uint8Array(8) }),
  );
}

describe('bpf(4)', () => {
  let rig: Rig;
  let b: Bsd;
  let fd: number;
  const u32 = new Uint8Array(4);

  beforeEach(() => {
    rig = new Rig();
    b = new Bsd(rig.vnet);
    fd = b.open('/dev/bpf');
  });

  afterEach(() => {
    b.closeAll();
    expect(bpfStats.current).to.equal(0);
    rig.close();
  });

  function get(name: string, of = fd): number {
    expect(b.ioctl(of, name, u32), name).to.equal(0);
    return new DataView(u32.buffer).getUint32(0, true);
  }

  function set(name: string, arg: number | string | Uint8Array = 0, of = fd): void {
    expect(b.ioctl(of, name, arg), name).to.equal(0);
  }

  function stats(of = fd): [number, number] {
    const out = new Uint8Array(8);
    set('BIOCGSTATS', out, of);
    const view = new DataView(out.buffer);
    return [view.getUint32(0, true), view.getUint32(4, true)];
  }

  function read(of = fd): Packet[] | number {
    const buf = new Uint8Array(get('BIOCGBLEN', of));
    const n = b.read(of, buf);
    return n < 0 ? n : packets(buf, n);
  }

  function lengths(of = fd): number[] | number {
    const got = read(of);
    return typeof got === 'number' ? got : got.map((p) => p.bytes.length);
  }

  it('has the requests of FreeBSD on amd64', () => {
    expect(b.ioctls.BIOCGBLEN).to.equal(0x40044266);
    expect(b.ioctls.BIOCSBLEN).to.equal(0xc0044266);
    expect(b.ioctls.BIOCSETF).to.equal(0x80104267);
    expect(b.ioctls.BIOCFLUSH).to.equal(0x20004268);
    expect(b.ioctls.BIOCSETIF).to.equal(0x8020426c);
    expect(b.ioctls.BIOCGRTIMEOUT).to.equal(0x4010426e);
    expect(b.ioctls.BIOCGSTATS).to.equal(0x4008426f);
    expect(b.ioctls.BIOCGDLTLIST).to.equal(0xc0104279);
    expect(b.ioctls.FIONREAD).to.equal(0x4004667f);
  });

  it('opens, refuses what is no device and no request, and closes', () => {
    expect(b.open('/dev/null')).to.equal(-ENOENT);
    expect(b.ioctl(99, 'BIOCFLUSH')).to.equal(-EBADF);
    expect(b.ioctl(b.kqueue(), 'BIOCFLUSH')).to.equal(-ENOTTY);
    expect(b.ioctl(fd, 'BIOCFROB')).to.equal(-ENOTTY);
    expect(b.ioctl(fd, 12345, u32)).to.equal(-ENOTTY);
    expect(b.ioctl(fd, 'BIOCGBLEN', new Uint8Array(3))).to.equal(-EINVAL);
    expect(b.ioctl(fd, b.ioctls.BIOCGBLEN, u32)).to.equal(0);
    expect(b.bind(fd, { address: US, port: 1 })).to.equal(-EBADF);
    expect(b.read(fd, new Uint8Array(4096))).to.equal(-ENXIO);
    expect(b.write(fd, new Uint8Array(60))).to.equal(-ENXIO);
    expect(b.close(fd)).to.equal(0);
    expect(b.read(fd, new Uint8Array(4096))).to.equal(-EBADF);
  });

  it('attaches to an interface by name', () => {
    const ifreq = new Uint8Array(32);
    expect(b.ioctl(fd, 'BIOCSETIF', 'frob0')).to.equal(-ENXIO);
    expect(b.ioctl(fd, 'BIOCGETIF', ifreq)).to.equal(-EINVAL);
    expect(b.ioctl(fd, 'BIOCGDLT', u32)).to.equal(-EINVAL);
    expect(b.ioctl(fd, 'BIOCPROMISC')).to.equal(-EINVAL);
    set('BIOCSETIF', Uint8Array.from(Buffer.from('tn0'.padEnd(32, '\0'))));
    set('BIOCGETIF', ifreq);
    expect(Buffer.from(ifreq).toString().replaceAll('\0', '')).to.equal('tn0');
    expect(get('BIOCGDLT')).to.equal(1);
    const list = new Uint8Array(20);
    expect(b.ioctl(fd, 'BIOCGDLTLIST', list)).to.equal(-ENOMEM);
    list[0] = 1;
    set('BIOCGDLTLIST', list);
    expect(list[16]).to.equal(1);
    set('BIOCSDLT', 1);
    expect(b.ioctl(fd, 'BIOCSDLT', 0)).to.equal(-EINVAL);
    set('BIOCSETIF', 'lo0');
    expect(get('BIOCGDLT')).to.equal(0);
    expect(rig.ifp.if_bpf!.listeners).to.equal(0);
  });

  it('keeps the buffer size in its limits', () => {
    const size = (n: number): number => {
      new DataView(u32.buffer).setUint32(0, n, true);
      set('BIOCSBLEN', u32);
      return new DataView(u32.buffer).getUint32(0, true);
    };
    expect(get('BIOCGBLEN')).to.equal(4096);
    expect(size(1)).to.equal(32);
    expect(size(1 << 30)).to.equal(0x80000);
    expect(rig.vnet.sysctl.write('net.bpf.maxbufsize', '65536')).to.equal(0);
    expect(rig.vnet.sysctl.write('net.bpf.bufsize', '8192')).to.equal(0);
    expect(size(1 << 30)).to.equal(65_536);
    set('BIOCSETIF', 'tn0');
    expect(b.ioctl(fd, 'BIOCSBLEN', u32)).to.equal(-EINVAL);
    expect(b.ioctl(fd, 'BIOCSETBUFMODE', 1)).to.equal(-EBUSY);
    expect(b.ioctl(fd, 'BIOCSETBUFMODE', 2)).to.equal(-EINVAL);
    expect(get('BIOCGBLEN', b.open('/dev/bpf'))).to.equal(8192);
  });

  it('returns packets with their headers, aligned', () => {
    set('BIOCSETIF', 'tn0');
    expect(b.read(fd, new Uint8Array(4095))).to.equal(-EINVAL);
    expect(lengths()).to.equal(-EWOULDBLOCK);
    rig.inject(frame(61));
    rig.inject(frame(100), 30);
    expect(get('FIONREAD')).to.equal(88 + 126);
    const got = read() as Packet[];
    expect(got.map((p) => Buffer.from(p.bytes))).to.deep.equal([
      Buffer.from(frame(61)),
      Buffer.from(frame(100)),
    ]);
    expect(got.map((p) => p.datalen)).to.deep.equal([61, 100]);
    expect(stats()).to.deep.equal([2, 0]);
    expect(get('FIONREAD')).to.equal(0);
    set('BIOCFLUSH');
    expect(stats()).to.deep.equal([0, 0]);
  });

  it('rotates the buffers, and counts what neither holds', () => {
    new DataView(u32.buffer).setUint32(0, 256, true);
    set('BIOCSBLEN', u32);
    set('BIOCSETIF', 'tn0');
    // Two packets of 86 bytes with their header fit into a buffer.
    for (let i = 0; i < 7; i++) rig.inject(frame(60));
    expect(stats()).to.deep.equal([7, 3]);
    expect(lengths()).to.deep.equal([60, 60]);
    rig.inject(frame(70));
    expect(lengths()).to.deep.equal([60, 60]);
    expect(lengths()).to.deep.equal([70]);
    expect(stats()).to.deep.equal([8, 3]);
    // A packet longer than a buffer is cut.
    rig.inject(frame(1000));
    const [long] = read() as Packet[];
    expect([long!.bytes.length, long!.datalen]).to.deep.equal([230, 1000]);
  });

  it('filters, with the result as snap length', () => {
    set('BIOCSETIF', 'tn0');
    rig.inject(frame(60));
    set('BIOCSETFNR', filter([0x28, 0, 0, 12], [0x15, 0, 1, 0x800], [6, 0, 0, 34], [6, 0, 0, 0]));
    rig.inject(frame(60));
    rig.injectIp(ping(1));
    expect((read() as Packet[]).map((p) => [p.bytes.length, p.datalen])).to.deep.equal([
      [60, 60],
      [34, 50],
      [34, 50], // the reply
    ]);
    expect(stats()).to.deep.equal([4, 0]);
    rig.inject(frame(60));
    set('BIOCSETF', filter());
    expect(lengths()).to.equal(-EWOULDBLOCK);
    expect(stats()).to.deep.equal([0, 0]);
    for (const bad of [filter([0x28, 0, 0, 12]), filter([0xff, 0, 0, 0]), new Uint8Array(9)])
      expect(b.ioctl(fd, 'BIOCSETF', bad)).to.equal(-EINVAL);
    const long = filter(...Array.from({ length: 513 }, () => [6, 0, 0, 1]));
    expect(b.ioctl(fd, 'BIOCSETF', long)).to.equal(-EINVAL);
    set('BIOCSETF', long.subarray(8));
    expect(rig.vnet.sysctl.write('net.bpf.maxinsns', '4')).to.equal(0);
    expect(b.ioctl(fd, 'BIOCSETF', long.subarray(8))).to.equal(-EINVAL);
  });

  it('shows only the direction that was asked for, to each reader its own', () => {
    const out = b.open('/dev/bpf');
    const both = b.open('/dev/bpf0');
    for (const of of [fd, out, both]) set('BIOCSETIF', 'tn0', of);
    expect(get('BIOCGDIRECTION')).to.equal(1);
    set('BIOCSSEESENT', 0);
    set('BIOCSDIRECTION', 2, out);
    expect(get('BIOCGSEESENT', out)).to.equal(2);
    expect(b.ioctl(fd, 'BIOCSDIRECTION', 3)).to.equal(-EINVAL);
    rig.injectIp(ping(1));
    expect([stats(), stats(out), stats(both)]).to.deep.equal([
      [1, 0],
      [1, 0],
      [2, 0],
    ]);
    expect((read() as Packet[])[0]!.bytes[6]).to.equal(2);
    expect((read(out) as Packet[])[0]!.bytes[11]).to.equal(2);
    expect((lengths(both) as number[]).length).to.equal(2);
  });

  it('stamps packets in four formats', () => {
    set('BIOCSETIF', 'tn0');
    const boot = rig.clock.bootSec;
    const at = 3_123_456_789;
    rig.clock.advance(at - rig.clock.nowNs());
    const stamp = (format: number): [number, bigint] => {
      set('BIOCSTSTAMP', format);
      expect(get('BIOCGTSTAMP')).to.equal(format);
      rig.inject(frame(60));
      const [p] = read() as Packet[];
      return [p!.sec, p!.frac];
    };
    expect(stamp(0x200)).to.deep.equal([3, 123_456n]);
    expect(stamp(0x201)).to.deep.equal([3, 123_456_789n]);
    const [, frac] = stamp(0x202);
    expect(Number(frac) / 2 ** 64).to.be.closeTo(0.123456789, 1e-12);
    expect(stamp(3)).to.deep.equal([0, 0n]);
    const [sec] = stamp(0x100);
    expect(sec).to.be.closeTo(boot + 3, 1.001);
    expect(b.ioctl(fd, 'BIOCSTSTAMP', 4)).to.equal(-EINVAL);
  });

  it('writes frames, with its own source address or a complete header', () => {
    set('BIOCSETIF', 'tn0');
    const to = frame(60, PEER_MAC, '02:00:00:00:00:99');
    expect(b.write(fd, to)).to.equal(60);
    expect(Buffer.from(rig.sent[0]!)).to.deep.equal(Buffer.from(frame(60, PEER_MAC, OUR_MAC)));
    set('BIOCSHDRCMPLT', 1);
    expect(get('BIOCGHDRCMPLT')).to.equal(1);
    expect(b.write(fd, to)).to.equal(60);
    expect(Buffer.from(rig.sent[1]!)).to.deep.equal(Buffer.from(to));
    expect(lengths(), 'shown to readers, once each').to.deep.equal([60, 60]);
    expect(b.write(fd, new Uint8Array(0))).to.equal(0);
    expect(b.write(fd, new Uint8Array(13))).to.equal(-EMSGSIZE);
    expect(b.write(fd, new Uint8Array(1515))).to.equal(-EMSGSIZE);
    expect(b.write(fd, frame(1514))).to.equal(1514);
    set('BIOCSETWF', filter([0x80, 0, 0, 0], [0x35, 0, 1, 100], [6, 0, 0, 1], [6, 0, 0, 0]));
    expect(b.write(fd, frame(99))).to.equal(-EPERM);
    expect(b.write(fd, frame(100, BROADCAST_MAC))).to.equal(100);
    expect(rig.sent.length).to.equal(4);
    inPass(if_down, rig.ifp);
    expect(b.write(fd, frame(100))).to.equal(-ENETDOWN);
  });

  it('feeds a written packet back as input, and shows it once', () => {
    const other = b.open('/dev/bpf');
    for (const of of [fd, other]) set('BIOCSETIF', 'tn0', of);
    set('BIOCFEEDBACK', 1);
    set('BIOCSHDRCMPLT', 1);
    expect(b.write(fd, buildEther({ dst: OUR_MAC, src: PEER_MAC }, 0x800, ping(3)))).to.equal(50);
    // The request, which is also input, and the reply to it.
    expect(rig.sent.length).to.equal(2);
    expect(lengths(other)).to.deep.equal([50, 50]);
  });

  it('writes to lo0 with a family as header', () => {
    set('BIOCSETIF', 'lo0');
    const packet = Buffer.concat([Buffer.from([2, 0, 0, 0]), ping(1)]);
    expect(b.write(fd, packet)).to.equal(packet.length);
    expect(b.write(fd, Buffer.from([99, 0, 0, 0, 1]))).to.be.below(0);
    const [p] = read() as Packet[];
    expect(Buffer.from(p!.bytes)).to.deep.equal(packet);
  });

  it('sets promiscuous mode while a descriptor wants it', () => {
    const other = b.open('/dev/bpf');
    for (const of of [fd, other]) {
      set('BIOCSETIF', 'tn0', of);
      set('BIOCPROMISC', 0, of);
      set('BIOCPROMISC', 0, of);
    }
    expect(rig.ifp.if_flags & IFF_PROMISC).to.equal(IFF_PROMISC);
    b.close(fd);
    expect(rig.ifp.if_flags & IFF_PROMISC).to.equal(IFF_PROMISC);
    b.close(other);
    expect(rig.ifp.if_flags & IFF_PROMISC).to.equal(0);
  });

  it('can be locked', () => {
    set('BIOCSETIF', 'tn0');
    set('BIOCLOCK');
    for (const name of ['BIOCSETF', 'BIOCSETFNR', 'BIOCSETWF', 'BIOCSETIF', 'BIOCPROMISC'])
      expect(b.ioctl(fd, name, new Uint8Array(32)), name).to.equal(-EPERM);
    for (const name of ['BIOCSBLEN', 'BIOCSDLT', 'BIOCSHDRCMPLT', 'BIOCSDIRECTION'])
      expect(b.ioctl(fd, name, new Uint8Array(4)), name).to.equal(-EPERM);
    for (const name of ['BIOCIMMEDIATE', 'BIOCFEEDBACK', 'BIOCSTSTAMP', 'BIOCFLUSH', 'BIOCLOCK'])
      set(name, 1);
    expect(get('BIOCGBLEN')).to.equal(4096);
    expect(b.write(fd, frame(60))).to.equal(60);
  });

  it('a blocking read waits for a full buffer, a packet in immediate mode, or the time-out', async () => {
    set('BIOCSETIF', 'tn0');
    const buf = new Uint8Array(4096);
    const ends: number[] = [];
    const wait = (): Promise<unknown> => b.readAsync(fd, buf).then((n) => ends.push(n));
    const full = wait();
    for (let i = 0; i < 47; i++) rig.inject(frame(60));
    await Promise.resolve();
    expect(ends).to.deep.equal([]);
    rig.inject(frame(60));
    await full;
    expect(packets(buf, ends[0]!).length).to.equal(46);
    set('BIOCFLUSH');
    set('BIOCIMMEDIATE', 1);
    const first = wait();
    rig.inject(frame(60));
    await first;
    expect(ends[1]).to.equal(86);
    set('BIOCIMMEDIATE', 0);
    const timeval = new Uint8Array(16);
    new DataView(timeval.buffer).setUint32(8, 250_000, true);
    set('BIOCSRTIMEOUT', timeval);
    const got = new Uint8Array(16);
    set('BIOCGRTIMEOUT', got);
    expect(got).to.deep.equal(timeval);
    const late = wait();
    rig.inject(frame(60));
    rig.clock.advance(249e6);
    await Promise.resolve();
    expect(ends.length).to.equal(2);
    rig.clock.advance(2e6);
    await late;
    expect(ends[2]).to.equal(86);
    const none = wait();
    rig.clock.advance(251e6);
    await none;
    expect(ends[3]).to.equal(0);
    new DataView(timeval.buffer).setUint32(8, 1_000_000, true);
    expect(b.ioctl(fd, 'BIOCSRTIMEOUT', timeval)).to.equal(-EINVAL);
  });

  it('reports data to a kqueue', () => {
    set('BIOCSETIF', 'tn0');
    const kq = b.kqueue();
    const events = (): unknown => {
      const got = b.kevent(kq, [], 4);
      return typeof got === 'number' ? got : got.map(({ ident, data }) => [ident, data]);
    };
    b.kevent(kq, [{ ident: fd, filter: EVFILT_READ, flags: EV_ADD }], 0);
    expect(b.kevent(kq, [{ ident: fd, filter: EVFILT_WRITE, flags: EV_ADD }], 0)).to.equal(-EINVAL);
    rig.inject(frame(60));
    expect(events()).to.deep.equal([]);
    set('BIOCIMMEDIATE', 1);
    rig.inject(frame(60));
    expect(events()).to.deep.equal([[fd, 88 + 86]]);
    expect(lengths()).to.deep.equal([60, 60]);
    expect(events()).to.deep.equal([]);
  });

  it('fails with ENXIO when the interface goes, after the packets it has', async () => {
    set('BIOCSETIF', 'tn0');
    set('BIOCPROMISC');
    const other = b.open('/dev/bpf');
    set('BIOCSETIF', 'tn0', other);
    rig.inject(frame(60));
    const waiting = b.readAsync(other, new Uint8Array(4096));
    inPass(ether_ifdetach, rig.ifp);
    expect(await waiting).to.equal(86);
    expect(lengths()).to.deep.equal([60]);
    expect(lengths()).to.equal(-ENXIO);
    expect(b.write(fd, frame(60))).to.equal(-ENXIO);
    expect(await b.readAsync(fd, new Uint8Array(4096)).catch((e: Error) => e.message)).to.match(
      /ENXIO/,
    );
  });

  it('a closed descriptor ends a waiting read', async () => {
    set('BIOCSETIF', 'tn0');
    const waiting = b.readAsync(fd, new Uint8Array(4096)).catch((e: Error) => e.message);
    b.close(fd);
    expect(await waiting).to.match(/EBADF/);
    expect(rig.ifp.if_bpf!.listeners).to.equal(0);
  });
});
