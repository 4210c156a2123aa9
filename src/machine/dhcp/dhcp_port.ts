/**
 * The DHCP client's access to its interface. Without an address it sends packets that it builds
 * itself and receives by a BPF tap, as FreeBSD's dhclient(8) does: UDP cannot send from 0.0.0.0, and
 * IP does not accept a unicast answer to an address that the host does not have yet. With an
 * address it uses a UDP socket on port 68.
 */

import type { Task } from '../../sys/clock.ts';
import { EADDRNOTAVAIL, ENOBUFS, type Errno } from '../../sys/errno.ts';
import { inPass } from '../../sys/pass.ts';
import { type InAddr, type Kva, kva, port } from '../../sys/types.ts';
import { m_getcl } from '../../kern/kern_mbuf.ts';
import { machineClock } from '../../kern/kern_timeout.ts';
import { m_mbuftouio } from '../../kern/m_copydata.ts';
import {
  CSUM_DATA_VALID,
  CSUM_UDP,
  M_BCAST,
  M_NOWAIT,
  M_PKTHDR,
  type Mbuf,
  MT_DATA,
  mtod,
} from '../../kern/mbuf.ts';
import { AF_INET, IPPROTO_UDP, SOCK_DGRAM } from '../../kern/protosw.ts';
import { ioResult, soRecvDgram, soSendDgram } from '../../kern/sys_generic.ts';
import {
  SO_RCV,
  sobind,
  soclose,
  socreate,
  type Socket,
  soResult,
  soupcall_set,
} from '../../kern/uipc_socket.ts';
import { BPF_D_IN, type BpfListener, bpfOf } from '../../net/bpf.ts';
import { ETHER_HDR_LEN, etherbroadcastaddr, ETHERTYPE_IP } from '../../net/ethernet.ts';
import { etherSend } from '../../net/if_ethersubr.ts';
import type { Ifnet } from '../../net/if_var.ts';
import { INADDR_ANY, INADDR_BROADCAST, inSockaddr } from '../../netinet/in.ts';
import { in_cksum_hdr, in_delayed_cksum, in_pseudo } from '../../netinet/in_cksum.ts';
import { Ip } from '../../netinet/ip.ts';
import { UH_SUM_OFF, Udphdr } from '../../netinet/udp.ts';
import { mem } from '../../vm/arena.ts';
import { Uio, UIO_READ } from '../../vm/uio.ts';

const SERVER_PORT = port(67);
const CLIENT_PORT = port(68);
const IPDEFTTL = 64;
/** Room for link-level headers before a packet. */
const LINK_ROOM = 32;
/** Frames that wait to be read; more are dropped. Far more than a server sends. */
const WAITING_MAX = 32;
/** The longest frame that is read. */
const FRAME_MAX = 1518;

/** What the port passes on, each in its own turn. */
export interface DhcpPortUser {
  /** A UDP datagram to port 68. `from` is the sender's Ethernet address; null: not known. */
  datagram(payload: Uint8Array, from: Uint8Array | null): void;
}

const $ip = new Ip();
const $uh = new Udphdr();

export class DhcpPort implements BpfListener, Task {
  readonly bd_direction = BPF_D_IN;
  readonly #ifp: Ifnet;
  readonly #user: DhcpPortUser;
  /** Frames from the tap. */
  #waiting: { frame: Uint8Array; summed: boolean }[] = [];
  #tapped = false;
  #so: Socket | null = null;
  readonly #buf = new Uint8Array(FRAME_MAX);

  constructor(ifp: Ifnet, user: DhcpPortUser) {
    this.#ifp = ifp;
    this.#user = user;
  }

