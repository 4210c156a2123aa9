/** fast-check generators of what drivers and peers do, correct and hostile. */

import * as fc from 'fast-check';
import {
  TN_C_L3_SHIFT,
  TN_C_L4_SHIFT,
  TN_CTRL,
  TN_CTRL_RST,
  TN_CTRL_RXE,
  TN_CTRL_TXE,
  TN_DESC_SIZE,
  TN_ICR,
  TN_IMC,
  TN_IMS,
  TN_ITR,
  TN_MAXFRM,
  TN_MTA0,
  TN_MTA1,
  TN_RDBAH,
  TN_RDBAL,
  TN_RDH,
  TN_RDLEN,
  TN_RDT,
  TN_RXBSZ,
  TN_STATS,
  TN_STATUS,
  TN_TDBAH,
  TN_TDBAL,
  TN_TDH,
  TN_TDLEN,
  TN_TDT,
  TN_TXD_CTX,
  TN_TXD_EOP,
  TN_TXD_IXSM,
  TN_TXD_RS,
  TN_TXD_TCP,
  TN_TXD_TSE,
  TN_TXD_TXSM,
  TN_TXD_V6,
  TN_TXD_VLE,
} from '../../src/dev/tn/tnreg.ts';
import {
  DSTOPTS,
  type ExtHeader,
  extLen,
  FRAGMENT,
  HOPOPTS,
  makePacket,
  ROUTING,
  sum1071,
} from '../dev/judge.ts';
import { BASE, MAC, type Setup, type Step } from './bench.ts';

export const TX_RING = 0x4000;
export const RX_RING = 0x18000;
const HEADERS = 0x30000;
/** Payload to send is the arena's fill pattern in this range; receive buffers follow it. */
const DATA = 0x80000;
const DATA_END = 0x300000;
export const RX_DATA = 0x400000;
/** Bytes of RAM: the arena of 16 MiB without the regions after it. */
const RAM = 7 << 20;

export const addrWords = (off: number): [number, number] => [
  (BASE + off) >>> 0,
  Math.floor((BASE + off) / 2 ** 32),
];

export const setup: fc.Arbitrary<Setup> = fc.record({
  vnet: fc.boolean(),
  timer: fc.boolean(),
  room: fc.constantFrom(0, 0, 1, 8192, 40_000),
});

/** Ring sizes, mode bits and further register values. */
export interface Driver {
  ntx: number;
  nrx: number;
  ctrl: number;
  bufSize: number;
  frameMax: number;
  mask: number;
  itr: number;
  snaplen: number;
  /** Capture points, by bit, and whether records get metadata. */
  points: number;
  meta: boolean;
}

export const driver: fc.Arbitrary<Driver> = fc.record({
  ntx: fc.constantFrom(8, 16, 64, 256),
  nrx: fc.constantFrom(8, 16, 64),
  // Mode bits with the checksums of one family or of both.
  ctrl: fc.oneof(
    fc.constantFrom(0, 0x40, 0x60, 0x08, 0x20, 0x48, 0x50, 0x78, 0xc0, 0x80, 0xe8),
    fc.constantFrom(0x100, 0x140, 0x140, 0x160, 0x180, 0x1c0, 0x1e8),
  ),
  bufSize: fc.constantFrom(2048, 2048, 4096, 16384),
  frameMax: fc.constantFrom(1518, 1518, 60, 2047, 2048, 2049, 4096, 9216, 9217, 65553),
  mask: fc.constantFrom(0, 0x3f, 1, 2, 0x38),
  itr: fc.constantFrom(0, 0, 20, 1000),
  snaplen: fc.constantFrom(0, 32, 32, 64, 262144),
  points: fc.constantFrom(0x10, 0x10, 0x18, 0x18, 0x08, 0x04),
  meta: fc.boolean(),
});

