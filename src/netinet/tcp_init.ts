/**
 * Starts TCP in a stack, after tcp_init of sys/netinet/tcp_subr.c: selects the function block,
 * creates the sysctls under net.inet.tcp (names and defaults of FreeBSD 14) and registers one
 * protocol switch per address family.
 */

import { KASSERT } from '../sys/kassert.ts';
import { mbufZones } from '../kern/kern_mbuf.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ccAvailable, ccFind, cc_register_algo, ccSetDefault } from './cc.ts';
import { cubic_cc_algo } from './cc_cubic.ts';
import { newreno_cc_algo } from './cc_newreno.ts';
import { tcp_fastopen_init } from './tcp_fastopen.ts';
import { tcp_hc_init } from './tcp_hostcache.ts';
import { tcp_do_segment } from './tcp_do_segment.ts';
import { tcp_output } from './tcp_output.ts';
import { SYNCACHE_HASHSIZE, syncacheCount } from './tcp_syncache.ts';
import { tcp_timer } from './tcp_timeout.ts';
import { tcpProtosw } from './tcp_usrreq.ts';
import { type TcpFunctionBlock, type TcpParams, type TcpVnet, V_tcp } from './tcp_var.ts';

/** The only TCP function block. @see tcp_functions(9) */
const tcp_def_funcblk: TcpFunctionBlock = {
  tfb_tcp_block_name: 'freebsd',
  tfb_tcp_output: tcp_output,
  tfb_tcp_do_segment: tcp_do_segment,
  tfb_tcp_timer: tcp_timer,
};

type NumberParam = {
  [K in keyof TcpParams]: TcpParams[K] extends number ? K : never;
}[keyof TcpParams];
type BoolParam = {
  [K in keyof TcpParams]: TcpParams[K] extends boolean ? K : never;
}[keyof TcpParams];

/** Name below net.inet.tcp, field of TcpParams, minimum, maximum, description. */
type IntSysctl = readonly [string, NumberParam, number, number, string];

const HS = 'cc.hystartplusplus';
const MAX = 0x7fffffff;
// Times in microseconds.
const hystart: readonly IntSysctl[] = [
  [`${HS}.minrtt_thresh`, 'hystart_minrtt_thresh', 1, MAX, 'Minimum RTT increase threshold'],
  [`${HS}.maxrtt_thresh`, 'hystart_maxrtt_thresh', 1, MAX, 'Maximum RTT increase threshold'],
  [`${HS}.n_rttsamples`, 'hystart_n_rttsamples', 1, MAX, 'RTT samples required per round'],
  [
    `${HS}.css_growth_div`,
    'hystart_css_growth_div',
    1,
    MAX,
    'Divisor of the window growth during CSS',
  ],
  [`${HS}.css_rounds`, 'hystart_css_rounds', 1, MAX, 'Number of rounds that CSS lasts'],
];

