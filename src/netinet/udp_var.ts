/** UDP's per-stack state, after sys/netinet/udp_var.h: statistics, settings, control blocks. */

import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Inpcbinfo } from './in_pcb.ts';

/** UDP statistics, with FreeBSD's names. @see sys/netinet/udp_var.h */
export class Udpstat {
  udps_ipackets = 0;
  udps_hdrops = 0;
  udps_badsum = 0;
  udps_nosum = 0;
  udps_badlen = 0;
  udps_noport = 0;
  udps_noportbcast = 0;
  udps_fullsock = 0;
  udps_opackets = 0;
  udps_noportmcast = 0;
}

/** Settings under net.inet.udp, with FreeBSD's defaults. */
export class UdpParams {
  /** Datagrams leave with a checksum. */
  checksum = true;
  /** Largest datagram a socket sends unless it has a larger send buffer. */
  maxdgram = 9216;
  /** Forty datagrams of 1 KiB with their senders' addresses, of which an IPv6 one has 28 bytes. */
  recvspace = 40 * (1024 + 28);
  /** No ICMP error about a port where nobody listens. */
  blackhole = false;
  /** Not even to this host itself. */
  blackhole_local = false;
}

/** One stack's UDP. */
export class UdpVnet {
  readonly stat = new Udpstat();
  readonly params = new UdpParams();
  readonly udbinfo: Inpcbinfo;
  /** Whether a family has attached UDP, and its sysctls are there. */
  attached = false;

  constructor(vnet: Vnet) {
    this.udbinfo = new Inpcbinfo(vnet);
  }
}

export const V_udp = VNET_DEFINE((vnet) => new UdpVnet(vnet));

/** UDP statistics of a stack, for `netstat -s`. */
export function udpstat(vnet: Vnet): Udpstat {
  return V_udp(vnet).stat;
}