/** Sets up both rings, starts the engines and posts the receive buffers. */
export function bringUp(d: Driver): Step[] {
  const [tlo, thi] = addrWords(TX_RING);
  const [rlo, rhi] = addrWords(RX_RING);
  const regs: [number, number][] = [
    [TN_TDBAL, tlo],
    [TN_TDBAH, thi],
    [TN_TDLEN, d.ntx * TN_DESC_SIZE],
    [TN_RDBAL, rlo],
    [TN_RDBAH, rhi],
    [TN_RDLEN, d.nrx * TN_DESC_SIZE],
    [TN_RXBSZ, d.bufSize],
    [TN_MAXFRM, d.frameMax],
    [TN_MTA0, 0x80000010],
    [TN_MTA1, 0x00400001],
    [TN_IMS, d.mask],
    [TN_ITR, d.itr],
    [TN_CTRL, TN_CTRL_TXE | TN_CTRL_RXE | d.ctrl],
  ];
  const steps: Step[] = [{ do: 'listen', snaplen: d.snaplen, points: d.points, meta: d.meta }];
  for (const [reg, value] of regs) steps.push({ do: 'write', reg, value });
  for (let i = 0; i < d.nrx; i++) {
    const [lo, hi] = addrWords(RX_DATA + i * d.bufSize);
    steps.push({ do: 'words', at: RX_RING + i * TN_DESC_SIZE, words: [lo, hi, 0, 0] });
  }
  steps.push({ do: 'write', reg: TN_RDT, value: d.nrx - 1 });
  return steps;
}

/** A packet as a driver with offloads would send it, or with small errors. */
interface Packet {
  v6: boolean;
  udp: boolean;
  vlan: number;
  tcpOptions: number;
  ipOptions: number;
  exts: ExtHeader[];
  seq: number;
  ipId: number;
  thFlags: number;
  /** Bytes of headers in the first piece; the rest of them in the second. */
  cut: number;
  /** Offset from DATA and length of each piece. */
  payload: [number, number][];
  offload: 'none' | 'ip' | 'csum' | 'tso';
  mss: number;
  /** VLAN tag to insert, -1 for none. */
  vtag: number;
  rs: boolean;
  /** Added to the IP header length in the context descriptor, to make it wrong. */
  off: number;
  /** Adjusts the headers so that the TCP or UDP sum is all ones if there is no payload. */
  ones: boolean;
  /**
   * Number of descriptors without EOP after the packet; 1000 fills the ring. If it is not 0 and
   * `rs` is false, the packet itself has no EOP.
   */
  endless: number;
  tag: number;
}

/** IPv6 extension headers in any order, at most a few more than the device parses. */
const chain: fc.Arbitrary<ExtHeader[]> = fc.oneof(
  { weight: 2, arbitrary: fc.constant<ExtHeader[]>([]) },
  fc.array(
    fc.record({
      type: fc.constantFrom(HOPOPTS, DSTOPTS, DSTOPTS, ROUTING, ROUTING, FRAGMENT, 51),
      units: fc.constantFrom(0, 0, 0, 1, 2, 5, 25, 26, 27, 255),
      left: fc.constantFrom(0, 0, 0, 1),
    }),
    { maxLength: 4 },
  ),
  fc
    .integer({ min: 7, max: 9 })
    .map((n) => Array.from({ length: n }, () => ({ type: DSTOPTS, units: 0, left: 0 }))),
);

