/**
 * Two stacks of one machine on one virtual Ethernet, in virtual time. A pair of interface drivers
 * copies frames; the seeded faults of src/fault act between them. With offloads the wire behaves
 * like a TAP in vnet mode: TSO packets and partial checksums cross it unchanged. Do not corrupt
 * such frames, because no checksum would detect it.
 */

import { expect } from 'chai';
import type { FaultSpec } from '../../src/fault/fault.ts';
import { checkedProgram, faultDraft, faultSpec, parseFault } from '../../src/fault/fault_spec.ts';
import {
  type Direction,
  FaultStage,
  RX,
  type StageTimer,
  TX,
} from '../../src/fault/fault_stage.ts';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { fraction, SeededPrng } from '../../src/host/prng.ts';
import { m_freem, m_getjcl } from '../../src/kern/kern_mbuf.ts';
import { m_copydata } from '../../src/kern/m_copydata.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP,
  CSUM_IP6_TSO,
  CSUM_IP_TSO,
  CSUM_PSEUDO_HDR,
  CSUM_TCP,
  CSUM_TCP_IPV6,
  CSUM_TSO,
  type Mbuf,
  MJUMPAGESIZE,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { type Vnet, vnet_alloc } from '../../src/kern/vnet.ts';
import { captureInit } from '../../src/net/capture.ts';
import { if_alloc } from '../../src/net/if.ts';
import { ether_ifattach, ether_ifdetach, ether_ioctl } from '../../src/net/if_ethersubr.ts';
import {
  IFCAP_NOMAP,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFF_DRV_RUNNING,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  SIOCSIFFLAGS,
} from '../../src/net/if_var.ts';
import { parseInAddr } from '../../src/netinet/in.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { netAttach, netDetach } from '../../src/net/net_attach.ts';
import { inet_domain_attach, inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { inet6_domain_attach, inet6_domain_detach } from '../../src/netinet6/in6_proto.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import type { Task } from '../../src/sys/clock.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import { kva } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { mac } from '../support/frames.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

export const ADDR_A = '192.0.2.1';
export const ADDR_B = '192.0.2.2';
export const ADDR6_A = '2001:db8::1';
export const ADDR6_B = '2001:db8::2';

/** Offloads of both interfaces. */
export type Offload = 'none' | 'csum' | 'tso';

export interface SimOptions {
  readonly seed: number;
  /**
   * Faults of the wire, in the syntax of `tapnic fault add`; they do not apply to ARP. `tx` is from
   * a to b.
   */
  readonly faults?: readonly string[];
  /** One-way delay, ns. */
  readonly delayNs?: number;
  readonly offload?: Offload;
  /** Gives each side an IPv6 address too, and the offloads for IPv6. Default false. */
  readonly six?: boolean;
  /** MTU of each side. */
  readonly mtuA?: number;
  readonly mtuB?: number;
  /** Probability that the wire marks an ECN-capable frame with CE. */
  readonly mark?: number;
}

/**
 * A filter for frames other than ARP. ARP has no checksum, so damage would leave a wrong address in
 * the table.
 */
const NOT_ARP = checkedProgram([
  [0x28, 0, 0, 12],
  [0x15, 0, 1, 0x0806],
  [0x06, 0, 0, 0],
  [0x06, 0, 0, 0xffffffff],
]);

/**
 * Bytes in front of each frame on the wire, like a virtio-net header: whether the checksum is
 * partial, and the number of segments of a TSO packet.
 */
const HDR = 2;

/** One end of the wire: an interface and its driver. */
export class SimPort implements IfDriver {
  readonly vnet: Vnet;
  readonly ifp: Ifnet;
  readonly net: SimNet;
  /** The direction of its frames in the fault stage. */
  readonly dir: Direction;
  frames = 0;
  /** Frames that may still be sent before the wire is cut; for tests of timeouts. */
  framesLeft = Infinity;
  /** Called with every frame sent, before impairment. */
  onFrame: ((bytes: Uint8Array) => void) | null = null;

  constructor(net: SimNet, dir: Direction, addr: string, lladdr: string, o: SimOptions) {
    this.net = net;
    this.dir = dir;
    this.vnet = vnet_alloc(new SeededPrng(o.seed * 2 + 1 + dir));
    expect(netAttach(this.vnet)).to.equal(0);
    expect(inet_domain_attach(this.vnet)).to.equal(0);
    expect(inet6_domain_attach(this.vnet)).to.equal(0);
    this.ifp = if_alloc(this.vnet, 'tn0');
    this.ifp.if_driver = this;
    const tso = o.offload === 'tso';
    if (tso || o.offload === 'csum') {
      this.ifp.if_capabilities = IFCAP_TXCSUM | IFCAP_NOMAP | (tso ? IFCAP_TSO4 : 0);
      this.ifp.if_capenable = this.ifp.if_capabilities;
      this.ifp.if_hwassist = CSUM_IP | CSUM_TCP | (tso ? CSUM_IP_TSO : 0);
    }
    const six = o.six ?? false;
    if (six && this.ifp.if_capabilities !== 0) {
      this.ifp.if_capabilities |= IFCAP_TXCSUM_IPV6 | (tso ? IFCAP_TSO6 : 0);
      this.ifp.if_capenable = this.ifp.if_capabilities;
      this.ifp.if_hwassist |= CSUM_TCP_IPV6 | (tso ? CSUM_IP6_TSO : 0);
    }
    ether_ifattach(this.ifp, Uint8Array.from(mac(lladdr)));
    this.ifp.if_mtu = (dir === TX ? o.mtuA : o.mtuB) ?? this.ifp.if_mtu;
    expect(in_aifaddr(this.ifp, parseInAddr(addr)!, 24)).to.equal(0);
    if (six) this.#addSix();
  }

  /** Adds the IPv6 address; without DAD, so that it is ready at once. */
  #addSix(): void {
    V_ip6(this.vnet).params.dad_count = 0;
    const addr = this.dir === TX ? ADDR6_A : ADDR6_B;
    expect(in6_aifaddr(this.ifp, parseIn6(addr)!, 64)).to.equal(0);
  }

  if_init(ifp: Ifnet): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  }
  if_qflush(): void {}
  if_txflush(): void {}
  if_ioctl(ifp: Ifnet, command: IfIoctl, data: number): Errno {
    if (command !== SIOCSIFFLAGS) return ether_ioctl(ifp, command, data);
    this.if_init(ifp);
    return 0;
  }

  if_transmit(_ifp: Ifnet, m: Mbuf): Errno {
    const ph = m.m_pkthdr;
    const frame = new Uint8Array(HDR + ph.len);
    const bytes = frame.subarray(HDR);
    // Copy through a scratch page, because m_copydata copies to mapped memory.
    for (let off = 0; off < ph.len; off += 4096) {
      const n = Math.min(4096, ph.len - off);
      m_copydata(m, off, n, kva(this.net.scratch));
      bytes.set(mem.subarray(this.net.scratch, this.net.scratch + n), off);
    }
    if ((ph.csum_flags & (CSUM_TCP | CSUM_TCP_IPV6)) !== 0) frame[0] = 1;
    frame[1] = (ph.csum_flags & CSUM_TSO) !== 0 ? Math.ceil(ph.len / ph.tso_segsz) : 1;
    if ((ph.csum_flags & CSUM_IP) !== 0) fillIpSum(bytes);
    m_freem(m);
    this.frames++;
    this.onFrame?.(bytes);
    const arp = bytes[12] === 8 && bytes[13] === 6;
    if (this.framesLeft > 0 || arp) this.net.stage.send(this.dir, frame);
    this.framesLeft--;
    return 0;
  }

  /** Passes an arrived frame to the stack. */
  deliver(frame: Uint8Array): void {
    const m = frameMbuf(frame.subarray(HDR));
    if (m === null) return;
    m.m_pkthdr.lro_nsegs = frame[1]!;
    if (frame[0] === 1) {
      m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
      m.m_pkthdr.csum_data = 0xffff;
    }
    inPass(this.ifp.if_input!, this.ifp, m);
  }
}

