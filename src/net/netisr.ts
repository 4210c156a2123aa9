/**
 * netisr, after sys/net/netisr.c: dispatches packets from an interface to a protocol. Packets that
 * a NIC received are dispatched directly. Packets that the stack sent to itself (loopback) are
 * queued and processed at the end of the pass, so that input cannot recurse. One pass processes a
 * limited number of them. Left out: worker threads, policies, statistics per protocol.
 */

import { CAPTURE_IN, CAPTURE_IP } from '../sys/capture.ts';
import { countDrop } from './capture_drop.ts';
import type { Task } from '../sys/clock.ts';
import { ENOBUFS, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { passDefer, passNumber } from '../sys/pass.ts';
import { R_NETISR_FULL } from '../sys/reason.ts';
import { m_freem, m_freemp } from '../kern/kern_mbuf.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import type { Mbuf } from '../kern/mbuf.ts';
import { AF_UNSPEC } from '../kern/protosw.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';

export const NETISR_IP = 1;
export const NETISR_ARP = 4;
export const NETISR_IPV6 = 6;
const NETISR_MAXPROT = 16;

/** net.isr.defaultqlimit: maximum number of queued packets per protocol. */
const NETISR_DEFAULTQLIMIT = 256;

/**
 * Queued packets that one pass processes before the others wait. Two ends on lo0 can answer each other
 * without end until a retransmission timer expires, for example when both have sent a FIN behind lost
 * data. No timer runs during a pass. FreeBSD's netisr is a thread, beside which timers run.
 */
const PASS_PACKETS = 512;
/** How long the others wait: one tick of FreeBSD's default kern.hz. */
const WAIT_NS = 1e6;

/** Input of a protocol. Takes `m`, which starts at the protocol's header; m_pkthdr.rcvif is set. */
type NetisrHandler = (m: Mbuf, vnet: Vnet) => void;

/** Maps an Ethernet type and an address family (for loopback) to a protocol. */
interface LinkKey {
  readonly family: number;
  readonly ethertype: number;
  readonly proto: number;
}

class NetisrVnet implements Task {
  readonly links: LinkKey[] = [];
  readonly handlers: (NetisrHandler | null)[] = Array.from({ length: NETISR_MAXPROT }, () => null);
  readonly heads: (Mbuf | null)[] = Array.from({ length: NETISR_MAXPROT }, () => null);
  readonly tails: (Mbuf | null)[] = Array.from({ length: NETISR_MAXPROT }, () => null);
  readonly lens = new Uint32Array(NETISR_MAXPROT);
  readonly drops = new Float64Array(NETISR_MAXPROT);
  readonly vnet: Vnet;
  pending = false;
  /** Packets processed in the pass with the number `pass`. */
  done = 0;
  pass = 0;
  readonly rest: Callout = new Callout(this);

  constructor(vnet: Vnet) {
    this.vnet = vnet;
  }

  /**
   * Processes the packets queued so far. Packets that these cause wait for the next round, or for the
   * next tick if the pass has processed enough.
   */
  run(): void {
    if (this.pass !== passNumber()) {
      this.pass = passNumber();
      this.done = 0;
    }
    if (this.done >= PASS_PACKETS) {
      callout_reset(this.rest, WAIT_NS);
      return;
    }
    this.pending = false;
    for (let proto = 0; proto < NETISR_MAXPROT; proto++) {
      let m: Mbuf | null = this.heads[proto] ?? null;
      if (m === null) continue;
      this.heads[proto] = null;
      this.tails[proto] = null;
      this.done += this.lens[proto]!;
      this.lens[proto] = 0;
      while (m !== null) {
        const next: Mbuf | null = m.m_nextpkt;
        m.m_nextpkt = null;
        netisr_dispatch(this.vnet, proto, m);
        m = next;
      }
    }
  }
}

const V_netisr = VNET_DEFINE((vnet) => new NetisrVnet(vnet));

/** Registers the protocol's input routine. @see netisr(9) */
export function netisr_register(vnet: Vnet, proto: number, handler: NetisrHandler): void {
  const v = V_netisr(vnet);
  KASSERT(v.handlers[proto] === null, 'netisr_register: taken');
  v.handlers[proto] = handler;
}

/**
 * Directs packets of `ethertype` (Ethernet) and of `family` (loopback) to the protocol `proto`. A
 * domain calls it when it attaches. `family` AF_UNSPEC: only by Ethernet type.
 */
export function netisrLink(vnet: Vnet, proto: number, ethertype: number, family: number): void {
  V_netisr(vnet).links.push({ family, ethertype, proto });
}

/** Adds net.isr.*. Called once per Vnet. */
export function netisrSysctls(vnet: Vnet): void {
  vnet.sysctl.int(
    'net.isr.defaultqlimit',
    'Default netisr per-protocol queue limit',
    () => NETISR_DEFAULTQLIMIT,
    null,
  );
}

/** The protocol of an Ethernet type; 0: none. */
export function netisrOfEthertype(vnet: Vnet, ethertype: number): number {
  const { links } = V_netisr(vnet);
  for (let i = 0; i < links.length; i++)
    if (links[i]!.ethertype === ethertype) return links[i]!.proto;
  return 0;
}

/** The protocol of an address family; 0: none. */
export function netisrOfFamily(vnet: Vnet, family: number): number {
  const { links } = V_netisr(vnet);
  if (family === AF_UNSPEC) return 0;
  for (let i = 0; i < links.length; i++) if (links[i]!.family === family) return links[i]!.proto;
  return 0;
}

/** Passes a packet to its protocol immediately. Takes `m`. @see netisr(9) */
export function netisr_dispatch(vnet: Vnet, proto: number, m: Mbuf): void {
  const handler = V_netisr(vnet).handlers[proto]!;
  if (handler === null) m_freem(m);
  else handler(m, vnet);
}

/**
 * Queues a packet for its protocol, to be processed at the end of the pass or a tick later. Takes `m`. ENOBUFS: the
 * queue is full; the drop is counted.
 * @see netisr(9)
 */
export function netisr_queue(vnet: Vnet, proto: number, m: Mbuf): Errno {
  const v = V_netisr(vnet);
  if (v.lens[proto]! >= NETISR_DEFAULTQLIMIT) {
    v.drops[proto]!++;
    countDrop(m, R_NETISR_FULL, CAPTURE_IP, CAPTURE_IN);
    m_freem(m);
    return ENOBUFS;
  }
  m.m_nextpkt = null;
  const tail = v.tails[proto]!;
  if (tail === null) v.heads[proto] = m;
  else tail.m_nextpkt = m;
  v.tails[proto] = m;
  v.lens[proto]!++;
  if (!v.pending) {
    v.pending = true;
    passDefer(v);
  }
  return 0;
}

/** Frees all queued packets, when a stack is removed. */
export function netisrDrain(vnet: Vnet): void {
  const v = V_netisr(vnet);
  if (callout_stop(v.rest)) v.pending = false;
  for (let proto = 0; proto < NETISR_MAXPROT; proto++) {
    const m = v.heads[proto] ?? null;
    v.heads[proto] = null;
    v.tails[proto] = null;
    v.lens[proto] = 0;
    m_freemp(m);
  }
}