const packet: fc.Arbitrary<Packet> = fc.record({
  v6: fc.boolean(),
  udp: fc.boolean(),
  vlan: fc.constantFrom(-1, -1, 5),
  tcpOptions: fc.constantFrom(0, 12, 40),
  ipOptions: fc.constantFrom(0, 0, 4, 40),
  exts: chain,
  seq: fc.constantFrom(1, 0xffffff00, 0xffffffff),
  ipId: fc.constantFrom(0, 0x1234, 0xfffe, 0xffff),
  thFlags: fc.constantFrom(0x10, 0x19, 0x98, 0xff),
  cut: fc.oneof(fc.constant(200), fc.integer({ min: 1, max: 100 })),
  payload: fc.array(
    fc.tuple(
      fc.nat(DATA_END - DATA - 65536),
      fc.oneof(fc.integer({ min: 1, max: 4096 }), fc.constantFrom(1, 2, 3, 4095, 4096, 16_384)),
    ),
    { maxLength: 17 },
  ),
  offload: fc.constantFrom('none', 'ip', 'csum', 'tso', 'tso'),
  mss: fc.constantFrom(64, 63, 536, 1448, 1460, 8948, 9216),
  vtag: fc.constantFrom(-1, -1, -1, 0, 0xffff),
  rs: fc.constantFrom(true, true, false),
  // 176 and 180 make 250 and 254 bytes of headers for IPv6 with TCP: just within and just past the
  // limit.
  off: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 0, 1, 4, -4, 176, 180),
  ones: fc.boolean(),
  endless: fc.constantFrom(0, 0, 0, 0, 0, 0, 0, 3, 1000),
  tag: fc.nat(0xffffffff),
});

/** Changes a header without payload so that its sum, as the device computes it, is 0xffff. */
function allOnes(bytes: Uint8Array, l4: number, udp: boolean): void {
  const at = udp ? l4 : l4 + 18; // UDP: the source port; TCP: the urgent pointer
  bytes.fill(0, at, at + 2);
  const rest = 0xffff - sum1071(bytes.subarray(l4));
  bytes[at] = rest >>> 8;
  bytes[at + 1] = rest & 0xff;
}

/**
 * Writes packets into the ring from slot `from` on; skips a packet that does not fit into the ring.
 */
function fill(d: Driver, packets: Packet[], from: number): { steps: Step[]; tail: number } {
  const steps: Step[] = [];
  let tail = from;
  let room = d.ntx - 1;
  packets.forEach((p, i) => {
    const udp = p.udp && p.offload !== 'tso';
    // 64 bytes of extension headers fit into the space for a packet's headers.
    const exts = extLen(p.exts) <= 64 ? p.exts : [];
    const payload = p.offload === 'none' || p.offload === 'ip' ? p.payload.slice(0, 3) : p.payload;
    const bytes = makePacket({
      v6: p.v6,
      udp,
      payload: 0,
      seq: p.seq,
      thFlags: p.thFlags,
      ipId: p.ipId,
      tcpOptions: p.tcpOptions,
      ipOptions: p.ipOptions,
      exts,
      cksum: 'pseudo',
      ...(p.vlan < 0 ? {} : { vlan: p.vlan }),
    });
    if (p.ones) allOnes(bytes, bytes.length - (udp ? 8 : 20 + p.tcpOptions), udp);
    const at = HEADERS + i * 512;
    const cut = Math.min(p.cut, bytes.length);
    const pieces: [number, number][] = [[at, cut]];
    if (cut < bytes.length) pieces.push([at + 256 + cut, bytes.length - cut]);
    for (const [off, len] of payload) pieces.push([DATA + off, len]);
    const descs: number[][] = [];
    if (p.offload !== 'none') {
      const l2 = p.vlan < 0 ? 14 : 18;
      const l3 = p.v6 ? 40 + extLen(exts) : 20 + p.ipOptions;
      const l4 = udp ? 8 : 20 + p.tcpOptions;
      let cmd = TN_TXD_CTX | TN_TXD_IXSM;
      if (p.offload !== 'ip') cmd |= TN_TXD_TXSM;
      if (p.offload === 'tso') cmd |= TN_TXD_TSE;
      if (p.v6) cmd |= TN_TXD_V6;
      if (!udp) cmd |= TN_TXD_TCP;
      const lens = l2 | ((l3 + p.off) << TN_C_L3_SHIFT) | (l4 << TN_C_L4_SHIFT);
      descs.push([lens, p.mss, p.tag, cmd]);
    }
    pieces.forEach(([off, len], k) => {
      const [lo, hi] = addrWords(off);
      const last = k === pieces.length - 1 && (p.rs || p.endless === 0);
      let cmd = last ? TN_TXD_EOP | (p.rs ? TN_TXD_RS : 0) : 0;
      if (k === 0 && p.vtag >= 0) cmd |= TN_TXD_VLE;
      descs.push([lo, hi, len + Math.max(p.vtag, 0) * 65536, cmd]);
    });
    if (descs.length > room) return;
    const endless = Math.min(p.endless, room - descs.length);
    for (let k = 0; k < endless; k++) descs.push([...addrWords(DATA + 64 * k), 64, 0]);
    room -= descs.length;
    steps.push({ do: 'bytes', at, bytes: bytes.subarray(0, cut) });
    steps.push({ do: 'bytes', at: at + 256 + cut, bytes: bytes.subarray(cut) });
    for (const words of descs) {
      steps.push({ do: 'words', at: TX_RING + tail * TN_DESC_SIZE, words });
      tail = (tail + 1) % d.ntx;
    }
  });
  return { steps, tail };
}

