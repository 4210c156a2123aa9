/**
 * IPv4 in a stack, after sys/netinet/in_proto.c and the sysctl declarations of ip_*.c and
 * if_ether.c: everything that a new Vnet needs so that its interfaces speak IPv4. TCP and UDP
 * register themselves the same way.
 */

import { EEXIST, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import type { Vnet } from '../kern/vnet.ts';
import { IPPROTO_ICMP } from '../kern/protosw.ts';
import { ifEventsRegister, ifnetList } from '../net/if.ts';
import { ifCloneDestroyAll } from '../net/if_clone.ts';
import { laggAttach } from '../net/if_lagg.ts';
import { loAttach } from '../net/if_loop.ts';
import { vlanAttach } from '../net/if_vlan.ts';
import {
  NETISR_ARP,
  NETISR_DEFAULTQLIMIT,
  netisrDrain,
  NETISR_IP,
  netisr_register,
} from '../net/netisr.ts';
import { arpintr, V_arp } from './if_ether.ts';
import { INADDR_LOOPBACK } from './in.ts';
import { in_aifaddr, inetIfEvents, V_loif } from './in_ifaddr.ts';
import { in_pcbSysctls } from './in_pcb.ts';
import { icmpProto, V_icmp } from './ip_icmp.ts';
import { ip_input } from './ip_input.ts';
import { V_ipreass } from './ip_reass.ts';
import { ipproto_register, V_ip } from './ip_var.ts';
import { rip_init } from './raw_ip.ts';
import { tcp_init } from './tcp_init.ts';
import { udp_init } from './udp_usrreq.ts';

/**
 * Gives a fresh stack IPv4: ARP, IP, ICMP, lo0 with 127.0.0.1/8, and their sysctls. Once per Vnet:
 * EEXIST. @see sys/netinet/in_proto.c
 */
export function inet_domain_attach(vnet: Vnet): Errno {
  if (V_loif(vnet).ifp !== null) return EEXIST;
  netisr_register(vnet, NETISR_IP, ip_input);
  netisr_register(vnet, NETISR_ARP, arpintr);
  const error = ipproto_register(vnet, IPPROTO_ICMP, icmpProto);
  KASSERT(error === 0, 'inet_domain_attach: ICMP is taken');
  rip_init(vnet);
  tcp_init(vnet);
  udp_init(vnet);
  ipSysctls(vnet);
  in_pcbSysctls(vnet);
  icmpSysctls(vnet);
  arpSysctls(vnet);
  ifEventsRegister(vnet, inetIfEvents);
  const lo = loAttach(vnet);
  V_loif(vnet).ifp = lo;
  vlanAttach(vnet);
  laggAttach(vnet);
  return in_aifaddr(lo, INADDR_LOOPBACK, 8);
}

/**
 * Ends a stack's IPv4: packets that wait, neighbours, addresses and their timers go, and the
 * interfaces that were made by name; others stay their drivers'. Transport protocols end before.
 * @see sys/kern/uipc_domain.c
 */
export function inet_domain_detach(vnet: Vnet): void {
  netisrDrain(vnet);
  ifCloneDestroyAll(vnet);
  V_ipreass(vnet).drain();
  for (const ifp of ifnetList(vnet)) inetIfEvents.ifDetaching(ifp);
}

function ipSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_ip(vnet);
  const reass = V_ipreass(vnet);
  const ip = (name: string): string => `net.inet.ip.${name}`;
  t.int(ip('forwarding'), 'Enable IP forwarding between interfaces', () => 0, null);
  t.intField(ip('ttl'), 'Maximum TTL on IP packets', params, 'ttl', 1, 255);
  t.boolField(ip('rfc6864'), 'Use constant IP ID for atomic datagrams', params, 'rfc6864');
  t.boolField(ip('random_id'), 'Assign random ip_id values', params, 'random_id');
  t.boolField(
    ip('source_address_validation'),
    'Drop incoming packets with source address that is a local address',
    params,
    'source_address_validation',
  );
  t.intField(
    ip('process_options'),
    'Check IP options: 0 ignores them',
    params,
    'process_options',
    0,
    1,
  );
  t.intField(
    ip('maxfragpackets'),
    'Maximum number of IPv4 fragment reassembly queue entries',
    reass,
    'maxfragpackets',
    -1,
  );
  t.intField(
    ip('maxfrags'),
    'Maximum number of IPv4 fragments allowed across all reassembly queues',
    reass,
    'maxfrags',
    -1,
  );
  t.intField(
    ip('maxfragsperpacket'),
    'Maximum number of IPv4 fragments allowed per packet',
    reass,
    'maxfragsperpacket',
    0,
  );
  t.intField(
    ip('fragttl'),
    'IP fragment life time on reassembly queue (seconds)',
    reass,
    'fragttl',
    1,
    255,
  );
  t.int(ip('fragpackets'), 'Current number of fragmented packets', () => reass.fragpackets, null);
  t.int(ip('curfrags'), 'Current number of IPv4 fragments', () => reass.curfrags, null);
  t.int(
    'net.isr.defaultqlimit',
    'Default netisr per-protocol queue limit',
    () => NETISR_DEFAULTQLIMIT,
    null,
  );
}

function icmpSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_icmp(vnet);
  const icmp = (name: string): string => `net.inet.icmp.${name}`;
  t.intField(icmp('icmplim'), 'Maximum number of ICMP responses per second', params, 'icmplim', 0);
  t.boolField(
    icmp('icmplim_output'),
    'Enable logging of ICMP response rate limiting',
    params,
    'icmplim_output',
  );
  t.boolField(
    icmp('bmcastecho'),
    'Reply to multicast ICMP Echo Request and Timestamp packets',
    params,
    'bmcastecho',
  );
  t.boolField(icmp('tstamprepl'), 'Respond to ICMP Timestamp packets', params, 'tstamprepl');
  t.intField(
    icmp('quotelen'),
    'Number of bytes from original packet to quote in ICMP reply',
    params,
    'quotelen',
    8,
    1500,
  );
}

function arpSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_arp(vnet);
  const arp = (name: string): string => `net.link.ether.inet.${name}`;
  t.intField(arp('max_age'), 'ARP entry lifetime in seconds', params, 'max_age', 1, 86400);
  t.intField(arp('wait'), 'Incomplete ARP entry lifetime in seconds', params, 'wait', 1, 86400);
  t.intField(
    arp('maxtries'),
    'ARP resolution attempts before returning error',
    params,
    'maxtries',
    1,
    1000,
  );
  t.intField(arp('maxhold'), 'Number of packets to hold per ARP entry', params, 'maxhold', 0, 1024);
  t.boolField(
    arp('log_arp_movements'),
    'Log arp replies from MACs different than the one in the cache',
    params,
    'log_arp_movements',
  );
  t.boolField(
    arp('log_arp_permanent_modify'),
    'Log arp replies from MACs different than the one in the permanent arp entry',
    params,
    'log_arp_permanent_modify',
  );
}
