/**
 * The inet domain of a stack, after sys/netinet/in_proto.c and the sysctl declarations of ip_*.c
 * and if_ether.c. This is the only file that registers IPv4: with the layers below (netisr,
 * interface events) and with the protocols above (InpAf, protocol switches).
 */

import { EINVAL, type Errno } from '../sys/errno.ts';
import { KASSERT } from '../sys/kassert.ts';
import type { InAddr } from '../sys/types.ts';
import type { Vnet } from '../kern/vnet.ts';
import {
  AF_INET,
  AF_UNSPEC,
  IPPROTO_ICMP,
  IPPROTO_IGMP,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from '../kern/protosw.ts';
import { addrFamilyRegister } from '../net/addr_family.ts';
import { ETHERTYPE_ARP, ETHERTYPE_IP } from '../net/ethernet.ts';
import { ifEventsRegister, ifnetList } from '../net/if.ts';
import { NETISR_ARP, NETISR_IP, netisrLink, netisr_register } from '../net/netisr.ts';
import { icmpRedirectStop } from './icmp_redirect.ts';
import { arpintr, V_arp } from './if_ether.ts';
import { IGMP_VERSION_1, IGMP_VERSION_3, igmpProto, igmpStop, V_igmp } from './igmp.ts';
import { inetFamily } from './in_family.ts';
import { inetIfEvents } from './in_ifaddr.ts';
import { InConninfo, inpafRegister } from './in_pcb.ts';
import { in_pcbSysctls } from './in_portrange.ts';
import { inetAf } from './inp_inet.ts';
import { icmpProto, V_icmp } from './ip_icmp.ts';
import { ip_input } from './ip_input.ts';
import { setForwarding } from './ip_forward.ts';
import { V_ipreass } from './ip_reass.ts';
import { type IpProto, ipproto_register, V_ip } from './ip_var.ts';
import { rip_input, ripProtosw } from './raw_ip.ts';
import { tcpAttach } from './tcp_init.ts';
import { tcp_ctlinput, tcp_input } from './tcp_input.ts';
import { udpAttach, udp_ctlinput, udp_input } from './udp_usrreq.ts';

const $inc = new InConninfo();
/** Bytes of an interface name with its NUL. */
const IFNAMSIZ = 16;

/** The addresses of a packet that this host sent; the protocol adds the ports. Borrowed. */
function sentFrom(src: InAddr, dst: InAddr): InConninfo {
  $inc.inc_family = AF_INET;
  $inc.setLaddr(src);
  $inc.setFaddr(dst);
  return $inc;
}

/** TCP's entry in IP's protocol table. */
const tcpInet: IpProto = {
  input(m, hlen, vnet): void {
    tcp_input(m, hlen, vnet, AF_INET);
  },
  ctlinput(cmd, src, dst, l4, _l4len, mtu, vnet): void {
    tcp_ctlinput(cmd, inetAf, sentFrom(src, dst), l4, mtu, vnet);
  },
};

/** UDP's entry in IP's protocol table. */
const udpInet: IpProto = {
  input(m, hlen, vnet): void {
    udp_input(m, hlen, vnet, AF_INET);
  },
  ctlinput(cmd, src, dst, l4, _l4len, _mtu, vnet): void {
    udp_ctlinput(cmd, inetAf, sentFrom(src, dst), l4, vnet);
  },
};

/** The raw sockets' handler for ICMP. */
const rawInet: IpProto = {
  input(m, hlen, vnet): void {
    rip_input(m, hlen, vnet, AF_INET);
  },
  ctlinput(): void {},
};

/** Starts or stops the delivery of ICMP messages to raw sockets. */
function rawListen(vnet: Vnet, listening: boolean): void {
  V_icmp(vnet).raw = listening ? rawInet : null;
}

function register(vnet: Vnet, proto: number, pr: IpProto): void {
  const error = ipproto_register(vnet, proto, pr);
  KASSERT(error === 0, 'inet_domain_attach: protocol number taken');
}

/**
 * Adds IPv4 to a stack: IP, ARP, ICMP, raw sockets, TCP, UDP and their sysctls. lo0 gets
 * 127.0.0.1/8 when both lo0 and this domain are attached, in either order. EEXIST: attached
 * already.
 * @see sys/netinet/in_proto.c
 */
export function inet_domain_attach(vnet: Vnet): Errno {
  const error = inpafRegister(vnet, inetAf);
  if (error !== 0) return error;
  addrFamilyRegister(vnet, inetFamily);
  netisr_register(vnet, NETISR_IP, ip_input);
  netisrLink(vnet, NETISR_IP, ETHERTYPE_IP, AF_INET);
  netisr_register(vnet, NETISR_ARP, arpintr);
  netisrLink(vnet, NETISR_ARP, ETHERTYPE_ARP, AF_UNSPEC);
  register(vnet, IPPROTO_ICMP, icmpProto);
  register(vnet, IPPROTO_IGMP, igmpProto);
  register(vnet, IPPROTO_TCP, tcpInet);
  register(vnet, IPPROTO_UDP, udpInet);
  vnet.protosw.push(ripProtosw(AF_INET, IPPROTO_ICMP, rawListen));
  tcpAttach(vnet, AF_INET);
  udpAttach(vnet, AF_INET);
  ipSysctls(vnet);
  forwardingSysctls(vnet);
  in_pcbSysctls(vnet);
  icmpSysctls(vnet);
  igmpSysctls(vnet);
  arpSysctls(vnet);
  ifEventsRegister(vnet, inetIfEvents);
  return 0;
}

/**
 * Removes IPv4 from a stack: frees fragments, ARP entries, addresses and their timers. The caller
 * has ended the transport protocols and `net` (netDetach) before.
 * @see sys/kern/uipc_domain.c
 */
export function inet_domain_detach(vnet: Vnet): void {
  V_ipreass(vnet).drain();
  icmpRedirectStop(vnet);
  igmpStop(vnet);
  for (const ifp of ifnetList(vnet)) inetIfEvents.ifDetaching(ifp);
}

function forwardingSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_ip(vnet);
  const ip = (name: string): string => `net.inet.ip.${name}`;
  t.bool(
    ip('forwarding'),
    'Enable IP forwarding between interfaces',
    () => params.forwarding,
    (on) => setForwarding(vnet, on),
  );
  t.boolField(ip('redirect'), 'Enable sending IP redirects', params, 'redirect');
}

function ipSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_ip(vnet);
  const reass = V_ipreass(vnet);
  const ip = (name: string): string => `net.inet.ip.${name}`;
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
    'IP options: 0 ignores them, 1 processes them, 2 answers with an ICMP error',
    params,
    'process_options',
    0,
    2,
  );
  t.boolField(
    ip('sourceroute'),
    'Enable forwarding source routed IP packets',
    params,
    'sourceroute',
  );
  t.boolField(
    ip('accept_sourceroute'),
    'Enable accepting source routed IP packets',
    params,
    'accept_sourceroute',
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
  t.int(ip('curfrags'), 'Current number of IPv4 fragments', () => reass.frags, null);
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
  t.boolField(icmp('maskrepl'), 'Reply to ICMP Address Mask Request packets', params, 'maskrepl');
  t.boolField(icmp('drop_redirect'), 'Ignore ICMP redirects', params, 'drop_redirect');
  t.boolField(icmp('log_redirect'), 'Log ICMP redirects to the console', params, 'log_redirect');
  t.intField(
    icmp('redirtimeout'),
    'Delay in seconds before expiring redirect route',
    params,
    'redirtimeout',
    1,
  );
  t.string(
    icmp('reply_src'),
    'ICMP reply source for non-local packets: the name of an interface',
    () => params.reply_src,
    (name) => {
      if (name.length >= IFNAMSIZ) return EINVAL;
      params.reply_src = name;
      return 0;
    },
  );
  t.boolField(
    icmp('reply_from_interface'),
    'ICMP reply from incoming interface for non-local packets',
    params,
    'reply_from_interface',
  );
  t.intField(
    icmp('quotelen'),
    'Number of bytes from original packet to quote in ICMP reply',
    params,
    'quotelen',
    8,
    1500,
  );
}

function igmpSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_igmp(vnet);
  const bools = [
    ['recvifkludge', 'Rewrite IGMPv1/v2 reports from 0.0.0.0 to contain subnet address'],
    ['sendra', 'Send IP Router Alert option in IGMPv2/v3 messages'],
    ['sendlocal', 'Send IGMP membership reports for 224.0.0.0/24 groups'],
    ['v1enable', 'Enable backwards compatibility with IGMPv1'],
    ['v2enable', 'Enable backwards compatibility with IGMPv2'],
    ['legacysupp', 'Allow v1/v2 reports to suppress v3 group responses'],
  ] as const;
  for (const [leaf, descr] of bools) t.boolField(`net.inet.igmp.${leaf}`, descr, params, leaf);
  t.intField(
    'net.inet.igmp.default_version',
    'Default version of IGMP to run on each interface',
    params,
    'default_version',
    IGMP_VERSION_1,
    IGMP_VERSION_3,
  );
  t.intField(
    'net.inet.igmp.gsrdelay',
    'Rate limit for IGMPv3 Group-and-Source queries in seconds',
    params,
    'gsrdelay',
    0,
  );
  const { mcast } = V_ip(vnet);
  t.intField('net.inet.ip.mcast.maxgrpsrc', 'Max source filters per group', mcast, 'maxgrpsrc', 1);
  t.intField(
    'net.inet.ip.mcast.maxsocksrc',
    'Max source filters per socket',
    mcast,
    'maxsocksrc',
    1,
  );
  t.boolField('net.inet.ip.mcast.loop', 'Loopback multicast datagrams by default', mcast, 'loop');
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
  t.intField(
    arp('max_log_per_second'),
    'Maximum number of remotely triggered ARP messages that can be logged per second',
    params,
    'max_log_per_second',
    -1,
  );
  t.intField(
    arp('garp_rexmit_count'),
    'Number of times to retransmit GARP packets; 0 to disable, maximum of 16',
    params,
    'garp_rexmit_count',
    0,
    16,
  );
  t.boolField(
    arp('acd'),
    'Probe configured addresses before use and defend them as RFC 5227',
    params,
    'acd',
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
