/** The sysctls of IPv6, after the declarations of in6_proto.c, icmp6.c and nd6.c. */

import { EINVAL } from '../sys/errno.ts';
import type { Vnet } from '../kern/vnet.ts';
import { V_frag6 } from './frag6.ts';
import { V_icmp6 } from './icmp6_var.ts';
import { desyncFactor, TEMPADDR_REGEN_ADVANCE } from './in6_autoconf.ts';
import { STABLEADDR_NETIFSRC_MAC, STABLEADDR_NETIFSRC_NAME } from './in6_ifid.ts';
import { setForwarding6 } from './ip6_forward.ts';
import { V_ip6 } from './ip6_var.ts';
import { V_mld } from './mld6.ts';
import { nd6SetMaxnudhint } from './nd6.ts';
import { V_nd6 } from './nd6_var.ts';

const ip6Bools = [
  ['redirect', 'Send ICMPv6 redirects for unforwardable IPv6 packets'],
  ['v6only', 'Restrict AF_INET6 sockets to IPv6 addresses only'],
  ['auto_flowlabel', 'Assign flow labels to connections'],
  ['auto_linklocal', 'Assign a link-local address to each interface with IPv6'],
  ['use_defaultzone', 'Use the only interface for a link-local address without a zone'],
  ['prefer_tempaddr', 'Prefer temporary addresses as source'],
  ['use_tempaddr', 'Add temporary addresses to those of advertised prefixes'],
  ['use_stableaddr', 'Default of the stableaddr flag of new interfaces'],
  ['use_deprecated', 'Allow deprecated addresses as source, and connections to them'],
  ['accept_rtadv', 'Default of the accept_rtadv flag of new interfaces'],
  ['rfc6204w3', 'Accept default routers of advertisements while forwarding'],
  ['no_radr', 'Default of the no_radr flag of new interfaces'],
  [
    'source_address_validation',
    'Drop incoming packets with source address that is a local address',
  ],
] as const;

function ip6Sysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params, tcpMss } = V_ip6(vnet);
  const ip6 = (name: string): string => `net.inet6.ip6.${name}`;
  t.bool(
    ip6('forwarding'),
    'Enable forwarding of IPv6 packets between interfaces',
    () => params.forwarding,
    (on) => setForwarding6(vnet, on),
  );
  t.intField(
    ip6('hlim'),
    'Default hop limit to use for outgoing IPv6 packets',
    params,
    'hlim',
    1,
    255,
  );
  t.intField(
    ip6('hdrnestlimit'),
    'Maximum number of extension headers of a received packet',
    params,
    'hdrnestlimit',
    0,
  );
  for (const [leaf, descr] of ip6Bools) t.boolField(ip6(leaf), descr, params, leaf);
  t.intField(
    ip6('dad_count'),
    'Number of ICMPv6 NS messages sent during duplicate address detection',
    params,
    'dad_count',
    0,
    1000,
  );
  t.intField(
    ip6('dad_enhanced'),
    'Add a random nonce to NS messages of duplicate address detection',
    params,
    'dad_enhanced',
    0,
    1,
  );
  t.intField(
    'net.inet.tcp.v6mssdflt',
    'Default TCP maximum segment size for IPv6',
    tcpMss,
    'mssdflt',
    216,
  );
  t.intField(
    'net.inet.tcp.v6pmtud_blackhole_mss',
    'Path MTU discovery black hole detection lowered MSS for IPv6',
    tcpMss,
    'pmtud_blackhole_mss',
    216,
  );
}

/** Lifetimes of temporary addresses, and the source of stable ones. */
function autoconfSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_ip6(vnet);
  const ip6 = (name: string): string => `net.inet6.ip6.${name}`;
  t.int(
    ip6('temppltime'),
    'Preferred lifetime of temporary addresses, seconds',
    () => params.temp_preferred_lifetime,
    (v) => {
      if (v < desyncFactor(vnet) + TEMPADDR_REGEN_ADVANCE) return EINVAL;
      params.temp_preferred_lifetime = v;
      return 0;
    },
    0,
  );
  t.int(
    ip6('tempvltime'),
    'Valid lifetime of temporary addresses, seconds',
    () => params.temp_valid_lifetime,
    (v) => {
      if (v < params.temp_preferred_lifetime) return EINVAL;
      params.temp_valid_lifetime = v;
      return 0;
    },
    0,
  );
  t.intField(
    ip6('stableaddr_maxretries'),
    'Number of stable addresses to try after duplicates',
    params,
    'stableaddr_maxretries',
    0,
    255,
  );
  t.intField(
    ip6('stableaddr_netifsource'),
    'Name of the interface in stable addresses: 0 its name, 1 its index, 2 its Ethernet address',
    params,
    'stableaddr_netifsource',
    STABLEADDR_NETIFSRC_NAME,
    STABLEADDR_NETIFSRC_MAC,
  );
}