const ints: readonly IntSysctl[] = [
  ['mssdflt', 'mssdflt', 216, 65495, 'Default TCP Maximum Segment Size'],
  ['minmss', 'minmss', 88, 65495, 'Minimum TCP Maximum Segment Size'],
  [
    'rfc1323',
    'rfc1323',
    0,
    3,
    '0: off, 1: window scaling and timestamps, 2: scaling, 3: timestamps',
  ],
  [
    'isn_reseed_interval',
    'isn_reseed_interval',
    0,
    0x7fffffff,
    'Seconds between reseeding of ISN secret',
  ],
  [
    'cc.newreno.beta',
    'newreno_beta',
    1,
    100,
    'New Reno beta, specified as number between 1 and 100',
  ],
  [
    'cc.newreno.beta_ecn',
    'newreno_beta_ecn',
    1,
    100,
    'New Reno beta ecn, specified as number between 1 and 100',
  ],
  ['abc_l_var', 'abc_l_var', 1, 100, 'Cap the max cwnd increment during slow-start'],
  ['initcwnd_segments', 'initcwnd_segments', 0, 1000, 'Slow-start flight size in segments'],
  ...hystart,
  ['sendspace', 'sendspace', 1, 0x7fffffff, 'Initial send socket buffer size'],
  ['recvspace', 'recvspace', 1, 0x7fffffff, 'Initial receive socket buffer size'],
  ['sendbuf_inc', 'sendbuf_inc', 1, 0x7fffffff, 'Incrementor step size of automatic send buffer'],
  ['sendbuf_max', 'sendbuf_max', 1, 0x7fffffff, 'Max size of automatic send buffer'],
  ['recvbuf_max', 'recvbuf_max', 1, 0x7fffffff, 'Max size of automatic receive buffer'],
  ['delacktime', 'delacktime', 1, 1000, 'Time before a delayed ACK is sent'],
  ['msl', 'msl', 1, 0x7fffffff, 'Maximum segment lifetime'],
  ['keepinit', 'keepinit', 1, 0x7fffffff, 'Time to establish connection'],
  ['keepidle', 'keepidle', 1, 0x7fffffff, 'Time before keepalive probes begin'],
  ['keepintvl', 'keepintvl', 1, 0x7fffffff, 'Time between keepalive probes'],
  ['keepcnt', 'keepcnt', 1, 0x7fffffff, 'Number of keepalive probes to send'],
  ['maxunacktime', 'maxunacktime', 0, 0x7fffffff, 'Maximum time without acknowledgment'],
  ['persmin', 'persmin', 1, 0x7fffffff, 'minimum persistence interval'],
  ['persmax', 'persmax', 1, 0x7fffffff, 'maximum persistence interval'],
  ['finwait2_timeout', 'finwait2_timeout', 1, 0x7fffffff, 'FIN-WAIT2 timeout'],
  ['rexmit_initial', 'rexmit_initial', 1, 64000, 'Initial Retransmission Timeout'],
  ['rexmit_min', 'rexmit_min', 1, 64000, 'Minimum Retransmission Timeout'],
  ['rexmit_slop', 'rexmit_slop', 0, 64000, 'Retransmission Timer Slop'],
  ['retries', 'retries', 1, 12, 'maximum number of consecutive timer based retransmissions'],
  [
    'pmtud_blackhole_detection',
    'pmtud_blackhole_detection',
    0,
    3,
    'Path MTU Discovery Black Hole Detection Enabled',
  ],
  [
    'pmtud_blackhole_mss',
    'pmtud_blackhole_mss',
    216,
    65495,
    'Path MTU Discovery Black Hole Detection lowered MSS',
  ],
  ['blackhole', 'blackhole', 0, 3, 'Do not send RST on segments to closed ports'],
  ['log_in_vain', 'log_in_vain', 0, 2, 'Log all incoming TCP segments to closed ports'],
  ['ack_war_timewindow', 'ack_war_timewindow', 0, 0x7fffffff, 'Time interval for ack_war_cnt'],
  ['ack_war_cnt', 'ack_war_cnt', 0, 0x7fffffff, 'Maximum number of challenge ACKs sent'],
  ['reass.maxqueuelen', 'reass_maxqueuelen', 0, 0x7fffffff, 'Segments per reassembly queue'],
  ['sack.maxholes', 'sack_maxholes', 0, 0x7fffffff, 'Maximum number of TCP SACK holes allowed'],
  [
    'sack.globalmaxholes',
    'sack_globalmaxholes',
    0,
    0x7fffffff,
    'Global maximum number of TCP SACK holes',
  ],
  ['ecn.enable', 'ecn_enable', 0, 4, 'TCP ECN support'],
  ['ecn.maxretries', 'ecn_maxretries', 0, 12, 'Max retries before giving up on ECN'],
  ['syncache.rexmtlimit', 'syncache_rexmtlimit', 0, 12, 'Limit on SYN/ACK retransmissions'],
];

const bools: readonly (readonly [string, BoolParam, string])[] = [
  ['log_debug', 'log_debug', 'Log errors caused by incoming TCP segments'],
  ['rfc3042', 'rfc3042', 'Enable RFC 3042 (Limited Transmit)'],
  ['rfc3390', 'rfc3390', 'Enable RFC 3390 (Increasing TCP initial window)'],
  ['rfc3465', 'rfc3465', 'Enable RFC 3465 (Appropriate Byte Counting)'],
  ['sack.enable', 'sack_enable', 'Enable/Disable TCP SACK support'],
  ['sack.revised', 'sack_revised', 'Use revised SACK loss recovery per RFC 6675'],
  ['sack.lrd', 'sack_lrd', 'Perform Lost Retransmission Detection'],
  ['do_prr', 'do_prr', 'Enable Proportional Rate Reduction per RFC 6937'],
  ['sendbuf_auto', 'sendbuf_auto', 'Enable automatic send buffer sizing'],
  ['sendbuf_auto_lowat', 'sendbuf_auto_lowat', 'Modify threshold for auto send buffer growth'],
  ['recvbuf_auto', 'recvbuf_auto', 'Enable automatic receive buffer sizing'],
  ['delayed_ack', 'delayed_ack', 'Delay ACK to try and piggyback it onto a data packet'],
  ['always_keepalive', 'always_keepalive', 'Assume SO_KEEPALIVE on all TCP connections'],
  ['fast_finwait2_recycle', 'fast_finwait2_recycle', 'Recycle closed FIN_WAIT_2 faster'],
  ['tso', 'tso', 'Enable TCP Segmentation Offload'],
  ['path_mtu_discovery', 'path_mtu_discovery', 'Enable Path MTU Discovery'],
  ['drop_synfin', 'drop_synfin', 'Drop TCP packets with SYN+FIN set'],
  ['blackhole_local', 'blackhole_local', 'Enforce blackhole for locally originated packets'],
  ['insecure_rst', 'insecure_rst', 'Follow RFC793 instead of RFC5961 criteria for accepting RST'],
  ['insecure_syn', 'insecure_syn', 'Follow RFC793 instead of RFC5961 criteria for accepting SYN'],
  ['insecure_ack', 'insecure_ack', 'Follow RFC793 criteria for validating SEG.ACK'],
  ['nolocaltimewait', 'nolocaltimewait', 'Do not create TIME_WAIT for local connections'],
  ['ts_offset_per_conn', 'ts_offset_per_conn', 'Initialize TCP timestamps per connection'],
  ['cc.abe', 'abe', 'Alternative Backoff with ECN, RFC 8511'],
  ['cc.abe_frlossreduce', 'abe_frlossreduce', 'Also apply beta when a loss follows an ECN mark'],
  ['tolerate_missing_ts', 'tolerate_missing_ts', 'Tolerate missing TCP timestamps'],
  [
    'rexmit_drop_options',
    'rexmit_drop_options',
    'Drop TCP options from 3rd and later retransmitted SYN',
  ],
  ['icmp_may_rst', 'icmp_may_rst', 'ICMP unreachable may abort connections in SYN_SENT'],
  ['syncookies', 'syncookies', 'Use TCP SYN cookies if the syncache overflows'],
  ['syncookies_only', 'syncookies_only', 'Use only TCP SYN cookies'],
  ['syncache.rst_on_sock_fail', 'syncache_rst_on_sock_fail', 'Send reset on socket failure'],
];