const dst: fc.Arbitrary<number[]> = fc.constantFrom(
  [2, 0, 0, 0, 0, 1],
  [2, 0, 0, 0, 0, 1],
  [255, 255, 255, 255, 255, 255],
  [1, 0, 0x5e, 0, 0, 1],
  [1, 0, 0x5e, 0, 0, 0xfb],
  [0x33, 0x33, 0, 0, 0, 1],
  [2, 0, 0, 0, 0, 9],
);

/** A frame from the peer, without virtio-net header. */
const goodFrame = fc
  .record({
    payload: fc.oneof(
      fc.nat(1500),
      fc.constantFrom(0, 0, 0, 1, 1460, 1461, 1994, 1995, 2100, 4042),
    ),
    v6: fc.boolean(),
    udp: fc.boolean(),
    vlan: fc.constantFrom(-1, -1, 0x6001),
    cksum: fc.constantFrom('full', 'full', 'pseudo'),
    spoil: fc.constantFrom(0, 0, 1),
    ipOptions: fc.constantFrom(0, 0, 8),
    exts: chain,
    dst,
    // One changed byte in the headers: fragments, lengths, versions, protocols.
    poke: fc.option(fc.tuple(fc.integer({ min: 12, max: 90 }), fc.nat(255)), { nil: null }),
    udpZero: fc.boolean(),
    // The fragment field of an IPv4 header with a right checksum: DF, MF, an offset, reserved.
    frag: fc.constantFrom(0, 0, 0, 0x4000, 0x2000, 0x0001, 0x1fff, 0x8000),
    extra: fc.constantFrom(0, 0, 6),
  })
  .map(({ vlan, poke, udpZero, frag, extra, ...o }) => {
    const made = makePacket({
      ...o,
      ...(vlan < 0 ? {} : { vlan }),
    });
    const frame = new Uint8Array(made.length + extra);
    frame.set(made);
    // A checksum that the device completes, with the result 0.
    const l4 = (vlan < 0 ? 14 : 18) + (o.v6 ? 40 + extLen(o.exts) : 20 + o.ipOptions);
    if (o.payload === 0 && o.cksum === 'pseudo') allOnes(frame, l4, o.udp);
    const ip = frame.subarray(vlan < 0 ? 14 : 18);
    if (!o.v6 && frag !== 0) {
      ip.set([frag >>> 8, frag & 0xff], 6);
      ip.fill(0, 10, 12);
      const sum = ~sum1071(ip.subarray(0, 20 + o.ipOptions)) & 0xffff;
      ip.set([sum >>> 8, sum & 0xff], 10);
    }
    if (poke !== null) frame[poke[0] % frame.length] = poke[1];
    if (o.udp && udpZero) frame.fill(0, l4 + 6, l4 + 8);
    return frame;
  });

