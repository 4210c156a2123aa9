/**
 * Two stacks of one machine on one virtual Ethernet, in virtual time: a pair of interface drivers
 * that copy frames, with seeded loss, duplication, reordering and delay in between. With offloads
 * the wire is like a TAP in vnet mode: super-frames and partial checksums cross as such.
 */

import { expect } from 'chai';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { below, fraction, SeededPrng } from '../../src/host/prng.ts';
import { m_freem, m_getjcl } from '../../src/kern/kern_mbuf.ts';
import { m_copydata } from '../../src/kern/m_copydata.ts';
import {
  CSUM_DATA_VALID,
  CSUM_IP,
  CSUM_IP_TSO,
  CSUM_PSEUDO_HDR,
  CSUM_TCP,
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
  IFCAP_TXCSUM,
  IFF_DRV_RUNNING,
  type IfDriver,
  type IfIoctl,
  type Ifnet,
  SIOCSIFFLAGS,
} from '../../src/net/if_var.ts';
import { parseInAddr } from '../../src/netinet/in.ts';
import { in_aifaddr } from '../../src/netinet/in_ifaddr.ts';
import { inet_domain_attach, inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import type { Task } from '../../src/sys/clock.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { passEnter, passLeave } from '../../src/sys/pass.ts';
import { kva } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { mac } from '../support/frames.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

export const ADDR_A = '192.0.2.1';
export const ADDR_B = '192.0.2.2';

export interface Impairment {
  /** Probabilities per frame. */
  loss: number;
  duplicate: number;
  reorder: number;
  /** One-way delay and, for a reordered frame, how much more at most, ns. */
  delayNs: number;
  reorderNs: number;
}

export const CLEAN: Impairment = {
  loss: 0,
  duplicate: 0,
  reorder: 0,
  delayNs: 100_000,
  reorderNs: 0,
};

/** A frame on its way. */
class InFlight implements Task {
  /** The sender. */
  readonly port: SimPort;
  readonly bytes: Uint8Array;
  readonly valid: boolean;

  constructor(port: SimPort, bytes: Uint8Array, valid: boolean) {
    this.port = port;
    this.bytes = bytes;
    this.valid = valid;
  }

  run(): void {
    this.port.peer?.deliver(this.bytes, this.valid);
  }
}

/** One end of the wire: an interface and its driver. */
export class SimPort implements IfDriver {
  readonly vnet: Vnet;
  readonly ifp: Ifnet;
  readonly net: SimNet;
  peer: SimPort | null = null;
  frames = 0;
  lost = 0;
  /** Frames that may still be sent before the wire is cut; for tests of time-outs. */
  framesLeft = Infinity;
  /** Called with every frame sent, before impairment. */
  onFrame: ((bytes: Uint8Array) => void) | null = null;

  constructor(net: SimNet, addr: string, lladdr: string, offload: boolean, seed: number) {
    this.net = net;
    this.vnet = vnet_alloc(new SeededPrng(seed));
    expect(inet_domain_attach(this.vnet)).to.equal(0);
    this.ifp = if_alloc(this.vnet, 'tn0');
    this.ifp.if_driver = this;
    if (offload) {
      this.ifp.if_capabilities = IFCAP_TXCSUM | IFCAP_TSO4 | IFCAP_NOMAP;
      this.ifp.if_capenable = this.ifp.if_capabilities;
      this.ifp.if_hwassist = CSUM_IP | CSUM_TCP | CSUM_IP_TSO;
    }
    ether_ifattach(this.ifp, Uint8Array.from(mac(lladdr)));
    expect(in_aifaddr(this.ifp, parseInAddr(addr)!, 24)).to.equal(0);
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
    const bytes = new Uint8Array(ph.len);
    // By way of a scratch page: m_copydata copies to mapped memory.
    for (let off = 0; off < ph.len; off += 4096) {
      const n = Math.min(4096, ph.len - off);
      m_copydata(m, off, n, kva(this.net.scratch));
      bytes.set(mem.subarray(this.net.scratch, this.net.scratch + n), off);
    }
    const partial = (ph.csum_flags & CSUM_TCP) !== 0;
    if ((ph.csum_flags & CSUM_IP) !== 0) fillIpSum(bytes);
    m_freem(m);
    this.frames++;
    this.onFrame?.(bytes);
    this.net.send(this, bytes, partial);
    return 0;
  }

  /** The frame has arrived: up it goes. */
  deliver(bytes: Uint8Array, valid: boolean): void {
    const m = frameMbuf(bytes);
    if (m === null) return;
    // What is longer than a frame was put together by the wire, as GRO does.
    m.m_pkthdr.lro_nsegs = Math.ceil(bytes.length / 1460);
    if (valid) {
      m.m_pkthdr.csum_flags = CSUM_DATA_VALID | CSUM_PSEUDO_HDR;
      m.m_pkthdr.csum_data = 0xffff;
    }
    passEnter();
    this.ifp.if_input!(this.ifp, m);
    passLeave();
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

/** A received frame in page clusters, as posted receive buffers hold it; null without memory. */
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

/** The two stacks and the wire. Boots the machine; `close` checks that nothing is left. */
export class SimNet {
  readonly clock: ManualClock;
  readonly prng: SeededPrng;
  readonly impair: Impairment;
  readonly a: SimPort;
  readonly b: SimPort;
  /** A page for copying, taken from the top of the arena's device memory. */
  readonly scratch: number;

  constructor(seed: number, impair: Impairment, offload: boolean) {
    this.clock = bootMachine();
    captureInit(this.clock);
    this.scratch = mem.length - 4096;
    this.prng = new SeededPrng(seed);
    this.impair = impair;
    this.a = new SimPort(this, ADDR_A, '02:00:00:00:00:01', offload, seed * 2 + 1);
    this.b = new SimPort(this, ADDR_B, '02:00:00:00:00:02', offload, seed * 2 + 2);
    this.a.peer = this.b;
    this.b.peer = this.a;
  }

  /** Carries a frame, or not. */
  send(port: SimPort, bytes: Uint8Array, partial: boolean): void {
    const { impair: i, prng } = this;
    const arp = bytes[12] === 8 && bytes[13] === 6;
    if (port.framesLeft <= 0 && !arp) return;
    port.framesLeft--;
    const copies = !arp && fraction(prng) < i.duplicate ? 2 : 1;
    for (let n = 0; n < copies; n++) {
      if (!arp && fraction(prng) < i.loss) {
        port.lost++;
        continue;
      }
      const late = !arp && fraction(prng) < i.reorder ? below(prng, i.reorderNs + 1) : 0;
      const at = this.clock.nowNs() + i.delayNs + late;
      this.clock.schedule(at, new InFlight(port, bytes, partial));
    }
  }

  /** Ends both stacks; every pool must be as it was. */
  close(): void {
    for (const port of [this.a, this.b]) {
      tcp_shutdownVnet(port.vnet, 'rst');
      tcp_shutdownVnet(port.vnet, 'discard');
    }
    // What is still in flight arrives nowhere.
    for (const port of [this.a, this.b]) {
      ether_ifdetach(port.ifp);
      inet_domain_detach(port.vnet);
    }
    expectMachineClean();
  }
}
