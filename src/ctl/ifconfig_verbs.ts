/**
 * The words of ifconfig(8) that change an interface: create, destroy, up, down, mtu, ether,
 * addresses, the words of vlan(4) and lagg(4), and capabilities. All words are parsed before any
 * change; then they are applied in FreeBSD's order, an address last. Error messages are FreeBSD's.
 * The words after `inet6` are in ifconfig_inet6.ts. Left out: broadcast addresses other than the
 * network's, media, metrics, groups, renaming.
 */

import { type Errno, errnoName } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { type InAddr, inAddr } from '../sys/types.ts';
import type { Vnet } from '../kern/vnet.ts';
import { if_setlladdr, ifhwioctl, ifSwitchCapabilities, ifunit } from '../net/if.ts';
import { if_clone_create, if_clone_destroy, ifCloned } from '../net/if_clone.ts';
import {
  lagg_port_create,
  lagg_port_destroy,
  laggInfo,
  laggProtos,
  laggSetProto,
} from '../net/if_lagg.ts';
import { vlan_config, vlan_unconfig, vlanInfo } from '../net/if_vlan.ts';
import { ETHER_ADDR_LEN, IFF_UP, type Ifnet, SIOCSIFFLAGS, SIOCSIFMTU } from '../net/if_var.ts';
import { maskPrefix, parseInAddr } from '../netinet/in.ts';
import { arpTable } from '../netinet/if_ether.ts';
import { classPrefix } from '../netinet/in_family.ts';
import { inConfigure, inPendings } from '../netinet/in_acd.ts';
import { in_difaddr } from '../netinet/in_ifaddr.ts';
import { inPrimary } from '../netinet/in_var.ts';
import { parseCapability } from './bits.ts';
import { findInterface, gatherInterface, type InterfaceInfo } from './ifconfig.ts';
import {
  checkInet6Words,
  type Inet6Words,
  nd6SetFlags,
  nd6Word,
  newInet6Words,
  readInet6Word,
  setInet6,
} from './ifconfig_inet6.ts';
import { ControlFailure } from './protocol.ts';
import { strerror } from './strerror.ts';

function fail(code: string, message: string): never {
  throw new ControlFailure(code, message);
}

/** Throws ifconfig's message for a failed ioctl. @param call the ioctl, as ifconfig names it */
function check(error: Errno, call: string): void {
  if (error === 0) return;
  fail(errnoName(error), `${call}: ${strerror(error)}`);
}

/** The address of a command line, and the operation on it. */
interface AddrWords {
  /** Null: the interface's first address. */
  addr: InAddr | null;
  prefixlen: number | null;
  /** `set` replaces the first address. */
  does: 'set' | 'alias' | 'delete';
}

/** A parsed command line. */
interface Plan {
  create: boolean;
  destroy: boolean;
  vlan: number | null;
  vlandev: string | null;
  /** The other changes, in order. */
  readonly steps: ((ifp: Ifnet) => void)[];
  /** The family of the following words. */
  family: 'inet' | 'inet6';
  address: AddrWords | null;
  inet6: Inet6Words | null;
}

/** The remaining words. */
class Words {
  readonly #words: readonly string[];
  #at = 0;

  constructor(words: readonly string[]) {
    this.#words = words;
  }

  next(): string | undefined {
    return this.#words[this.#at++];
  }

  peek(): string | undefined {
    return this.#words[this.#at];
  }

  /** The argument of `verb`. */
  arg(verb: string): string {
    return this.next() ?? fail('EINVAL', `'${verb}' requires argument`);
  }
}

function readAddress(plan: Plan, word: string): void {
  const [text = '', bits] = word.split('/', 2);
  const addr = parseInAddr(text);
  if (addr === null) fail('EINVAL', `${word}: bad value`);
  if (bits !== undefined && (!/^\d{1,2}$/.test(bits) || Number(bits) > 32))
    fail('EINVAL', `${bits}: bad value`);
  const address = addressOf(plan);
  address.addr = addr;
  address.prefixlen = bits === undefined ? null : Number(bits);
}

function addressOf(plan: Plan): AddrWords {
  return (plan.address ??= { addr: null, prefixlen: null, does: 'set' });
}

/** Parses a mask, `255.255.255.0` or `0xffffff00`. Returns its prefix length. */
function readMask(text: string): number {
  const mask = /^0x[0-9a-f]{1,8}$/i.test(text) ? inAddr(Number(text)) : parseInAddr(text);
  const prefixlen = mask === null ? -1 : maskPrefix(mask);
  return prefixlen < 0 ? fail('EINVAL', `${text}: bad value`) : prefixlen;
}

function readEther(text: string): Uint8Array {
  const parts = text.split(':');
  const bytes = parts.map((part) => (/^[0-9a-f]{1,2}$/i.test(part) ? parseInt(part, 16) : -1));
  if (bytes.length !== ETHER_ADDR_LEN || bytes.includes(-1)) fail('EINVAL', `${text}: bad value`);
  return Uint8Array.from(bytes);
}

