/**
 * Which worker a received frame belongs to, when several stacks share one address (`serve
 * --workers`). Each stack has one queue of a TAP, and Linux chooses the queue; a frame that belongs to
 * another stack is handed over below the NIC (native-bindings/src/exchange.cpp). This file is the
 * reference of native-bindings/src/flow_owner.cpp, and the stack uses it for packets that it has
 * reassembled. FreeBSD's counterpart is RSS (sys/netinet/in_rss.c).
 *
 * A connection to the served port belongs to the worker that a hash of its addresses and ports
 * selects, and so do the ICMP errors that quote it. ARP, neighbour and router discovery, and
 * fragments of TCP belong to all workers. Everything else belongs to worker 0.
 */

import { AF_INET } from '../kern/protosw.ts';
import type { AddressShare, FlowKey } from '../kern/vnet.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IP, ETHERTYPE_IPV6, ETHERTYPE_VLAN } from './ethernet.ts';

export const EVERY_WORKER = -1;

/** Bytes of a frame that decide. */
const FLOW_BYTES = 256;
const IPPROTO_ICMP = 1;
const IPPROTO_TCP = 6;
const IPPROTO_ICMPV6 = 58;
/** IPv6 extension headers that are skipped. */
const HEADERS_MAX = 8;

/** The workers, the TCP port whose connections are distributed, and the hash's start value. */
export interface FlowRule {
  readonly workers: number;
  readonly port: number;
  readonly seed: number;
}

const rotl = (v: number, n: number): number => (v << n) | (v >>> (32 - n));

/** One step of MurmurHash3 (x86, 32 bits). */
function mix(h: number, word: number): number {
  const k = Math.imul(rotl(Math.imul(word, 0xcc9e2d51), 15), 0x1b873593);
  return (Math.imul(rotl(h ^ k, 13), 5) + 0xe6546b64) | 0;
}

/** Ends the hash `h` with the ports and selects a worker. */
function select(rule: FlowRule, h0: number, remotePort: number): number {
  let h = mix(h0, (remotePort << 16) | rule.port);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  h ^= h >>> 16;
  return Math.floor(((h >>> 0) * rule.workers) / 2 ** 32);
}

class Classifier {
  readonly #rule: FlowRule;
  readonly #p: DataView;
  readonly #len: number;

  constructor(rule: FlowRule, p: DataView) {
    this.#rule = rule;
    this.#p = p;
    this.#len = Math.min(p.byteLength, FLOW_BYTES);
  }

  frame(): number {
    if (this.#len < 18) return 0;
    const tagged = this.#p.getUint16(12) === ETHERTYPE_VLAN;
    const l3 = tagged ? 18 : 14;
    switch (this.#p.getUint16(tagged ? 16 : 12)) {
      case ETHERTYPE_ARP:
        return EVERY_WORKER;
      case ETHERTYPE_IP:
        return this.#ip4(l3, false);
      case ETHERTYPE_IPV6:
        return this.#ip6(l3, false);
      default:
        return 0;
    }
  }

  #words(h0: number, at: number, words: number): number {
    let h = h0;
    for (let i = 0; i < words; i++) h = mix(h, this.#p.getInt32(at + 4 * i));
    return h;
  }

  /** `quoted`: the packet is one that we sent, in an ICMP error. */
  #tcp(src: number, words: number, l4: number, quoted: boolean): number {
    if (l4 + 4 > this.#len) return 0;
    const dst = src + 4 * words;
    const sport = this.#p.getUint16(l4);
    const dport = this.#p.getUint16(l4 + 2);
    if ((quoted ? sport : dport) !== this.#rule.port) return 0;
    const remote = this.#words(this.#rule.seed, quoted ? dst : src, words);
    return select(
      this.#rule,
      this.#words(remote, quoted ? src : dst, words),
      quoted ? dport : sport,
    );
  }

  #ip4(ip: number, quoted: boolean): number {
    const p = this.#p;
    if (ip + 20 > this.#len) return 0;
    const hlen = (p.getUint8(ip) & 15) * 4;
    if (hlen < 20) return 0;
    const l4 = ip + hlen;
    const frag = p.getUint16(ip + 6);
    const proto = p.getUint8(ip + 9);
    if (quoted && (frag & 0x1fff) !== 0) return 0;
    if (!quoted && (frag & 0x3fff) !== 0) return proto === IPPROTO_TCP ? EVERY_WORKER : 0;
    if (proto === IPPROTO_TCP) return this.#tcp(ip + 12, 1, l4, quoted);
    if (quoted || proto !== IPPROTO_ICMP || l4 + 8 > this.#len) return 0;
    return [3, 4, 5, 11, 12].includes(p.getUint8(l4)) ? this.#ip4(l4 + 8, true) : 0;
  }

  #ip6(ip: number, quoted: boolean): number {
    const p = this.#p;
    if (ip + 40 > this.#len) return 0;
    let nxt = p.getUint8(ip + 6);
    let at = ip + 40;
    for (let i = 0; i < HEADERS_MAX && at + 8 <= this.#len; i++) {
      if (nxt === 44) {
        const frag = p.getUint16(at + 2);
        nxt = p.getUint8(at);
        if (quoted && (frag & 0xfff8) !== 0) return 0;
        if (!quoted && (frag & 0xfff9) !== 0) return nxt === IPPROTO_TCP ? EVERY_WORKER : 0;
        at += 8;
      } else if (nxt === 0 || nxt === 43 || nxt === 60) {
        nxt = p.getUint8(at);
        at += (p.getUint8(at + 1) + 1) * 8;
      } else break;
    }
    if (nxt === IPPROTO_TCP) return this.#tcp(ip + 8, 4, at, quoted);
    if (quoted || nxt !== IPPROTO_ICMPV6 || at + 8 > this.#len) return 0;
    const type = p.getUint8(at);
    if (type >= 133 && type <= 137) return EVERY_WORKER;
    return type < 128 ? this.#ip6(at + 8, true) : 0;
  }
}

/** The worker of a frame without virtio-net header, or EVERY_WORKER. Allocates: not for packets. */
export function flowOwner(rule: FlowRule, frame: Uint8Array): number {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  return new Classifier(rule, view).frame();
}

/** fe80::/10 as the first word; the second half of that word is the zone inside the stack. */
const unscoped = (w0: number): number =>
  (w0 & 0xffc00000) === (0xfe800000 | 0) ? w0 & 0xffff0000 : w0;

/** The place of a stack among those that share its addresses. */
export class SharedAddress implements AddressShare {
  readonly answers: boolean;
  readonly #rule: FlowRule;
  readonly #self: number;

  constructor(rule: FlowRule, self: number) {
    this.#rule = rule;
    this.#self = self;
    this.answers = self === 0;
  }

  ownsTcp(inc: FlowKey): boolean {
    const rule = this.#rule;
    if (inc.inc_lport !== rule.port) return this.#self === 0;
    const four = inc.inc_family === AF_INET;
    let h = mix(rule.seed, four ? inc.inc_f0 : unscoped(inc.inc_f0));
    if (!four) h = mix(mix(mix(h, inc.inc_f1), inc.inc_f2), inc.inc_f3);
    h = mix(h, four ? inc.inc_l0 : unscoped(inc.inc_l0));
    if (!four) h = mix(mix(mix(h, inc.inc_l1), inc.inc_l2), inc.inc_l3);
    return select(rule, h, inc.inc_fport) === this.#self;
  }
}
