/**
 * Duplicate address detection, after sys/netinet6/nd6_nbr.c: RFC 4862, 5.4, with the nonce of RFC 7527. A
 * tentative address neither sends nor receives, except for these messages. Left out: optimistic addresses
 * (RFC 4429), which FreeBSD does not have either.
 */

import { NetAddr } from '../sys/addr.ts';
import type { Task } from '../sys/clock.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { answersForAddresses, VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ifConsole } from '../net/if.ts';
import { IFF_DRV_RUNNING, IFF_LOOPBACK, IFF_UP, type Ifnet, IFT_ETHER } from '../net/if_var.ts';
import { mem } from '../vm/arena.ts';
import { in6addr_any, IN6_IS_ADDR_LINKLOCAL } from './in6.ts';
import { in6RouteNotSelf, in6RouteToSelf } from './in6_fib.ts';
import { hwIfid } from './in6_ifid.ts';
import {
  IN6_IFF_ANYCAST,
  IN6_IFF_DUPLICATED,
  IN6_IFF_TENTATIVE,
  in6Enabled,
  in6Ifextra,
  type In6Ifaddr,
  isIn6Ifaddr,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_DAD,
} from './in6_var.ts';
import { V_ip6 } from './ip6_var.ts';
import { nd6_add_ifa_lle, nd6_rem_ifa_lle } from './nd6.ts';
import { ND_OPT_NONCE_LEN } from './nd6_options.ts';
import { nd6_ns_output } from './nd6_output.ts';
import { nd6Logs, V_nd6 } from './nd6_var.ts';
import { ip6_sprintf } from './scope6.ts';

const MS = 1e6;
/** The longest random delay before the first solicitation: MAX_RTR_SOLICITATION_DELAY, 1 s. */
const MAX_DELAY_NS = 1e9;

/** How the detection of an address ended. */
type DadOutcome = 'ready' | 'duplicated' | 'removed';

/** The detection of one address. */
class Dadq implements Task {
  readonly dad_ifa: In6Ifaddr;
  /** Solicitations to send, and sent. */
  dad_count: number;
  dad_ns_ocount = 0;
  /** Received: solicitations and advertisements of others, own solicitations that were looped back. */
  dad_ns_icount = 0;
  dad_na_icount = 0;
  dad_ns_lcount = 0;
  /** The value of dad_ns_lcount when more solicitations were sent because of it. */
  dad_loopbackprobe = 0;
  /** The nonce of the last solicitation. */
  readonly dad_nonce = new Uint8Array(ND_OPT_NONCE_LEN);
  readonly dad_timer_ch = new Callout(this);

  constructor(ia: In6Ifaddr, count: number) {
    this.dad_ifa = ia;
    this.dad_count = count;
  }

  run(): void {
    nd6_dad_timer(this);
  }
}

/** A caller that waits for the end of a detection. */
interface DadWait {
  readonly ia: In6Ifaddr;
  readonly done: (outcome: DadOutcome) => void;
}

const V_dad = VNET_DEFINE(() => ({ dadq: [] as Dadq[], waits: [] as DadWait[] }));

function vnetOf(ia: In6Ifaddr): Vnet {
  return ia.ifa_ifp.if_vnet;
}

function find(ia: In6Ifaddr): Dadq | null {
  const { dadq } = V_dad(vnetOf(ia));
  for (let i = 0; i < dadq.length; i++) if (dadq[i]!.dad_ifa === ia) return dadq[i]!;
  return null;
}

/** Ends a detection without a result. */
function remove(dp: Dadq): void {
  const { dadq } = V_dad(vnetOf(dp.dad_ifa));
  callout_stop(dp.dad_timer_ch);
  const at = dadq.indexOf(dp);
  if (at >= 0) dadq.splice(at, 1);
}

/** Calls those who wait for `ia`. */
function settle(ia: In6Ifaddr, outcome: DadOutcome): void {
  const v = V_dad(vnetOf(ia));
  const due = v.waits.filter((wait) => wait.ia === ia);
  if (due.length === 0) return;
  v.waits = v.waits.filter((wait) => wait.ia !== ia);
  for (const { done } of due) done(outcome);
}

/**
 * Calls `done` when the detection of the address `ia` has ended: immediately if it has, else inside a
 * pass. The address may be used only if the outcome is 'ready'.
 */
export function nd6DadWait(ia: In6Ifaddr, done: (outcome: DadOutcome) => void): void {
  if ((ia.ia6_flags & IN6_IFF_DUPLICATED) !== 0) done('duplicated');
  else if ((ia.ia6_flags & IN6_IFF_TENTATIVE) === 0) done('ready');
  else V_dad(vnetOf(ia)).waits.push({ ia, done });
}

/** Whether addresses of `ifp` are looked for on the link before they are used. */
function detects(ifp: Ifnet): boolean {
  const { flags } = in6Ifextra(ifp)!.nd_ifinfo;
  const { dad_count } = V_ip6(ifp.if_vnet).params;
  return dad_count > 0 && (flags & ND6_IFF_NO_DAD) === 0 && answersForAddresses(ifp.if_vnet);
}

