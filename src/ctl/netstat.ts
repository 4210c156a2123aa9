/** The reports of netstat(1), named by their options. */

import type { Vnet } from '../kern/vnet.ts';
import { icmpstat } from '../netinet/ip_icmp.ts';
import { igmpstat } from '../netinet/igmp.ts';
import { arpstat } from '../netinet/if_ether.ts';
import { ipstat } from '../netinet/ip_var.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { udpstat } from '../netinet/udp_var.ts';
import { V_icmp6 } from '../netinet6/icmp6_var.ts';
import { ip6stat } from '../netinet6/ip6_var.ts';
import { mldstat } from '../netinet6/mld6.ts';
import { gatherInterfaces, type InterfaceInfo } from './ifconfig.ts';
import { gatherNetstatAn, type SocketLine } from './netstat_an.ts';
import { type BpfLine, gatherNetstatB } from './netstat_b.ts';
import { gatherNetstatM, type NetstatM } from './netstat_m.ts';
import { gatherNetstatS, type NetstatS } from './netstat_s.ts';
import { gatherRoutes, type RouteLine } from './route.ts';

/** The reports and their types. */
export interface NetstatReports {
  m: NetstatM;
  an: SocketLine[];
  i: InterfaceInfo[];
  s: NetstatS;
  r: RouteLine[];
  B: BpfLine[];
}

function statistics(vnet: Vnet): NetstatS {
  const { stat, states } = V_tcp(vnet);
  return gatherNetstatS({
    tcp: Object.assign({}, stat, { states }),
    udp: udpstat(vnet),
    ip: ipstat(vnet),
    icmp: icmpstat(vnet),
    igmp: igmpstat(vnet),
    arp: arpstat(vnet),
    ip6: ip6stat(vnet),
    icmp6: V_icmp6(vnet).stat,
    mld: mldstat(vnet),
  });
}

const gather: {
  readonly [R in keyof NetstatReports]: (vnet: Vnet, all: boolean) => NetstatReports[R];
} = {
  m: gatherNetstatM,
  an: gatherNetstatAn,
  i: gatherInterfaces,
  s: statistics,
  r: gatherRoutes,
  B: gatherNetstatB,
};

/** Gathers a report. @param for report `an`: include listening sockets */
export function gatherNetstat<R extends keyof NetstatReports>(
  vnet: Vnet,
  report: R,
  all: boolean,
): NetstatReports[R] {
  return gather[report](vnet, all);
}
