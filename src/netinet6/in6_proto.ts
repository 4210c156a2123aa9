/**
 * The inet6 domain of a stack, after sys/netinet6/in6_proto.c. This is the only file that registers IPv6:
 * with the layers below (netisr, interface events) and with the protocols above (InpAf, protocol
 * switches). Its sysctls are in in6_sysctl.ts.
 */

import type { Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import { AF_INET6, IPPROTO_TCP, IPPROTO_UDP } from '../kern/protosw.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addrFamilyRegister } from '../net/addr_family.ts';
import { ETHERTYPE_IPV6 } from '../net/ethernet.ts';
import { ifEventsRegister, ifnetList } from '../net/if.ts';
import { redirectRoutes } from '../net/route_redirect.ts';
import { NETISR_IPV6, netisrLink, netisr_register } from '../net/netisr.ts';
import { inpafRegister } from '../netinet/in_pcb.ts';
import { rip_input, ripProtosw } from '../netinet/raw_ip.ts';
import { tcpAttach } from '../netinet/tcp_init.ts';
import { tcp_ctlinput, tcp_input } from '../netinet/tcp_input.ts';
import { PRC_MSGSIZE } from '../netinet/ip_var.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { V_udp } from '../netinet/udp_var.ts';
import { udpAttach, udp_ctlinput, udp_input } from '../netinet/udp_usrreq.ts';
import { frag6Proto, V_frag6 } from './frag6.ts';
import { icmp6Proto } from './icmp6_input.ts';
import { V_icmp6 } from './icmp6_var.ts';
import { IN6_ADDR_BITS } from './in6.ts';
import { inet6Family } from './in6_family.ts';
import { in6_ifdetach, inet6IfEvents } from './in6_ifattach.ts';
import { in6RefusesDeprecated } from './in6_src.ts';
import { in6Sysctls } from './in6_sysctl.ts';
import { ip6NotifyPmtu } from './ip6_control.ts';
import { inet6Af } from './inp_inet6.ts';
import {
  IPPROTO_DONE,
  IPPROTO_DSTOPTS,
  IPPROTO_FRAGMENT,
  IPPROTO_ICMPV6,
  IPPROTO_ROUTING,
} from './ip6.ts';
import { ip6_input } from './ip6_input.ts';
import { dest6Proto, route6Proto } from './ip6_options.ts';
import { ip6Input, type Ip6Proto, ip6proto_register } from './ip6_var.ts';
import { mldStop } from './mld6.ts';
import { nd6RtrAttach, nd6RtrDetach } from './nd6_timer.ts';

/** TCP's entry in IPv6's protocol table. */
const tcpInet6: Ip6Proto = {
  input(m, off, vnet): number {
    ip6Input.m = null;
    tcp_input(m, off, vnet, AF_INET6);
    return IPPROTO_DONE;
  },
  ctlinput(cmd, inc, l4, _l4len, mtu, vnet): void {
    tcp_ctlinput(cmd, inet6Af, inc, l4, mtu, vnet);
  },
};

/** UDP's entry in IPv6's protocol table. */
const udpInet6: Ip6Proto = {
  input(m, off, vnet): number {
    ip6Input.m = null;
    udp_input(m, off, vnet, AF_INET6);
    return IPPROTO_DONE;
  },
  ctlinput(cmd, inc, l4, _l4len, mtu, vnet): void {
    if (cmd === PRC_MSGSIZE) ip6NotifyPmtu(V_udp(vnet).udbinfo, inc, mtu);
    udp_ctlinput(cmd, inet6Af, inc, l4, vnet);
  },
};

/** Starts or stops the delivery of ICMPv6 messages to raw sockets. */
function rawListen(vnet: Vnet, listening: boolean): void {
  V_icmp6(vnet).raw = listening ? (m, off, v) => rip_input(m, off, v, AF_INET6) : null;
}

function register(vnet: Vnet, proto: number, pr: Ip6Proto): void {
  const error = ip6proto_register(vnet, proto, pr);
  KASSERT(error === 0, 'inet6_domain_attach: protocol number taken');
}

/**
 * Adds IPv6 to a stack: IPv6, neighbour discovery, ICMPv6, raw sockets, TCP, UDP and their sysctls. lo0
 * gets ::1 and fe80::1 when both lo0 and this domain are attached, in either order. EEXIST: attached
 * already. Attach IPv4 before, because TCP and UDP share their state.
 * @see sys/netinet6/in6_proto.c
 */
export function inet6_domain_attach(vnet: Vnet): Errno {
  const error = inpafRegister(vnet, inet6Af);
  if (error !== 0) return error;
  addrFamilyRegister(vnet, inet6Family);
  netisr_register(vnet, NETISR_IPV6, ip6_input);
  netisrLink(vnet, NETISR_IPV6, ETHERTYPE_IPV6, AF_INET6);
  register(vnet, IPPROTO_ICMPV6, icmp6Proto);
  register(vnet, IPPROTO_TCP, tcpInet6);
  register(vnet, IPPROTO_UDP, udpInet6);
  register(vnet, IPPROTO_DSTOPTS, dest6Proto);
  register(vnet, IPPROTO_ROUTING, route6Proto);
  register(vnet, IPPROTO_FRAGMENT, frag6Proto);
  vnet.protosw.push(ripProtosw(AF_INET6, IPPROTO_ICMPV6, rawListen));
  tcpAttach(vnet, AF_INET6);
  V_tcp(vnet).deprecated = (inc): boolean => in6RefusesDeprecated(vnet, inc);
  udpAttach(vnet, AF_INET6);
  in6Sysctls(vnet);
  nd6RtrAttach(vnet);
  ifEventsRegister(vnet, inet6IfEvents);
  return 0;
}

/**
 * Removes IPv6 from a stack: frees neighbours, addresses and their timers. The caller has ended the
 * transport protocols and `net` (netDetach) before.
 * @see sys/kern/uipc_domain.c
 */
export function inet6_domain_detach(vnet: Vnet): void {
  V_frag6(vnet).drain();
  mldStop(vnet);
  redirectRoutes(vnet, AF_INET6, IN6_ADDR_BITS).stop();
  for (const ifp of ifnetList(vnet)) in6_ifdetach(ifp);
  nd6RtrDetach(vnet);
}
