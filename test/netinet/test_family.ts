/**
 * A family of 128-bit addresses that exists for tests only. Its packets have a header of 40 bytes:
 *
 *     0  0x70   1  tos   2  length of the packet   4  protocol   5  ttl   6  1 for DF   7  0
 *     8  source, 16 bytes         24  destination, 16 bytes
 *
 * It plays the part of a domain: its own InpAf, route table, neighbour resolver and input. Addresses
 * that start with 0xff are groups. Nothing in src mentions it.
 */

import { m_freem, m_get } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_DELAY_DATA_IPV6,
  CSUM_TCP_IPV6,
  CSUM_UDP_IPV6,
  type Mbuf,
  M_MCAST,
  M_NOWAIT,
  MT_CONTROL,
  mtod,
} from '../../src/kern/mbuf.ts';
import { IPPROTO_TCP, IPPROTO_UDP } from '../../src/kern/protosw.ts';
import { Sockaddr, SOCKADDR_IN6_SIZE } from '../../src/kern/sockaddr.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { Llentry, Lltable, LLE_VALID } from '../../src/net/if_llatbl.ts';
import { V_loif } from '../../src/net/if_loop.ts';
import { Ifaddr, type Ifnet, type LinkAddr, OutputDst } from '../../src/net/if_var.ts';
import { netisrLink, netisr_register } from '../../src/net/netisr.ts';
import {
  Nhop,
  rib_add_route,
  routeLookup,
  Route,
  RTF_HOST,
  RTF_UP,
  rt_tables_get_rnh,
  rtFlush,
} from '../../src/net/route.ts';
import { in_cksum_skip } from '../../src/netinet/in_cksum.ts';
import { InConninfo, type InpAf, inpafRegister } from '../../src/netinet/in_pcb.ts';
import { rip_input, ripProtosw } from '../../src/netinet/raw_ip.ts';
import { tcp_ctlinput, tcp_input } from '../../src/netinet/tcp_input.ts';
import { tcpAttach } from '../../src/netinet/tcp_init.ts';
import { udpAttach, udp_ctlinput, udp_input } from '../../src/netinet/udp_usrreq.ts';
import { type AddrWords, NetAddr } from '../../src/sys/addr.ts';
import { EADDRNOTAVAIL, EHOSTUNREACH, EINVAL, type Errno } from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { mem, memView } from '../../src/vm/arena.ts';

export const AF_TEST = 40;
export const ETHERTYPE_TEST = 0x88b5; // IEEE 802: for local experiments
export const IPPROTO_TESTICMP = 58;
export const HDRLEN = 40;
const NETISR_TEST = 9;
const SRC = 8;
const DST = 24;

/** The four words of eight groups of hexadecimal digits. */
export function words(text: string): NetAddr {
  const g = text.split(':').map((group) => parseInt(group, 16));
  const a = new NetAddr();
  a.set((g[0]! << 16) | g[1]!, (g[2]! << 16) | g[3]!, (g[4]! << 16) | g[5]!, (g[6]! << 16) | g[7]!);
  return a;
}

export function testSockaddr(a: AddrWords, n: number): Sockaddr {
  const sa = new Sockaddr();
  sa.len = SOCKADDR_IN6_SIZE;
  sa.family = AF_TEST;
  sa.port = port(n);
  sa.setFrom(a);
  return sa;
}

function read(p: number, a: NetAddr): void {
  a.set(
    memView.getInt32(p),
    memView.getInt32(p + 4),
    memView.getInt32(p + 8),
    memView.getInt32(p + 12),
  );
}

function write(p: number, a: AddrWords): void {
  memView.setInt32(p, a.w0);
  memView.setInt32(p + 4, a.w1);
  memView.setInt32(p + 8, a.w2);
  memView.setInt32(p + 12, a.w3);
}

const two = (w: number): number => (w >>> 16) + (w & 0xffff);
const halves = (a: AddrWords): number => two(a.w0) + two(a.w1) + two(a.w2) + two(a.w3);

const $l = new NetAddr();
const $f = new NetAddr();

const isGroup = (a: AddrWords): boolean => a.w0 >>> 24 === 0xff;

/** The members of the family's table that need no address. */
const SIMPLE = {
  suffix: 't',
  vflag: 8,
  optlenOf: () => 0,
  inherit(): void {},
  rawAccepts: () => true,
  rawControl: () => 0,
  addrWords: 4,
  udpSumRequired: true,
  pmtudBlackholeOff: -1,
  rawHeader: true,
  embedScope: () => 0,
  csumTso: 0,
  ifcapTso: 0,
  isGroup,
  notGroupMember(): void {},
};

/** The family has no socket options and no control messages to send. */
/** The control data of a packet: its TTL. */
function savecontrol(_inp: unknown, m: Mbuf): Mbuf {
  const control = m_get(M_NOWAIT, MT_CONTROL)!;
  mem[mtod(control)] = mem[mtod(m) + 5]!;
  control.m_len = 1;
  return control;
}

