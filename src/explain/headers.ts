/**
 * The headers of a frame, as far as the captured bytes go: addresses, ports, TCP sequence numbers and
 * the length of the payload. Accepts any bytes. Left out: IPv6 extension headers but fragments,
 * options.
 */

const LINKTYPE_ETHERNET = 1;
/** Link types whose packets begin with the IP header: DLT_RAW of several systems, and LINKTYPE_RAW. */
const RAW_LINKTYPES = [12, 14, 101, 228, 229];
const LINKTYPE_LINUX_SLL = 113;

const ETHERTYPE_IP = 0x0800;
const ETHERTYPE_ARP = 0x0806;
const ETHERTYPE_VLAN = 0x8100;
const ETHERTYPE_IPV6 = 0x86dd;
const PROTO_NAMES: Readonly<Record<number, string>> = {
  1: 'ICMP',
  2: 'IGMP',
  6: 'TCP',
  17: 'UDP',
  58: 'ICMPv6',
};
const TCP_FLAGS = ['F', 'S', 'R', 'P', '.', 'U', 'E', 'W'];

/** TCP's part of a segment. */
interface TcpHead {
  readonly seq: number;
  readonly ack: number;
  readonly flags: number;
  readonly window: number;
}

/** What the headers of a frame say. */
export interface FrameHead {
  /** One line of text. */
  readonly text: string;
  /** `ADDR.PORT`; empty: unknown. */
  readonly from: string;
  readonly to: string;
  readonly tcp: TcpHead | null;
  /** Bytes after the headers, without padding of the frame. */
  readonly payload: number;
  /** Bytes of link, IP and transport headers. */
  readonly headers: number;
}

/** Bytes; reads after the end give 0, and `ok` is false then. */
class Bytes {
  readonly #b: Uint8Array;
  ok = true;

  constructor(b: Uint8Array) {
    this.#b = b;
  }

  u8(at: number): number {
    const value = this.#b[at];
    if (value === undefined) this.ok = false;
    return value ?? 0;
  }

  u16(at: number): number {
    return (this.u8(at) << 8) | this.u8(at + 1);
  }

  u32(at: number): number {
    return ((this.u16(at) << 16) | this.u16(at + 2)) >>> 0;
  }

  ip4(at: number): string {
    return [0, 1, 2, 3].map((i) => this.u8(at + i)).join('.');
  }

  ip6(at: number): string {
    const words = Array.from({ length: 8 }, (_, i) => this.u16(at + 2 * i).toString(16));
    // The longest run of zero words becomes `::`.
    let best = { from: 0, n: 0 };
    for (let i = 0; i < 8; i++) {
      let n = 0;
      while (words[i + n] === '0') n++;
      if (n > best.n) best = { from: i, n };
    }
    if (best.n < 2) return words.join(':');
    return `${words.slice(0, best.from).join(':')}::${words.slice(best.from + best.n).join(':')}`;
  }
}

function other(text: string, wirelen: number): FrameHead {
  return { text, from: '', to: '', tcp: null, payload: wirelen, headers: 0 };
}

/** Text and numbers of a transport header at `at`; `end` is the end of the packet. */
function transport(
  b: Bytes,
  proto: number,
  src: string,
  dst: string,
  at: number,
  end: number,
): FrameHead {
  const name = PROTO_NAMES[proto] ?? `protocol ${proto}`;
  if (proto === 6) {
    const headers = at + Math.max(20, (b.u8(at + 12) >> 4) * 4);
    const tcp = {
      seq: b.u32(at + 4),
      ack: b.u32(at + 8),
      flags: b.u8(at + 13),
      window: b.u16(at + 14),
    };
    const flags = TCP_FLAGS.filter((_, i) => (tcp.flags & (1 << i)) !== 0).join('');
    const payload = Math.max(0, end - headers);
    const from = `${src}.${b.u16(at)}`;
    const to = `${dst}.${b.u16(at + 2)}`;
    const text = `TCP ${from} > ${to} [${flags}] seq ${tcp.seq} ack ${tcp.ack} len ${payload}`;
    return { text, from, to, tcp: b.ok ? tcp : null, payload, headers };
  }
  const udp = proto === 17;
  const headers = at + 8;
  const payload = Math.max(0, end - headers);
  const from = udp ? `${src}.${b.u16(at)}` : src;
  const to = udp ? `${dst}.${b.u16(at + 2)}` : dst;
  return { text: `${name} ${from} > ${to} len ${payload}`, from, to, tcp: null, payload, headers };
}