  /** Starts or stops the tap. */
  tap(on: boolean): void {
    if (this.#tapped === on) return;
    this.#tapped = on;
    const bpf = bpfOf(this.#ifp);
    if (on) bpf?.attach(this);
    else bpf?.detach(this);
    if (!on) this.#waiting = [];
  }

  /** Copies a DHCP frame and looks at it in a later turn, outside of the receive path. */
  bpfPacket(_ifp: Ifnet, m: Mbuf, pktlen: number): void {
    const n = Math.min(pktlen, FRAME_MAX);
    if (n < ETHER_HDR_LEN + Ip.SIZE + Udphdr.SIZE || this.#waiting.length >= WAITING_MAX) return;
    m_mbuftouio(new Uio().single(this.#buf, 0, n, UIO_READ), m, n);
    const type = (this.#buf[12]! << 8) | this.#buf[13]!;
    if (type !== ETHERTYPE_IP || !isDhcp(this.#buf, n)) return;
    const summed = (m.m_pkthdr.csum_flags & CSUM_DATA_VALID) !== 0;
    this.#waiting.push({ frame: this.#buf.slice(0, n), summed });
    if (this.#waiting.length === 1) machineClock().post(this);
  }

  /** Passes the frames from the tap to the user. */
  run(): void {
    const waiting = this.#waiting;
    this.#waiting = [];
    for (const { frame, summed } of waiting) {
      if (!this.#tapped) return;
      inPass(() => this.#ip(frame, summed));
    }
  }

  #ip(frame: Uint8Array, summed: boolean): void {
    const at = ETHER_HDR_LEN + (frame[ETHER_HDR_LEN]! & 0xf) * 4;
    const view = new DataView(frame.buffer);
    const end = at + view.getUint16(at + 4);
    if (end > frame.length || end < at + Udphdr.SIZE) return;
    if (!summed && view.getUint16(at + 6) !== 0 && !udpSumOk(frame, at, end)) return;
    this.#user.datagram(frame.slice(at + Udphdr.SIZE, end), frame.slice(6, 12));
  }

  /** Opens the UDP socket. Returns the errno: EADDRINUSE if a program has port 68. */
  open(): Errno {
    if (this.#so !== null) return 0;
    const error = socreate(this.#ifp.if_vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP);
    if (error !== 0) return error;
    const so = soResult.so!;
    const bound = sobind(so, inSockaddr(INADDR_ANY, CLIENT_PORT));
    if (bound !== 0) {
      soclose(so);
      return bound;
    }
    this.#so = so;
    soupcall_set(so, SO_RCV, { run: () => this.#receive() });
    return 0;
  }

  #receive(): void {
    for (let i = 0; i < WAITING_MAX && this.#so !== null; i++) {
      // An error, such as ICMP port unreachable, is read and left out.
      if (soRecvDgram(this.#so, this.#buf, 0, FRAME_MAX) !== 0) return;
      const payload = this.#buf.slice(0, ioResult.n);
      inPass(() => this.#user.datagram(payload, null));
    }
  }

  /** Sends to the server by UDP, from the interface's address. */
  send(payload: Uint8Array, server: InAddr): Errno {
    if (this.#so === null) return EADDRNOTAVAIL;
    return soSendDgram(this.#so, payload, 0, payload.length, inSockaddr(server, SERVER_PORT));
  }

  /** Broadcasts a datagram to the servers, from `src`, which may be 0.0.0.0. */
  broadcast(payload: Uint8Array, src: InAddr): Errno {
    return this.sendFrame(payload, src, INADDR_BROADCAST, etherbroadcastaddr);
  }

  /** Sends a datagram to `dst` in a frame to the Ethernet address `lladdr`. ENOBUFS. */
  sendFrame(payload: Uint8Array, src: InAddr, dst: InAddr, lladdr: Uint8Array): Errno {
    const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR);
    if (m === null) return ENOBUFS;
    m.m_data += LINK_ROOM;
    const p = mtod(m);
    const ulen = Udphdr.SIZE + payload.length;
    m.m_len = m.m_pkthdr.len = Ip.SIZE + ulen;
    mem.fill(0, p, p + Ip.SIZE);
    mem.set(payload, p + Ip.SIZE + Udphdr.SIZE);
    fillIp(p, ulen, src, dst);
    $uh.at(kva(p + Ip.SIZE));
    $uh.uh_sport = CLIENT_PORT;
    $uh.uh_dport = SERVER_PORT;
    $uh.uh_ulen = ulen;
    $uh.uh_sum = in_pseudo(src, dst, ulen + IPPROTO_UDP);
    m.m_pkthdr.csum_flags = CSUM_UDP;
    m.m_pkthdr.csum_data = UH_SUM_OFF;
    in_delayed_cksum(m);
    m.m_pkthdr.csum_flags = 0;
    $ip.at(p).ip_sum = in_cksum_hdr(m, Ip.SIZE);
    if ((lladdr[0]! & 1) !== 0) m.m_flags |= M_BCAST;
    return etherSend(this.#ifp, m, lladdr, ETHERTYPE_IP);
  }

  close(): void {
    this.tap(false);
    const so = this.#so;
    this.#so = null;
    if (so !== null) soclose(so);
  }
}

function fillIp(p: Kva, ulen: number, src: InAddr, dst: InAddr): void {
  $ip.at(p).ip_vhl = 0x45;
  $ip.ip_len = Ip.SIZE + ulen;
  $ip.ip_ttl = IPDEFTTL;
  $ip.ip_p = IPPROTO_UDP;
  $ip.ip_src = src;
  $ip.ip_dst = dst;
}

/** Whether a frame of `n` bytes has a whole UDP datagram to port 68 and a header without faults. */
function isDhcp(frame: Uint8Array, n: number): boolean {
  const vhl = frame[ETHER_HDR_LEN]!;
  const hlen = (vhl & 0xf) * 4;
  const at = ETHER_HDR_LEN + hlen;
  if (vhl >>> 4 !== 4 || hlen < Ip.SIZE || at + Udphdr.SIZE > n) return false;
  if (frame[ETHER_HDR_LEN + 9] !== IPPROTO_UDP) return false;
  const fragment = ((frame[ETHER_HDR_LEN + 6]! & 0x3f) << 8) | frame[ETHER_HDR_LEN + 7]!;
  if (fragment !== 0 || sum16(frame, ETHER_HDR_LEN, at, 0) !== 0xffff) return false;
  return ((frame[at + 2]! << 8) | frame[at + 3]!) === CLIENT_PORT;
}

/** The ones' complement sum of the bytes from `from` to `to`, added to `sum`. */
function sum16(bytes: Uint8Array, from: number, to: number, sum: number): number {
  for (let i = from; i < to; i += 2) sum += (bytes[i]! << 8) | (i + 1 < to ? bytes[i + 1]! : 0);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return sum;
}

/** Whether the UDP checksum of the datagram at `at` is right. */
function udpSumOk(frame: Uint8Array, at: number, end: number): boolean {
  const addrs = ETHER_HDR_LEN + 12;
  const pseudo = sum16(frame, addrs, addrs + 8, IPPROTO_UDP + end - at);
  return sum16(frame, at, end, pseudo) === 0xffff;
}