function fillIpSum(bytes: Uint8Array): void {
  if (bytes[12] !== 8 || bytes[13] !== 0) return;
  let sum = 0;
  bytes[24] = bytes[25] = 0;
  for (let i = 14; i < 34; i += 2) sum += bytes[i]! * 256 + bytes[i + 1]!;
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[24] = (~sum >>> 8) & 0xff;
  bytes[25] = ~sum & 0xff;
}

/** Sets CE (RFC 3168) in an ECN-capable packet. */
function markCe(bytes: Uint8Array): void {
  if (bytes[12] === 0x86 && bytes[13] === 0xdd) {
    // The lower half of the traffic class; no checksum contains it.
    if (((bytes[15]! >>> 4) & 3) % 3 !== 0) bytes[15]! |= 0x30;
    return;
  }
  if (bytes[12] !== 8 || bytes[13] !== 0 || (bytes[15]! & 3) % 3 === 0) return;
  // Update the header checksum as in RFC 1624, so that a corrupted header stays invalid.
  const old = bytes[15]!;
  bytes[15] = old | 3;
  let sum = (~(bytes[24]! * 256 + bytes[25]!) & 0xffff) + (~old & 0xffff) + bytes[15];
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  bytes[24] = (~sum >>> 8) & 0xff;
  bytes[25] = ~sum & 0xff;
}

