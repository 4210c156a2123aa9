/** UDP's per-stack state, after sys/netinet/udp_var.h: statistics, settings, control blocks. */

import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { Inpcbinfo } from './in_pcb.ts';

/** UDP statistics, with FreeBSD's names. @see sys/netinet/udp_var.h */
class Udpstat {
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
  udps_filtermcast = 0;
}

/** Settings under net.inet.udp, with FreeBSD's defaults. */
class UdpParams {
  /** Send datagrams with a checksum. */
  checksum = true;
  /** Send buffer size of a new socket, the limit of a datagram's size, bytes. */
  maxdgram = 9216;
  /** Room for 40 datagrams of 1 KiB, each with its sender's address (28 bytes for IPv6). */
  recvspace = 40 * (1024 + 28);
  /** Do not send an ICMP error for a closed port. */
  blackhole = false;
  /** Apply `blackhole` to datagrams from local addresses too. */
  blackhole_local = false;
  /** Log datagrams for ports without a socket. */
  log_in_vain = false;
}

/** UDP's state of one stack. */
export class UdpVnet {
  readonly stat = new Udpstat();
  readonly params = new UdpParams();
  readonly udbinfo: Inpcbinfo;
  /** Whether udpAttach was called and UDP's sysctls exist. */
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
