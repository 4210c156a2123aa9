/** The words of route(8): options, operation, destination, gateway and modifiers become a RoutePlan. */

import { type AddrWords, NetAddr } from '../sys/addr.ts';
import type { Vnet } from '../kern/vnet.ts';
import { addrFamilies, type AddrFamily } from '../net/addr_family.ts';
import { ControlFailure } from './protocol.ts';

/** A destination: the network of `addr`. */
export interface Destination {
  readonly addr: NetAddr;
  readonly prefixlen: number;
  /** As the user wrote it, without the prefix length. */
  readonly text: string;
}

/** A parsed command line. */
export interface RoutePlan {
  op: 'add' | 'change' | 'delete' | 'get' | 'flush';
  /** Null: all families, for `flush` and `show`. */
  af: AddrFamily | null;
  dst: Destination | null;
  gateway: NetAddr | null;
  gatewayText: string | null;
  /** -interface: the destination is on the link of this interface. */
  byInterface: string | null;
  /** -ifp: the interface by which the gateway must be reached. */
  ifp: string | null;
  /** Bytes; 0: the MTU of the interface. */
  mtu: number;
}

const OPS = new Map<string, RoutePlan['op']>([
  ['add', 'add'],
  ['change', 'change'],
  ['delete', 'delete'],
  ['del', 'delete'],
  ['get', 'get'],
  ['show', 'get'],
  ['flush', 'flush'],
]);

/** The operations, for messages. */
const OP_NAMES = 'add, delete, change, get, show, flush';

/** Largest -mtu. */
const MTU_MAX = 65535;

function fail(message: string): never {
  throw new ControlFailure('EINVAL', `route: ${message}`);
}

/** The words by their meaning; addresses are still texts. */
interface Raw {
  op: RoutePlan['op'] | null;
  af: AddrFamily | null;
  kind: 'net' | 'host' | null;
  byInterface: boolean;
  args: string[];
  netmask: string | null;
  prefixlen: string | null;
  ifp: string | null;
  mtu: string | null;
}

/** The family of an option such as -6 or -inet6; null: not an option of this kind. */
function familyOption(vnet: Vnet, option: string): AddrFamily | null {
  const list = addrFamilies(vnet);
  const af = list.find(({ digit, keyword }) => option === digit || option === keyword);
  if (af === undefined && /^([46]|inet6?)$/.test(option))
    fail(`-${option}: this stack has only ${list.map(({ keyword }) => keyword).join(', ')}`);
  return af ?? null;
}

/** Options that have no effect here: numbers are always printed, and there is one table. */
const IGNORED = new Set(['n', 'q', 'v', 'nq', 'qn', 'static']);

function readOption(vnet: Vnet, raw: Raw, option: string, arg: () => string): void {
  const af = familyOption(vnet, option);
  if (af !== null) {
    if (raw.af !== null && raw.af !== af) fail(`-${option}: two address families`);
    raw.af = af;
    return;
  }
  switch (option) {
    case 'net':
    case 'host':
      raw.kind = option;
      return;
    case 'interface':
    case 'iface':
      raw.byInterface = true;
      return;
    case 'netmask':
    case 'prefixlen':
    case 'ifp':
    case 'mtu':
      raw[option] = arg();
      return;
    case 'dst':
    case 'gateway':
      raw.args[option === 'dst' ? 0 : 1] = arg();
      return;
    case 'fib':
      if (arg() !== '0') fail('-fib: there is only table 0');
      return;
    default:
      if (!IGNORED.has(option)) fail(`bad keyword: -${option}`);
  }
}

function readWords(vnet: Vnet, words: readonly string[]): Raw {
  const raw: Raw = {
    op: null,
    af: null,
    kind: null,
    byInterface: false,
    args: [],
    netmask: null,
    prefixlen: null,
    ifp: null,
    mtu: null,
  };
  for (let at = 0; at < words.length; at++) {
    const word = words[at]!;
    if (word.startsWith('-')) {
      readOption(
        vnet,
        raw,
        word.slice(1),
        () => words[++at] ?? fail(`${word}: a value is missing`),
      );
    } else if (raw.op === null) {
      raw.op = OPS.get(word) ?? fail(`bad keyword: ${word}: ${OP_NAMES}`);
    } else {
      raw.args.push(word);
    }
  }
  if (raw.args.length > 3) fail(`${raw.args[3]}: too many arguments`);
  return raw;
}