const oddFrame = fc.oneof(
  fc.uint8Array({ minLength: 1, maxLength: 80 }),
  fc
    .tuple(fc.constantFrom(59, 60, 1517, 1518, 1519, 2048, 2049, 9216, 9217, 30_000), fc.nat(255))
    .map(([len, byte]) => {
      const frame = new Uint8Array(len).fill(byte);
      frame.set(MAC);
      return frame;
    }),
);

const vnetHdr = fc
  .tuple(
    fc.constantFrom(0, 1, 2, 3, 0xff),
    fc.constantFrom(0, 1, 4, 0x81, 3),
    fc.constantFrom(0, 54, 66, 0xffff),
    fc.constantFrom(0, 1, 536, 1448, 0xffff),
    fc.constantFrom(0, 14, 34, 54, 38, 0xffff),
    fc.constantFrom(0, 6, 16, 0xffff),
  )
  .map(([flags, gso, ...words]) => [
    flags,
    gso,
    ...words.flatMap((w) => [w & 0xff, w >>> 8]),
    0,
    0,
  ]);

export const frame = fc
  .tuple(fc.oneof({ weight: 4, arbitrary: goodFrame }, oddFrame), vnetHdr)
  .map(([bytes, hdr]) => ({ bytes, hdr }));

export const sendOf = (
  vnet: boolean,
  { bytes, hdr }: { bytes: Uint8Array; hdr: number[] },
): Step => ({
  do: 'send',
  frame: vnet ? Uint8Array.from([...hdr, ...bytes]) : bytes,
});

/** Steps between doorbells. */
export const between: fc.Arbitrary<Step> = fc.oneof(
  fc.nat(40).map((n): Step => ({ do: 'take', n })),
  fc.constant<Step>({ do: 'poll' }),
  fc.constant<Step>({ do: 'turn' }),
  fc.constant<Step>({ do: 'drain' }),
  fc.constantFrom(5000, 30_000, 2_000_000).map((ns): Step => ({ do: 'time', ns })),
  fc.nat(0x3f).map((value): Step => ({ do: 'write', reg: TN_ICR, value })),
  fc.constantFrom(TN_IMS, TN_IMC).map((reg): Step => ({ do: 'write', reg, value: 0x3f })),
  fc
    .constantFrom(TN_TDH, TN_RDH, TN_STATUS, TN_ICR, TN_STATS, TN_STATS + 8, TN_STATS + 12)
    .map((reg): Step => ({ do: 'read', reg })),
  fc.boolean().map((up): Step => ({ do: 'link', up })),
  fc
    .constantFrom(0x6, 0x46, 0x66, 0x4e, 0x56, 0x2, 0x4, 0)
    .map((value): Step => ({ do: 'write', reg: TN_CTRL, value })),
  fc.nat(64).map((value): Step => ({ do: 'write', reg: TN_RDT, value })),
);

/** A correct driver, on a full-size script. */
export const kindScript: fc.Arbitrary<{ setup: Setup; steps: Step[] }> = fc
  .record({
    setup,
    driver,
    rounds: fc.array(
      fc.record({
        packets: fc.array(packet, { maxLength: 6 }),
        frames: fc.array(frame, { maxLength: 8 }),
        between: fc.array(between, { maxLength: 3 }),
        repost: fc.boolean(),
      }),
      { minLength: 1, maxLength: 6 },
    ),
  })
  .map(({ setup: s, driver: d, rounds }) => {
    const steps = bringUp(d);
    let tail = 0;
    for (const { packets, frames, between: others, repost } of rounds) {
      for (const f of frames) steps.push(sendOf(s.vnet, f));
      const filled = fill(d, packets, tail);
      steps.push(...filled.steps, ...others, { do: 'write', reg: TN_TDT, value: filled.tail });
      tail = filled.tail;
      steps.push({ do: 'take', n: 3 }, { do: 'poll' });
      if (repost) steps.push({ do: 'write', reg: TN_RDT, value: (tail * 3) % d.nrx });
    }
    return { setup: s, steps };
  });