const noOptions = {
  savecontrol,
  sendcontrol: (_inp: unknown, control: unknown) => (control === null ? 0 : -EINVAL),
  ctloutput: () => EINVAL,
};

/** The family on one interface of one stack. */
export class TestFamily {
  readonly vnet: Vnet;
  readonly ifp: Ifnet;
  readonly us: NetAddr;
  readonly neighbours: Lltable;
  /** Packets about which port unreachable was sent, and sends through `inp`'s route. */
  unreachable = 0;
  cachedRoutes = 0;
  readonly af: InpAf;
  readonly #ifa: Ifaddr;
  readonly #dst = new OutputDst(AF_TEST);
  readonly #route = new Route();

  constructor(ifp: Ifnet, us: AddrWords, prefixlen: number) {
    this.vnet = ifp.if_vnet;
    this.ifp = ifp;
    this.us = new NetAddr();
    this.us.setFrom(us);
    this.af = this.#table();
    this.neighbours = new Lltable(ifp);
    this.#ifa = new Ifaddr(ifp, AF_TEST, us);
    this.#attach();
    ifp.if_addrhead.push(this.#ifa);
    const rh = rt_tables_get_rnh(this.vnet, AF_TEST);
    rib_add_route(rh, us, prefixlen, new Nhop(ifp, this.#ifa, null, RTF_UP, 0));
    const lo = V_loif(this.vnet).ifp!;
    rib_add_route(rh, us, 128, new Nhop(lo, this.#ifa, null, RTF_UP | RTF_HOST, 0));
  }

  /** A neighbour with its link-level address. */
  neighbour(a: AddrWords, lladdr: Uint8Array): void {
    const lle = new Llentry(this.ifp, a, { lleTimeout(): void {} });
    lle.setAddr(lladdr);
    lle.la_flags |= LLE_VALID;
    this.neighbours.insert(lle);
  }

  detach(): void {
    for (const lle of this.neighbours.list()) this.neighbours.remove(lle);
    rtFlush(this.vnet, this.ifp, this.#ifa);
    this.ifp.if_addrhead.splice(this.ifp.if_addrhead.indexOf(this.#ifa), 1);
    this.ifp.if_afdata[AF_TEST] = null;
  }

  /** What a domain does when it attaches. */
  #attach(): void {
    const { vnet, neighbours } = this;
    inpafRegister(vnet, this.af);
    netisr_register(vnet, NETISR_TEST, (m) => this.#input(m));
    netisrLink(vnet, NETISR_TEST, ETHERTYPE_TEST, AF_TEST);
    tcpAttach(vnet, AF_TEST);
    udpAttach(vnet, AF_TEST);
    vnet.protosw.push(ripProtosw(AF_TEST, IPPROTO_TESTICMP, () => {}));
    const resolver = {
      ethertype: ETHERTYPE_TEST,
      resolved: { ll_addr: new Uint8Array(6) } as LinkAddr,
      resolve(_ifp: Ifnet, m: Mbuf, dst: OutputDst): Errno {
        const lle = neighbours.find(dst);
        if (lle === null) {
          m_freem(m);
          return EHOSTUNREACH;
        }
        this.resolved = lle;
        return 0;
      },
    };
    this.ifp.if_afdata[AF_TEST] = resolver;
  }

  #input(m: Mbuf): void {
    const proto = mem[mtod(m) + 4]!;
    if (proto === IPPROTO_TCP) tcp_input(m, HDRLEN, this.vnet, AF_TEST);
    else if (proto === IPPROTO_UDP) udp_input(m, HDRLEN, this.vnet, AF_TEST);
    else rip_input(m, HDRLEN, this.vnet, AF_TEST);
  }

  /** ICMP of the family reports `cmd` about a packet of ours to `dst` whose transport header is `l4`. */
  report(proto: number, cmd: number, dst: AddrWords, l4: Uint8Array, mtu = 0): void {
    const m = m_get(M_NOWAIT, MT_CONTROL)!;
    mem.set(l4, mtod(m));
    const inc = new InConninfo();
    inc.inc_family = AF_TEST;
    inc.laddrFrom(this.us);
    inc.faddrFrom(dst);
    if (proto === IPPROTO_TCP) tcp_ctlinput(cmd, this.af, inc, mtod(m), mtu, this.vnet);
    else udp_ctlinput(cmd, this.af, inc, mtod(m), this.vnet);
    m_freem(m);
  }

  #output(m: Mbuf, ro: Route | null): Errno {
    const ph = m.m_pkthdr;
    const p = mtod(m);
    if ((ph.csum_flags & CSUM_DELAY_DATA_IPV6) !== 0) {
      const sum = in_cksum_skip(m, ph.len, HDRLEN);
      memView.setUint16(p + HDRLEN + ph.csum_data, sum);
      ph.csum_flags = 0;
    }
    read(p + DST, this.#dst);
    const { w0, w1, w2, w3 } = this.#dst;
    if (ro !== null) this.cachedRoutes++;
    const rh = rt_tables_get_rnh(this.vnet, AF_TEST);
    const nh = routeLookup(rh, ro ?? this.#route, w0, w1, w2, w3);
    if (nh !== null) return nh.nh_ifp.if_output!(nh.nh_ifp, m, this.#dst);
    m_freem(m);
    return EHOSTUNREACH;
  }

  #nhop(a: AddrWords): Nhop | null {
    const rh = rt_tables_get_rnh(this.vnet, AF_TEST);
    return routeLookup(rh, new Route(), a.w0, a.w1, a.w2, a.w3);
  }

  #table(): InpAf {
    return {
      ...SIMPLE,
      family: AF_TEST,
      hdrlen: HDRLEN,
      maxpacket: 65535,
      csumUdp: CSUM_UDP_IPV6,
      csumTcp: CSUM_TCP_IPV6,
      tcpMss: () => ({ mssdflt: 1220, pmtud_blackhole_mss: 1000 }),
      defaultTtl: () => 33,
      isLocal: (_vnet, a) => this.us.equals(a),
      hash: (inc) => inc.inc_f0 ^ inc.inc_f1 ^ inc.inc_f2 ^ inc.inc_f3 ^ (inc.inc_l3 << 1),
      connectable: (_vnet, nam) => (isGroup(nam) ? EADDRNOTAVAIL : 0),
      bindable: (_inp, a) => (this.us.equals(a) ? 0 : EADDRNOTAVAIL),
      ttlOf: (inp) => inp.inp_ip_ttl,
      tosOf: (inp) => inp.inp_ip_tos,
      pcbInit(inp) {
        inp.inp_ip_ttl = 33;
      },
      selectLaddr: (_inp, inc) => {
        if (this.#nhop(inc.faddrTo($f)) === null) return EHOSTUNREACH;
        inc.laddrFrom(this.us);
        return 0;
      },
      outgoing: (_vnet, inc) => this.#nhop(inc.faddrTo($f))?.nh_ifp ?? null,
      pathMtu: (_vnet, inc) => this.#nhop(inc.faddrTo($f))?.nh_mtu ?? 0,
      sockaddr(inc, foreign, to) {
        to.len = SOCKADDR_IN6_SIZE;
        to.family = AF_TEST;
        to.port = foreign ? inc.inc_fport : inc.inc_lport;
        return foreign ? inc.faddrTo(to) : inc.laddrTo(to);
      },
      print: (_vnet, inc, foreign) => String(foreign ? inc.inc_f3 : inc.inc_l3),
      parse(m, inc) {
        inc.inc_family = AF_TEST;
        read(mtod(m) + SRC, $f);
        read(mtod(m) + DST, $l);
        inc.faddrFrom($f);
        inc.laddrFrom($l);
      },
      ecn: (m) => mem[mtod(m) + 1]! & 3,
      ttl: (m) => mem[mtod(m) + 5]!,
      unicast: (_vnet, _m, inc) => !isGroup(inc.laddrTo($l)) && !isGroup(inc.faddrTo($f)),
      castOf: (_m, inc) => (isGroup(inc.laddrTo($l)) ? M_MCAST : 0),
      ulpLength: (m) => memView.getUint16(mtod(m) + 2) - HDRLEN,
      pseudo(inc, c) {
        let sum = halves(inc.laddrTo($l)) + halves(inc.faddrTo($f)) + c;
        while (sum > 0xffff) sum = (sum % 0x10000) + Math.floor(sum / 0x10000);
        return sum;
      },
      fill(ip, inc, len, proto, ttl, tos, df) {
        mem.set([0x70, tos, len >>> 8, len & 0xff, proto, ttl, df ? 1 : 0, 0], ip);
        write(ip + SRC, inc.laddrTo($l));
        write(ip + DST, inc.faddrTo($f));
      },
      output: (m, inp) => this.#output(m, inp === null ? null : inp.inp_route),
      outputDgram: (m, inp) => this.#output(m, inp.inp_route),
      sourceRoute: () => null,
      portUnreachable: (m) => {
        this.unreachable++;
        m_freem(m);
      },
      ...noOptions,
    };
  }
}

/** Reads the 16 bytes of an address in a packet. */
export function addressAt(packet: Uint8Array, off: number): NetAddr {
  const v = new DataView(packet.buffer, packet.byteOffset + off, 16);
  const a = new NetAddr();
  a.set(v.getInt32(0), v.getInt32(4), v.getInt32(8), v.getInt32(12));
  return a;
}

export const SRC_OFF = SRC;
export const DST_OFF = DST;