/** A received frame in page clusters, like posted receive buffers; null without memory. */
function frameMbuf(bytes: Uint8Array): Mbuf | null {
  let top: Mbuf | null = null;
  let tail: Mbuf | null = null;
  for (let off = 0; off < bytes.length;) {
    const small = bytes.length - off <= 2046;
    const size = small ? 2048 : MJUMPAGESIZE;
    const m = m_getjcl(M_NOWAIT, MT_DATA, top === null ? M_PKTHDR : 0, size);
    if (m === null) {
      m_freem(top);
      return null;
    }
    if (top === null) m.m_data += 2;
    const n = Math.min(bytes.length - off, size - (top === null ? 2 : 0));
    mem.set(bytes.subarray(off, off + n), m.m_data);
    m.m_len = n;
    off += n;
    if (tail === null) top = m;
    else tail.m_next = m;
    tail = m;
  }
  top!.m_pkthdr.len = bytes.length;
  return top;
}

/** Parses faults from their texts; each gets its own seed. */
export function simFaults(texts: readonly string[], prng: SeededPrng): FaultSpec[] {
  return texts.map((text) => {
    const { kind, values } = parseFault(text);
    return { ...faultDraft(kind, values, prng.next32()), match: NOT_ARP };
  });
}

/** The two stacks and the wire. Boots the machine; `close` checks for leaks. */
export class SimNet {
  readonly clock: ManualClock;
  /** Whether both sides have an IPv6 address. */
  readonly six: boolean;
  readonly stage: FaultStage;
  readonly a: SimPort;
  readonly b: SimPort;
  /** A page for copying, at the top of the arena's device memory. */
  readonly scratch: number;
  readonly #seeds: SeededPrng;

  constructor(o: SimOptions) {
    const clock = bootMachine();
    this.clock = clock;
    this.six = o.six ?? false;
    captureInit(clock);
    this.scratch = mem.length - 4096;
    this.stage = new FaultStage(new StageAlarm(clock), (seed) => new SeededPrng(seed), HDR);
    const marks = new SeededPrng(o.seed + 0x1_0000_0000);
    this.stage.deliver = (dir, frame) => {
      const port = dir === TX ? this.b : this.a;
      if (o.mark !== undefined && fraction(marks) < o.mark) markCe(frame.subarray(HDR));
      port.deliver(frame);
    };
    const texts = [...(o.faults ?? []), `delay,delay=${(o.delayNs ?? 100_000) / 1e6}`];
    this.#seeds = new SeededPrng(o.seed);
    for (const spec of simFaults(texts, this.#seeds)) this.stage.add(spec);
    // ARP frames are delayed too, so that no reply arrives within the call that sends the request.
    this.stage.add(faultSpec(faultDraft('delay', { delay: 0.001 }, 0), null));
    this.a = new SimPort(this, TX, ADDR_A, '02:00:00:00:00:01', o);
    this.b = new SimPort(this, RX, ADDR_B, '02:00:00:00:00:02', o);
  }

  /** Adds a fault; returns its id. */
  fault(text: string): number {
    return this.stage.add(simFaults([text], this.#seeds)[0]!).id;
  }

  /** Ends both stacks and verifies that nothing was leaked. */
  close(): void {
    for (const port of [this.a, this.b]) {
      tcp_shutdownVnet(port.vnet, 'rst');
      tcp_shutdownVnet(port.vnet, 'discard');
    }
    // Discard frames in flight.
    this.stage.stop();
    for (const port of [this.a, this.b]) {
      ether_ifdetach(port.ifp);
      netDetach(port.vnet);
      inet6_domain_detach(port.vnet);
      inet_domain_detach(port.vnet);
    }
    expectMachineClean();
  }
}

/**
 * The stage's single timer on the clock. The clock cannot cancel an event, so a replaced one does
 * nothing.
 */
class StageAlarm implements StageTimer {
  readonly #clock: ManualClock;
  #event: Task | null = null;
  #atNs = Infinity;

  constructor(clock: ManualClock) {
    this.#clock = clock;
  }

  nowNs(): number {
    return this.#clock.nowNs();
  }

  schedule(deadlineNs: number, event: Task): void {
    this.#event = event;
    this.#atNs = deadlineNs;
    this.#clock.schedule(deadlineNs, this);
  }

  stop(): void {
    this.#event = null;
    this.#atNs = Infinity;
  }

  run(): void {
    if (this.#event === null || this.#clock.nowNs() < this.#atNs) return;
    const event = this.#event;
    this.stop();
    event.run();
  }
}