function fragmentText(head: FrameHead, offset: number, more: boolean): FrameHead {
  const name = head.text.split(' ', 1)[0]!;
  const part = `fragment at ${offset}${more ? '' : ', the last'}`;
  return {
    ...head,
    text: `${name} ${head.from} > ${head.to} ${part}, ${head.payload} bytes`,
    tcp: null,
  };
}

/** @param at where the IP header begins */
function ip4(b: Bytes, at: number, wirelen: number): FrameHead {
  const hlen = Math.max(20, (b.u8(at) & 15) * 4);
  const length = b.u16(at + 2);
  // The length of a TSO packet of more than 64 KB is 0.
  const end = length === 0 ? wirelen : Math.min(wirelen, at + length);
  const field = b.u16(at + 6);
  const offset = (field & 0x1fff) * 8;
  const src = b.ip4(at + 12);
  const dst = b.ip4(at + 16);
  const proto = b.u8(at + 9);
  const body = at + hlen;
  if ((field & 0x3fff) === 0) return transport(b, proto, src, dst, body, end);
  const text = PROTO_NAMES[proto] ?? `protocol ${proto}`;
  const head = {
    text,
    from: src,
    to: dst,
    tcp: null,
    payload: Math.max(0, end - body),
    headers: body,
  };
  return fragmentText(head, offset, (field & 0x2000) !== 0);
}

function ip6(b: Bytes, at: number, wirelen: number): FrameHead {
  const length = b.u16(at + 4);
  const end = length === 0 ? wirelen : Math.min(wirelen, at + 40 + length);
  const src = b.ip6(at + 8);
  const dst = b.ip6(at + 24);
  const proto = b.u8(at + 6);
  const body = at + 40;
  if (proto !== 44) return transport(b, proto, src, dst, body, end);
  const field = b.u16(body + 2);
  const text = PROTO_NAMES[b.u8(body)] ?? `protocol ${b.u8(body)}`;
  const headers = body + 8;
  const head = {
    text,
    from: src,
    to: dst,
    tcp: null,
    payload: Math.max(0, end - headers),
    headers,
  };
  return fragmentText(head, field & 0xfff8, (field & 1) !== 0);
}

function arp(b: Bytes, at: number, wirelen: number): FrameHead {
  const sender = b.ip4(at + 14);
  const target = b.ip4(at + 24);
  const reply = b.u16(at + 6) === 2;
  const text = reply ? `ARP ${sender} is here` : `ARP who has ${target}? tell ${sender}`;
  return { ...other(text, wirelen), from: sender, to: target };
}

/** Reads the headers of a packet of `wirelen` bytes. */
export function frameHead(linktype: number, bytes: Uint8Array, wirelen: number): FrameHead {
  const b = new Bytes(bytes);
  let at = 0;
  let type = 0;
  if (linktype === LINKTYPE_ETHERNET) {
    at = 14;
    type = b.u16(12);
  } else if (linktype === LINKTYPE_LINUX_SLL) {
    at = 16;
    type = b.u16(14);
  } else if (RAW_LINKTYPES.includes(linktype))
    type = b.u8(0) >> 4 === 6 ? ETHERTYPE_IPV6 : ETHERTYPE_IP;
  else return other(`${wirelen} bytes of link type ${linktype}`, wirelen);
  let tag = '';
  for (let tags = 0; type === ETHERTYPE_VLAN && tags < 2; tags++) {
    tag += `vlan ${b.u16(at) & 0xfff} `;
    type = b.u16(at + 2);
    at += 4;
  }
  let head: FrameHead;
  if (type === ETHERTYPE_IP) head = ip4(b, at, wirelen);
  else if (type === ETHERTYPE_IPV6) head = ip6(b, at, wirelen);
  else if (type === ETHERTYPE_ARP) head = arp(b, at, wirelen);
  else
    head = other(
      `${wirelen} bytes of Ethernet type 0x${type.toString(16).padStart(4, '0')}`,
      wirelen,
    );
  return tag === '' ? head : { ...head, text: tag + head.text };
}