function frag6Sysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const f = V_frag6(vnet);
  const rows = [
    ['maxfragpackets', 'Maximum number of packets in reassembly; -1: no limit', -1],
    ['maxfrags', 'Maximum number of fragments in all reassembly queues; -1: no limit', -1],
    ['maxfragbucketsize', 'Maximum number of packets in reassembly per hash bucket', 0],
    ['maxfragsperpacket', 'Maximum number of fragments per packet', 0],
  ] as const;
  for (const [leaf, descr, min] of rows) t.intField(`net.inet6.ip6.${leaf}`, descr, f, leaf, min);
  t.int('net.inet6.ip6.fragpackets', 'Packets in reassembly', () => f.fragpackets, null);
  t.int('net.inet6.ip6.frags', 'Fragments in reassembly queues', () => f.frags, null);
}

function icmp6Sysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_icmp6(vnet);
  const nd = V_nd6(vnet).params;
  const icmp6 = (name: string): string => `net.inet6.icmp6.${name}`;
  t.intField(
    icmp6('errppslimit'),
    'Maximum number of ICMPv6 error messages per second; -1: no limit',
    params,
    'errppslimit',
    -1,
  );
  for (const [leaf, descr, min, max] of ND6_ROWS)
    t.intField(icmp6(leaf), descr, nd, leaf, min, max);
  t.int(
    icmp6('nd6_maxnudhint'),
    'Reachability hints of TCP between two solicited advertisements',
    () => nd.nd6_maxnudhint,
    (v) => nd6SetMaxnudhint(vnet, v),
    0,
    1e6,
  );
  t.intField(icmp6('rediraccept'), 'Accept ICMPv6 redirect messages', params, 'rediraccept', 0, 1);
  t.intField(
    icmp6('redirtimeout'),
    'Delay in seconds before expiring redirect route',
    params,
    'redirtimeout',
    1,
  );
}

/** Neighbour discovery: leaf, description, minimum and maximum. */
const ND6_ROWS = [
  ['nd6_prune', 'Frequency in seconds of checks for expired prefixes and routers', 0, 1e6],
  ['nd6_delay', 'Delay in seconds before probing for reachability', 0, 1e6],
  ['nd6_umaxtries', 'Solicitations to a neighbour without a reply', 1, 1000],
  ['nd6_mmaxtries', 'Number of multicast neighbour solicitations without a reply', 1, 1000],
  ['nd6_useloopback', 'Create a loopback route when configuring an IPv6 address', 0, 1],
  ['nd6_gctimer', 'Seconds until an unused neighbour is removed; 0: never', 0, 1e9],
  ['nd6_maxqueuelen', 'Number of packets to hold per neighbour', 0, 1024],
  ['nd6_debug', 'Log NDP debug messages', 0, 1],
  ['nd6_onlink_ns_rfc4861', 'Accept solicitations from addresses that are not on-link', 0, 1],
] as const;

function mldSysctls(vnet: Vnet): void {
  const t = vnet.sysctl;
  const { params } = V_mld(vnet);
  const mldBools = [
    ['v1enable', 'Enable fallback to MLDv1'],
    ['v2enable', 'Enable MLDv2'],
    ['use_allow', 'Use ALLOW/BLOCK for RFC 4604 SSM joins/leaves'],
  ] as const;
  for (const [leaf, descr] of mldBools) t.boolField(`net.inet6.mld.${leaf}`, descr, params, leaf);
  t.intField(
    'net.inet6.mld.gsrdelay',
    'Rate limit for MLDv2 Group-and-Source queries in seconds',
    params,
    'gsrdelay',
    -1,
    59,
  );
  const { mcast } = V_ip6(vnet);
  const mc = (name: string): string => `net.inet6.ip6.mcast.${name}`;
  t.intField(mc('maxgrpsrc'), 'Max source filters per group', mcast, 'maxgrpsrc', 1);
  t.intField(mc('maxsocksrc'), 'Max source filters per socket', mcast, 'maxsocksrc', 1);
  t.boolField(mc('loop'), 'Loopback multicast datagrams by default', mcast, 'loop');
}

/** Adds net.inet6.* and TCP's segment sizes over IPv6. */
export function in6Sysctls(vnet: Vnet): void {
  ip6Sysctls(vnet);
  autoconfSysctls(vnet);
  frag6Sysctls(vnet);
  icmp6Sysctls(vnet);
  mldSysctls(vnet);
}