const word = fc.oneof(
  fc.nat(0xffffffff),
  fc.constantFrom(0, 1, 2, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffff0),
);
/** Bus addresses: in RAM, at its edges, wrapping, anywhere; in rings and other buffers too. */
const anyAddr = fc.oneof(
  { weight: 6, arbitrary: fc.nat(RAM - 0x20000).map((n) => BASE + 0x10000 + n) },
  fc.constantFrom(0, BASE, BASE + 4095, BASE + 4096, BASE + RAM, BASE + RAM - 1, BASE + RAM - 2048),
  fc.constantFrom(BASE + TX_RING, BASE + RX_RING, BASE + RX_RING + 64, 2 ** 53 - 1, 2 ** 64 - 4096),
  fc.nat(0xffffffff),
  fc.nat(0xffffffff).map((n) => n * 2 ** 20),
);
const halves = (addr: number): [number, number] => [
  addr % 2 ** 32,
  Math.floor(addr / 2 ** 32) % 2 ** 32,
];

const hostileDesc: fc.Arbitrary<number[]> = fc.oneof(
  {
    weight: 3,
    arbitrary: fc
      .record({
        addr: anyAddr,
        len: fc.oneof(fc.nat(2000), fc.nat(0xffff), fc.constantFrom(0, 1, 13, 14, 0xffff)),
        tag: fc.nat(0xffff),
        cmd: fc.oneof(fc.constantFrom(0, 1, 3, 8, 11), fc.nat(0x1ff), word),
      })
      .map(({ addr, len, tag, cmd }) => [...halves(addr), len + tag * 65536, cmd]),
  },
  fc
    .record({
      lens: fc.oneof(
        fc.constantFrom(14 | (20 << 8) | (20 << 17), 14 | (40 << 8) | (32 << 17)),
        fc.constantFrom(14 | (508 << 8) | (20 << 17), 255 | (20 << 8) | (8 << 17)),
        word,
      ),
      mss: fc.oneof(fc.nat(2000), word),
      tag: word,
      cmd: fc.oneof(
        fc.constantFrom(0x10, 0x30, 0x130, 0x170, 0x1e0).map((c) => c | TN_TXD_CTX),
        fc.nat(0x1ff).map((c) => c | TN_TXD_CTX),
      ),
    })
    .map(({ lens, mss, tag, cmd }) => [lens, mss, tag, cmd]),
);

const anyReg = fc.oneof(
  fc.constantFrom(0, 4, 0x10, 0x14, 0x18, 0x20, 0x24, 0x28, 0x2c, 0x30, 0x40, 0x44),
  fc.constantFrom(TN_TDBAL, TN_TDBAH, TN_TDLEN, TN_TDT, TN_RDBAL, TN_RDBAH, TN_RDLEN),
  fc.constantFrom(TN_RDT, TN_RXBSZ, TN_CTRL, TN_CTRL, TN_TDT, TN_MAXFRM),
  fc.nat(0x1200),
);
const anyValue = fc.oneof(
  word,
  fc.nat(128),
  fc.nat(8192),
  fc.nat(600).map((n) => n * 128),
  fc.constantFrom(2, 4, 6, 0x7e, 0xfe, 0x1fe, 0x3fe),
  fc.nat(RAM - 1).map((n) => (BASE + n) >>> 0),
);

const hostileStep: fc.Arbitrary<Step> = fc.oneof(
  fc.tuple(anyReg, anyValue).map(([reg, value]): Step => ({ do: 'write', reg, value })),
  anyReg.map((reg): Step => ({ do: 'read', reg })),
  fc
    .tuple(fc.nat(63), hostileDesc)
    .map(([slot, words]): Step => ({ do: 'words', at: TX_RING + slot * TN_DESC_SIZE, words })),
  fc.tuple(fc.nat(63), anyAddr).map(([slot, addr]): Step => ({
    do: 'words',
    at: RX_RING + slot * TN_DESC_SIZE,
    words: [...halves(addr), 0, 0],
  })),
  fc.nat(70).map((value): Step => ({ do: 'write', reg: TN_TDT, value })),
  fc.nat(70).map((value): Step => ({ do: 'write', reg: TN_RDT, value })),
  fc.constant<Step>({ do: 'hangup' }),
  // A reset and a stop, with an event before the driver starts again.
  fc
    .constantFrom(TN_CTRL_RST, TN_CTRL_RST | TN_CTRL_TXE, 0)
    .map((value): Step => ({ do: 'write', reg: TN_CTRL, value })),
  between,
);