/**
 * Starts the detection of the tentative address `ia` after `delayNs`. The address is ready immediately if
 * net.inet6.ip6.dad_count is 0, the interface has ND6_IFF_NO_DAD, or it is an anycast address. It stays
 * tentative while the interface is down or disabled: nd6DadAll starts the detection then.
 * @see sys/netinet6/nd6_nbr.c
 */
export function nd6_dad_start(ia: In6Ifaddr, delayNs = 0): void {
  const ifp = ia.ifa_ifp;
  const { dad_count } = V_ip6(ifp.if_vnet).params;
  const anycast = (ia.ia6_flags & IN6_IFF_ANYCAST) !== 0;
  if (anycast || !detects(ifp)) {
    ia.ia6_flags &= ~IN6_IFF_TENTATIVE;
    settle(ia, 'ready');
    return;
  }
  if ((ifp.if_flags & IFF_UP) === 0 || !in6Enabled(ifp) || find(ia) !== null) return;
  if (nd6Logs(ifp.if_vnet)) log(ia, (addr) => `starting DAD for ${addr}`);
  const dp = new Dadq(ia, dad_count);
  V_dad(ifp.if_vnet).dadq.push(dp);
  callout_reset(dp.dad_timer_ch, delayNs);
}

/** Ends the detection of an address that is removed. @see sys/netinet6/nd6_nbr.c */
export function nd6_dad_stop(ia: In6Ifaddr): void {
  const dp = find(ia);
  if (dp !== null) remove(dp);
  settle(ia, 'removed');
}

/** A random delay of the first solicitation, at least `min` of the longest one: RFC 4862, 5.4.2. */
export function nd6DadDelay(vnet: Vnet, min = 0): number {
  return Math.floor((min + (vnet.prng.next32() / 2 ** 32) * (1 - min)) * MAX_DELAY_NS);
}

/**
 * Starts the detection of all tentative addresses of `ifp`: the interface went up, or IPv6 was enabled on
 * it. @see sys/netinet6/in6_ifattach.c, in6.c (there in6_if_up)
 */
export function nd6DadAll(ifp: Ifnet): void {
  for (const ia of ifp.if_addrhead.slice())
    if (isIn6Ifaddr(ia) && (ia.ia6_flags & IN6_IFF_TENTATIVE) !== 0)
      nd6_dad_start(ia, nd6DadDelay(ifp.if_vnet));
}

/**
 * Makes all addresses of `ifp` tentative: the interface went down, or IPv6 was disabled on it. After a
 * time down, duplicates are looked for again. @see sys/netinet6/nd6.c (there nd6_timer, nd6_ioctl)
 */
export function nd6TentativeAll(ifp: Ifnet): void {
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  if (nd === undefined || (ifp.if_flags & IFF_LOOPBACK) !== 0) return;
  for (const ia of ifp.if_addrhead) {
    if (!isIn6Ifaddr(ia)) continue;
    const dp = find(ia);
    if (dp !== null) remove(dp);
    if (!detects(ifp)) continue;
    const duplicated = (ia.ia6_flags & IN6_IFF_DUPLICATED) !== 0;
    if (duplicated && (ifp.if_flags & IFF_UP) !== 0) continue;
    ia.ia6_flags = (ia.ia6_flags & ~IN6_IFF_DUPLICATED) | IN6_IFF_TENTATIVE;
    if (!duplicated) continue;
    in6RouteToSelf(ifp.if_vnet, ia);
    nd6_add_ifa_lle(ia);
  }
}

/** Writes a line about an address to the console. */
function log(ia: In6Ifaddr, text: (addr: string) => string): void {
  const ifp = ia.ifa_ifp;
  ifConsole.log?.(`${ifp.if_xname}: ${text(ip6_sprintf(ifp.if_vnet, ia.ifa_addr))}`);
}

/** Sends one solicitation and starts the timer that waits for replies. */
function probe(dp: Dadq): void {
  const ia = dp.dad_ifa;
  const ifp = ia.ifa_ifp;
  callout_reset(dp.dad_timer_ch, in6Ifextra(ifp)!.nd_ifinfo.retrans * MS);
  // Try again with the next timer if the driver is not running.
  if ((ifp.if_drv_flags & IFF_DRV_RUNNING) === 0) return;
  dp.dad_ns_ocount++;
  const { dad_enhanced } = V_ip6(ifp.if_vnet).params;
  if (dad_enhanced !== 0)
    for (let i = 0; i < ND_OPT_NONCE_LEN; i++) dp.dad_nonce[i] = ifp.if_vnet.prng.next32() >>> 24;
  nd6_ns_output(ifp, in6addr_any, null, ia.ifa_addr, dad_enhanced !== 0 ? dp.dad_nonce : null);
}