function readVlan(text: string): number {
  if (!/^\d+$/.test(text)) fail('EINVAL', 'invalid value for vlan');
  if (Number(text) > 0xfff) fail('EINVAL', 'value for vlan out of range');
  return Number(text);
}

function setUp(ifp: Ifnet, up: boolean): void {
  const flags = up ? ifp.if_flags | IFF_UP : ifp.if_flags & ~IFF_UP;
  check(ifhwioctl(ifp, SIOCSIFFLAGS, flags), 'ioctl (SIOCSIFFLAGS)');
}

function laggPort(ifp: Ifnet, name: string, add: boolean): void {
  const port = ifunit(ifp.if_vnet, name);
  const call = add ? `${ifp.if_xname} ${name}: SIOCSLAGGPORT` : 'SIOCSLAGGDELPORT';
  if (laggInfo(ifp) === null) fail('EOPNOTSUPP', `${call}: Operation not supported`);
  if (port === null) fail('ENXIO', `${call}: Device not configured`);
  if (!add) check(lagg_port_destroy(ifp, port), call);
  // Adding an existing port is not an error, so that a command can be repeated.
  else if (port.if_lagg?.laggIfp !== ifp) check(lagg_port_create(ifp, port), call);
}

/** Parses a word of vlan(4) or lagg(4). False if it is another word. */
function readStacked(plan: Plan, word: string, words: Words): boolean {
  switch (word) {
    case 'vlan':
      plan.vlan = readVlan(words.arg(word));
      return true;
    case 'vlandev':
      plan.vlandev = words.arg(word);
      return true;
    case '-vlandev':
      // An argument is allowed and ignored if it is the name of an interface.
      if (/^[a-z]+\d+$/.test(words.peek() ?? '')) words.next();
      plan.steps.push((ifp) => {
        if (vlanInfo(ifp) === null) fail('EINVAL', 'SIOCGETVLAN: Invalid argument');
        vlan_unconfig(ifp);
      });
      return true;
    case 'laggproto': {
      const proto = words.arg(word);
      if (!(laggProtos as readonly string[]).includes(proto))
        fail('EPROTONOSUPPORT', `Invalid aggregation protocol: ${proto}`);
      plan.steps.push((ifp) => check(laggSetProto(ifp, proto), 'SIOCSLAGG'));
      return true;
    }
    case 'laggport':
    case '-laggport': {
      const name = words.arg(word);
      plan.steps.push((ifp) => laggPort(ifp, name, word === 'laggport'));
      return true;
    }
    default:
      return false;
  }
}

/** Parses a word of the part after `inet6`. */
function readInet6(vnet: Vnet, plan: Plan, word: string, words: Words): void {
  const nd6 = nd6Word(word);
  if (nd6 !== null)
    plan.steps.push((ifp) => check(nd6SetFlags(ifp, nd6), 'ioctl (SIOCSIFINFO_IN6)'));
  else readInet6Word(vnet, (plan.inet6 ??= newInet6Words()), word, (verb) => words.arg(verb));
}

/** Parses one word and its argument. */
function readWord(vnet: Vnet, plan: Plan, word: string, words: Words): void {
  const { steps } = plan;
  if (readStacked(plan, word, words)) return;
  switch (word) {
    case 'inet6':
      plan.family = word;
      return;
    case 'destroy':
    case 'unplumb':
      plan.destroy = true;
      return;
    case 'up':
    case 'down':
      steps.push((ifp) => setUp(ifp, word === 'up'));
      return;
    case 'mtu': {
      const text = words.arg(word);
      if (!/^\d{1,9}$/.test(text)) fail('EINVAL', `${text}: bad value`);
      steps.push((ifp) =>
        check(ifhwioctl(ifp, SIOCSIFMTU, Number(text)), 'ioctl SIOCSIFMTU (set mtu)'),
      );
      return;
    }
    case 'ether':
    case 'link':
    case 'lladdr': {
      const lladdr = readEther(words.arg(word));
      steps.push((ifp) => setEther(ifp, lladdr));
      return;
    }
    case 'inet':
      plan.family = word;
      addressOf(plan);
      if (words.peek() !== undefined && parseInAddr(words.peek()!.split('/')[0]!) !== null)
        readAddress(plan, words.next()!);
      return;
    default:
      readOther(vnet, plan, word, words);
  }
}

/** Parses a word about an address, or a capability. */
function readOther(vnet: Vnet, plan: Plan, word: string, words: Words): void {
  const change = parseCapability(word);
  if (change !== null) {
    plan.steps.push((ifp) => check(ifSwitchCapabilities(ifp, change.bits, change.on), word));
    return;
  }
  if (plan.family === 'inet6') return readInet6(vnet, plan, word, words);
  switch (word) {
    case 'netmask':
      addressOf(plan).prefixlen = readMask(words.arg(word));
      return;
    case 'alias':
    case 'add':
      addressOf(plan).does = 'alias';
      return;
    case '-alias':
    case 'delete':
    case 'remove':
      addressOf(plan).does = 'delete';
      return;
    default:
      readAddress(plan, word);
  }
}