/** The first family that can parse one of the addresses; `default` fits all. */
function familyOf(vnet: Vnet, raw: Raw): AddrFamily {
  if (raw.af !== null) return raw.af;
  const list = addrFamilies(vnet);
  const texts = raw.byInterface ? raw.args.slice(0, 1) : raw.args;
  for (const text of texts) {
    const [addr = ''] = text.split('/', 1);
    if (addr === 'default') continue;
    const af = list.find((one) => one.parse(vnet, addr, true) !== null);
    return af ?? fail(`bad address: ${text}`);
  }
  return list[0]!;
}

function readNumber(text: string, max: number, what: string): number {
  if (!/^\d{1,9}$/.test(text) || Number(text) > max) fail(`${text}: bad ${what}: 0 to ${max}`);
  return Number(text);
}

/** The prefix length of a netmask. */
function maskLength(vnet: Vnet, af: AddrFamily, text: string): number {
  const { w0, w1, w2, w3 }: AddrWords = af.parse(vnet, text, false) ?? fail(`bad address: ${text}`);
  const bits = [w0, w1, w2, w3].map((w) => (w >>> 0).toString(2).padStart(32, '0')).join('');
  const ones = bits.indexOf('0') < 0 ? 128 : bits.indexOf('0');
  if (bits.includes('1', ones)) fail(`${text}: bad netmask: the ones are not contiguous`);
  return ones;
}

function readDestination(vnet: Vnet, af: AddrFamily, raw: Raw, text: string): Destination {
  const slash = text.indexOf('/');
  const head = slash < 0 ? text : text.slice(0, slash);
  const isDefault = head === 'default';
  const net = raw.kind === 'net' || slash >= 0;
  const addr =
    (isDefault ? new NetAddr() : af.parse(vnet, head, net)) ?? fail(`bad address: ${text}`);
  const mask = raw.netmask ?? (raw.op === 'get' ? null : (raw.args[2] ?? null));
  const given = [
    slash < 0 ? null : readNumber(text.slice(slash + 1), af.bits, 'prefix length'),
    raw.prefixlen === null ? null : readNumber(raw.prefixlen, af.bits, 'prefix length'),
    mask === null ? null : maskLength(vnet, af, mask),
    raw.kind === 'host' ? af.bits : null,
    isDefault ? 0 : null,
  ].filter((n) => n !== null);
  if (given.some((n) => n !== given[0])) fail(`${text}: two prefix lengths`);
  // `route get ADDR` looks an address up, also one that could be a network.
  const implied =
    raw.op === 'get' && !net ? af.bits : af.impliedPrefixlen(addr, raw.kind === 'net');
  return { addr, prefixlen: given[0] ?? implied, text: head };
}

/** Parses the words of a command line. Throws ControlFailure (EINVAL) with route's message. */
export function readRoute(vnet: Vnet, words: readonly string[]): RoutePlan {
  const raw = readWords(vnet, words);
  const op = raw.op ?? fail(`an operation is needed: ${OP_NAMES}`);
  const [dstText, gatewayText = null] = raw.args;
  const plan: RoutePlan = {
    op,
    af: raw.af,
    dst: null,
    gateway: null,
    gatewayText: null,
    byInterface: null,
    ifp: raw.ifp,
    mtu: raw.mtu === null ? 0 : readNumber(raw.mtu, MTU_MAX, 'MTU'),
  };
  if (op === 'flush') {
    if (dstText !== undefined) fail(`${dstText}: flush takes only a family`);
    return plan;
  }
  if (dstText === undefined) {
    // `route show` lists the tables.
    if (op === 'get' && words.includes('show')) return plan;
    return fail(`${words.find((word) => OPS.has(word))}: a destination is needed`);
  }
  const af = familyOf(vnet, raw);
  plan.af = af;
  plan.dst = readDestination(vnet, af, raw, dstText);
  if (gatewayText !== null && raw.byInterface) {
    plan.byInterface = gatewayText;
  } else if (gatewayText !== null && op !== 'get') {
    plan.gateway = af.parse(vnet, gatewayText, false) ?? fail(`bad address: ${gatewayText}`);
    plan.gatewayText = gatewayText;
  }
  if (op === 'add' && gatewayText === null) fail(`${dstText}: a gateway is needed`);
  if (op === 'change' && gatewayText === null && raw.mtu === null)
    fail(`${dstText}: a gateway or -mtu is needed`);
  return plan;
}