/** The timer of a detection: sends the next solicitation or decides. @see sys/netinet6/nd6_nbr.c */
function nd6_dad_timer(dp: Dadq): void {
  const ia = dp.dad_ifa;
  const ifp = ia.ifa_ifp;
  const vnet = ifp.if_vnet;
  if (!in6Enabled(ifp)) {
    remove(dp);
    ifConsole.log?.(`nd6_dad_timer: cancel DAD on ${ifp.if_xname} because of ND6_IFF_IFDISABLED.`);
    return;
  }
  if (dp.dad_ns_ocount < dp.dad_count) return probe(dp);
  if (dp.dad_ns_icount > 0 || dp.dad_na_icount > 0) {
    remove(dp);
    return nd6_dad_duplicated(dp);
  }
  const looped = dp.dad_ns_lcount > 0;
  if (V_ip6(vnet).params.dad_enhanced !== 0 && dp.dad_ns_lcount > dp.dad_loopbackprobe) {
    // RFC 7527, 4.1: probe until no solicitation comes back.
    log(
      ia,
      (addr) =>
        `a looped back NS message is detected during DAD for ${addr}.  Another DAD probes are being sent.`,
    );
    dp.dad_loopbackprobe = dp.dad_ns_lcount;
    dp.dad_count = dp.dad_ns_ocount + Math.max(1, V_nd6(vnet).params.nd6_mmaxtries - 1);
    return probe(dp);
  }
  remove(dp);
  ia.ia6_flags &= ~IN6_IFF_TENTATIVE;
  if (nd6Logs(vnet)) log(ia, (addr) => `DAD complete for ${addr} - no duplicates found`);
  if (looped)
    log(
      ia,
      (addr) => `DAD completed while a looped back NS message is detected during DAD for ${addr}.`,
    );
  settle(ia, 'ready');
}

/** Whether `ia` is the link-local address that the Ethernet address of its interface gives. */
function isHwLinklocal(ia: In6Ifaddr): boolean {
  const { ifa_addr: a, ifa_ifp: ifp } = ia;
  if (!IN6_IS_ADDR_LINKLOCAL(a) || ifp.if_type !== IFT_ETHER) return false;
  const own = new NetAddr();
  hwIfid(ifp, own);
  return a.w2 === own.w2 && a.w3 === own.w3;
}

/** Another host has the address. @see sys/netinet6/nd6_nbr.c */
function nd6_dad_duplicated(dp: Dadq): void {
  const ia = dp.dad_ifa;
  const ifp = ia.ifa_ifp;
  const { dad_ns_icount: i, dad_ns_ocount: o, dad_ns_lcount: l, dad_na_icount: na } = dp;
  log(
    ia,
    (addr) =>
      `DAD detected duplicate IPv6 address ${addr}: NS in/out/loopback=${i}/${o}/${l}, NA in=${na}`,
  );
  ia.ia6_flags = (ia.ia6_flags & ~IN6_IFF_TENTATIVE) | IN6_IFF_DUPLICATED;
  log(ia, (addr) => `DAD complete for ${addr} - duplicate found`);
  ifConsole.log?.(`${ifp.if_xname}: manual intervention required`);
  if (isHwLinklocal(ia)) {
    // RFC 4862, 5.4.5: another host has the same Ethernet address, so nothing can work.
    in6Ifextra(ifp)!.nd_ifinfo.flags |= ND6_IFF_IFDISABLED;
    ifConsole.log?.(
      `${ifp.if_xname}: possible hardware address duplication detected, disable IPv6`,
    );
  }
  // Ours: packets to the address reach the host that has it.
  in6RouteNotSelf(ifp.if_vnet, ia);
  nd6_rem_ifa_lle(ia);
  V_nd6(ifp.if_vnet).dadFailed?.(ia);
  settle(ia, 'duplicated');
}

/** Whether the option at `p` is the nonce of our last solicitation. */
function isOwnNonce(dp: Dadq, p: number): boolean {
  if (p === 0 || dp.dad_ns_ocount === 0 || mem[p + 1]! << 3 !== ND_OPT_NONCE_LEN + 2) return false;
  for (let i = 0; i < ND_OPT_NONCE_LEN; i++) if (mem[p + 2 + i] !== dp.dad_nonce[i]) return false;
  return true;
}

/**
 * A solicitation from `::` for the tentative address `ia` was received. `nonce`: its option in memory; 0:
 * it has none. @see sys/netinet6/nd6_nbr.c
 */
export function nd6_dad_ns_input(ia: In6Ifaddr, nonce: number): void {
  const dp = find(ia);
  if (dp === null) return;
  const enhanced = V_ip6(vnetOf(ia)).params.dad_enhanced !== 0;
  if (enhanced && isOwnNonce(dp, nonce)) dp.dad_ns_lcount++;
  else dp.dad_ns_icount++;
}

/** An advertisement of the tentative address `ia` was received. @see sys/netinet6/nd6_nbr.c */
export function nd6_dad_na_input(ia: In6Ifaddr): void {
  const dp = find(ia);
  if (dp !== null) dp.dad_na_icount++;
}