/** The table that sysctl net.inet.tcp.functions_available prints. */
function stacks(tcp: TcpVnet): string {
  const column = (text: string): string => text.padEnd(32);
  const { tfb_tcp_block_name: block } = tcp.functions!;
  return [
    '',
    `${column('Stack')}D ${column('Alias')} PCB count`,
    `${column(block)}* ${column(block)} ${tcp.tcbinfo.ipi_count}`,
    '',
  ].join('\n');
}

function sysctls(vnet: Vnet, tcp: TcpVnet): void {
  const tree = vnet.sysctl;
  const { params } = tcp;
  const name = (leaf: string): string => `net.inet.tcp.${leaf}`;
  for (const [leaf, key, min, max, descr] of ints)
    tree.intField(name(leaf), descr, params, key, min, max);
  for (const [leaf, key, descr] of bools) tree.boolField(name(leaf), descr, params, key);
  const ro = (leaf: string, descr: string, get: () => number): void =>
    tree.int(name(leaf), descr, get, null);
  ro('reass.maxsegments', 'Global maximum of queued segments', () => params.reass_maxsegments);
  ro('reass.cursegments', 'Segments queued now', () => tcp.reassSegments);
  ro('syncache.hashsize', 'Size of TCP syncache hashtable', () => SYNCACHE_HASHSIZE);
  ro('syncache.bucketlimit', 'Per-bucket hash limit', () => params.syncache_bucketlimit);
  ro('syncache.cachelimit', 'Overall entry limit', () => params.syncache_cachelimit);
  ro('syncache.count', 'Current number of entries', () => syncacheCount(tcp));
  ro('pcbcount', 'Number of active PCBs', () => tcp.tcbinfo.ipi_count);
  ro(
    'sack.globalholes',
    'Global number of TCP SACK holes currently allocated',
    () => tcp.sackHoles,
  );
  tree.string(
    name('cc.algorithm'),
    'Default congestion control algorithm',
    () => tcp.ccAlgo!.name,
    (v) => ccSetDefault(tcp, v),
  );
  tree.string(name('cc.available'), 'List of congestion control algorithms', () =>
    ccAvailable(tcp),
  );
  tree.string(name('functions_available'), 'List of available TCP stacks', () => stacks(tcp));
  tree.string(
    name('functions_default'),
    'Default TCP stack',
    () => tcp.functions!.tfb_tcp_block_name,
  );
  tree.counters(name('states'), 'TCP connection counts by state', () => [...tcp.states], null);
}

/**
 * Initializes TCP in a stack, without protocol switches. tcpAttach calls it once per Vnet.
 * @see sys/netinet/tcp_subr.c
 */
function tcp_init(vnet: Vnet): void {
  const tcp = V_tcp(vnet);
  KASSERT(tcp.functions === null, 'tcp_init: called twice');
  tcp.functions = tcp_def_funcblk;
  for (const algo of [newreno_cc_algo, cubic_cc_algo]) cc_register_algo(algo);
  tcp.ccAlgo = ccFind('cubic');
  tcp.params.reass_maxsegments = Math.floor(mbufZones().clust.max / 16);
  sysctls(vnet, tcp);
  tcp_hc_init(tcp);
  tcp_fastopen_init(vnet);
}

/**
 * Registers TCP sockets of a family; the first call in a stack also runs tcp_init. The family's
 * domain calls it while it attaches. The domain itself registers tcp_input with its IP layer.
 */
export function tcpAttach(vnet: Vnet, family: number): void {
  if (V_tcp(vnet).functions === null) tcp_init(vnet);
  vnet.protosw.push(tcpProtosw(family));
}