/** Rings with any content, registers with any value, after a proper start or without one. */
export const hostileScript: fc.Arbitrary<{ setup: Setup; steps: Step[] }> = fc
  .record({
    setup,
    driver: fc.option(driver, { nil: null, freq: 12 }),
    descs: fc.array(hostileDesc, { maxLength: 63 }),
    rx: fc.array(fc.option(anyAddr, { nil: null, freq: 3 }), { minLength: 3, maxLength: 20 }),
    frames: fc.array(frame, { maxLength: 6 }),
    more: fc.array(fc.oneof(hostileStep, frame), { maxLength: 40 }),
  })
  .map(({ setup: s, driver: d, descs, rx, frames, more }) => {
    const steps: Step[] = d === null ? [] : bringUp(d);
    rx.forEach((addr, i) => {
      const at = RX_RING + i * TN_DESC_SIZE;
      if (addr !== null) steps.push({ do: 'words', at, words: [...halves(addr), 0, 0] });
    });
    descs.forEach((words, i) => steps.push({ do: 'words', at: TX_RING + i * TN_DESC_SIZE, words }));
    for (const f of frames) steps.push(sendOf(s.vnet, f));
    steps.push({ do: 'write', reg: TN_TDT, value: Math.min(descs.length, (d?.ntx ?? 64) - 1) });
    for (const m of more) steps.push('do' in m ? m : sendOf(s.vnet, m));
    return { setup: s, steps };
  });

/** Rings of any length anywhere in RAM. The bytes that lie there are their descriptors. */
export const lostScript: fc.Arbitrary<{ setup: Setup; steps: Step[] }> = fc
  .record({
    setup,
    rounds: fc.array(
      fc.record({
        ring: fc.nat(RAM / 128 - 1).map((n) => BASE + n * 128),
        len: fc.oneof(fc.integer({ min: 1, max: 512 }), fc.nat(70_000)).map((n) => n * 128),
        odd: fc.constantFrom(0, 0, 0, 8, 64),
        tail: fc.nat(4096),
        ctrl: fc.constantFrom(0x6, 0x7e, 0x46, 0x26, 0xfe, 0x106, 0x1fe),
        frames: fc.array(frame, { maxLength: 4 }),
        others: fc.array(fc.oneof(between, hostileStep), { maxLength: 6 }),
      }),
      { minLength: 1, maxLength: 4 },
    ),
  })
  .map(({ setup: s, rounds }) => {
    const steps: Step[] = [{ do: 'write', reg: TN_IMS, value: 0x3f }];
    for (const r of rounds) {
      const [lo, hi] = halves(r.ring);
      const w = (reg: number, value: number): number =>
        steps.push({ do: 'write', reg, value: value >>> 0 });
      w(TN_CTRL, 0);
      w(TN_TDBAL, lo + r.odd);
      w(TN_TDBAH, hi);
      w(TN_TDLEN, r.len + r.odd);
      w(TN_RDBAL, lo);
      w(TN_RDBAH, hi);
      w(TN_RDLEN, r.len);
      w(TN_CTRL, r.ctrl);
      w(TN_RDT, r.tail);
      for (const f of r.frames) steps.push(sendOf(s.vnet, f));
      w(TN_TDT, r.tail);
      steps.push({ do: 'poll' }, ...r.others);
    }
    return { setup: s, steps };
  });