function readPlan(vnet: Vnet, list: readonly string[]): Plan {
  const words = new Words(list);
  const plan: Plan = {
    create: false,
    destroy: false,
    vlan: null,
    vlandev: null,
    steps: [],
    family: 'inet',
    address: null,
    inet6: null,
  };
  if (words.peek() === 'create' || words.peek() === 'plumb') {
    plan.create = true;
    words.next();
  }
  for (let word = words.next(); word !== undefined; word = words.next())
    readWord(vnet, plan, word, words);
  const { address, inet6 } = plan;
  if (inet6 !== null) checkInet6Words(inet6);
  if (address !== null && address.addr === null && address.does !== 'delete')
    fail('EINVAL', "'inet' requires an address");
  return plan;
}

/**
 * Sets the link-level address. EOPNOTSUPP: the interface has no ARP, or it is a vlan(4) or a port of
 * a lagg(4), which use the address of another interface.
 */
function setEther(ifp: Ifnet, lladdr: Uint8Array): void {
  const call = 'ioctl (SIOCSIFLLADDR)';
  if (arpTable(ifp) === null || vlanInfo(ifp) !== null || ifp.if_lagg !== null)
    fail('EOPNOTSUPP', `${call}: Operation not supported`);
  if ((lladdr[0]! & 1) !== 0) fail('EINVAL', `${call}: Invalid argument`);
  check(if_setlladdr(ifp, lladdr), call);
}

function create(vnet: Vnet, name: string, plan: Plan): Ifnet {
  const { vlan, vlandev } = plan;
  const isVlan = vlan !== null || vlandev !== null;
  if (isVlan && vlan === null) fail('EINVAL', 'must specify a tag for vlan create');
  if (isVlan && vlandev === null) fail('EINVAL', 'must specify a parent device for vlan create');
  const params = isVlan ? { vlr_tag: vlan, vlr_parent: vlandev } : null;
  const error = if_clone_create(vnet, name, params);
  if (errnoName(error) === 'EEXIST') fail('EEXIST', `interface ${name} already exists`);
  check(error, `SIOCIFCREATE2 (${name})`);
  return ifCloned.ifp!;
}

/** Applies `vlan 100 vlandev tn0` to an existing interface. */
function setVlan(ifp: Ifnet, plan: Plan): void {
  const { vlan, vlandev } = plan;
  if (vlan === null && vlandev === null) return;
  if (vlan === null || vlandev === null) fail('EINVAL', 'both vlan and vlandev must be specified');
  const parent = ifunit(ifp.if_vnet, vlandev);
  const now = vlanInfo(ifp);
  if (now === null) fail('EINVAL', 'SIOCSETVLAN: Invalid argument');
  if (parent === null) fail('ENXIO', 'SIOCSETVLAN: Device not configured');
  if (now.parent !== vlandev || now.vlan !== vlan)
    check(vlan_config(ifp, parent, vlan), 'SIOCSETVLAN');
}

function setAddress(ifp: Ifnet, { addr, prefixlen, does }: AddrWords): void {
  const first = inPrimary(ifp)?.ia_addr ?? inPendings(ifp)[0]?.addr ?? null;
  if (does === 'delete') {
    const which = addr ?? first;
    if (which === null)
      fail('EADDRNOTAVAIL', "ioctl (SIOCDIFADDR): Can't assign requested address");
    check(in_difaddr(ifp, which), 'ioctl (SIOCDIFADDR)');
    return;
  }
  if (does === 'set' && first !== null) check(in_difaddr(ifp, first), 'ioctl (SIOCDIFADDR)');
  check(inConfigure(ifp, addr!, prefixlen ?? classPrefix(addr!)), 'ioctl (SIOCAIFADDR)');
}

/**
 * Executes `ifconfig NAME WORDS...` and returns the resulting interface; null after `destroy`.
 * Throws ControlFailure with ifconfig's message. If a word is invalid, nothing was changed; if a
 * change fails, the changes before it stay.
 * @see ifconfig(8)
 */
export function runIfconfig(
  vnet: Vnet,
  name: string,
  words: readonly string[],
): InterfaceInfo | null {
  return inPass(runInPass, vnet, name, readPlan(vnet, words));
}

function runInPass(vnet: Vnet, name: string, plan: Plan): InterfaceInfo | null {
  if (plan.create) {
    const ifp = create(vnet, name, plan);
    carryOut(ifp, plan);
    return gatherInterface(ifp);
  }
  const ifp = findInterface(vnet, name);
  if (plan.destroy) {
    check(if_clone_destroy(ifp), 'SIOCIFDESTROY');
    return null;
  }
  setVlan(ifp, plan);
  carryOut(ifp, plan);
  return gatherInterface(ifp);
}

function carryOut(ifp: Ifnet, { steps, address, inet6 }: Plan): void {
  for (const step of steps) step(ifp);
  if (address !== null) setAddress(ifp, address);
  if (inet6 !== null) setInet6(ifp, inet6);
}
