/**
 * The NIC options checked: texts from the command line and a --config file become what a machine
 * and a NIC are made with. Imported only by what brings a NIC up: the checkers take time to load.
 */

import { resolve } from 'node:path';
import { Address4, Address6 } from 'ip-address';
import { z } from 'zod';
import { capabilityKeywords, parseCapability } from '../ctl/bits.ts';
import { capturePoints } from '../sys/capture.ts';
import type { FaultSpec } from '../fault/fault.ts';
import { faultSpec, faultTexts } from '../fault/fault_spec.ts';
import type { NicOptions } from '../machine/nic.ts';
import type { NicBuild, NicMode, NicModelInfo } from '../machine/nic_model.ts';
import { UsageError } from './command.ts';
import { type AddNicTexts, parseAddNic } from './add_nic.ts';
import { readConfig } from './config_file.ts';
import { flagKey, NIC_FLAGS, type OwnTexts, type RawFlags } from './nic_flags.ts';
import { wholeNumber } from './numbers.ts';
import { compileFilter } from './pcap_filter.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
/** FreeBSD takes no less (IF_MINMTU); the most is a jumbo frame. */
const MTU_MIN = 72;
const MTU_MAX = 9000;
/** A namespace's name is a file name; the interface's is checked by the kernel's own rules. */
const NETNS_NAME = /^(?!\.{1,2}$)[^/:%\s]{1,255}$/;
const TAP_NAME = /^(?!\.{1,2}$)[^/:%\s]{1,15}$/;
const SYSCTL_NAME = /^[a-z0-9_]+(\.[a-z0-9_%-]+)+$/i;
/** Capture points that this version records at, and the file format it writes. */
const POINTS_NOW: readonly string[] = ['if', 'wire'];

/** Everything the NIC options say. */
export interface NicSettings {
  readonly nic: NicOptions;
  /** More NICs, without addresses. */
  readonly ports: NicOptions[];
  /** What opens the TAP. With `tuntap2` the name in `nic` does not count: the kernel picks one. */
  readonly driver: 'native' | 'tuntap2';
  readonly memory: number;
  /** Physical address of the first byte of memory. */
  readonly physBase: number;
  readonly iommu: boolean;
  readonly dmaCheck: boolean;
  readonly seed: number | null;
  readonly sysctl: [string, string][];
  readonly control: string | null;
  /** The command's own keys, such as `port`, by name; from the command line or the file. */
  readonly own: OwnTexts;
  readonly warnings: string[];
}

/** A schema for one option's text: `read` throws an Error that says what is wrong with it. */
function parsed<T>(read: (text: string) => T): z.ZodType<T, string> {
  return z.string().transform((text, ctx) => {
    try {
      return read(text);
    } catch (e) {
      ctx.addIssue({ code: 'custom', message: e instanceof Error ? e.message : String(e) });
      return z.NEVER;
    }
  });
}

function fail(message: string): never {
  throw new Error(message);
}

function cidr4(text: string): string {
  const example = 'such as 192.0.2.2/24';
  if (!text.includes('/') || !Address4.isValid(text))
    fail(`${text}: not an IPv4 address with prefix length, ${example}`);
  const address = new Address4(text);
  const bits = address.subnetMask;
  if (bits < 1 || bits > 31) fail(`${text}: a prefix length from 1 to 31 is needed`);
  const host = address.bigInt() & ((1n << BigInt(32 - bits)) - 1n);
  const all = (1n << BigInt(32 - bits)) - 1n;
  if (bits < 31 && (host === 0n || host === all))
    fail(`${text}: the address of the network itself or its broadcast address`);
  unicast4(address, text);
  return `${address.correctForm()}/${bits}`;
}

function unicast4(address: Address4, text: string): void {
  const first = Number(address.correctForm().split('.')[0]);
  if (first === 0 || first === 127 || first >= 224) fail(`${text}: not a host's address`);
}

function cidr6(text: string): string {
  if (!text.includes('/') || text.includes('%') || !Address6.isValid(text))
    fail(`${text}: not an IPv6 address with prefix length, such as 2001:db8::2/64`);
  const address = new Address6(text);
  const form = address.correctForm();
  if (address.isMulticast() || form === '::' || form === '::1')
    fail(`${text}: not a host's address`);
  return `${form}/${address.subnetMask}`;
}

function addr4(text: string): string {
  if (text.includes('/') || !Address4.isValid(text)) fail(`${text}: not an IPv4 address`);
  const address = new Address4(text);
  unicast4(address, text);
  return address.correctForm();
}

function macAddr(text: string): string {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text))
    fail(`${text}: not a MAC address, such as 02:00:5e:00:53:01`);
  const mac = text.toLowerCase().replaceAll('-', ':');
  if ((Number.parseInt(mac, 16) & 1) !== 0) fail(`${text}: a group address`);
  if (mac === '00:00:00:00:00:00') fail(`${text}: not a host's address`);
  return mac;
}

function memorySize(text: string): number {
  const match = /^(\d+)([KMG]?)(?:i?B)?$/i.exec(text);
  if (match === null) fail(`${text}: not a size, such as 256M`);
  const scale = { '': 1, K: 1024, M: MIB, G: 1024 * MIB }[match[2]!.toUpperCase()]!;
  const bytes = Number(match[1]) * scale;
  if (bytes < 16 * MIB || bytes > 4096 * MIB) fail(`${text}: 16M to 4096M`);
  if (bytes % PAGE !== 0) fail(`${text}: not a whole number of pages of ${PAGE} bytes`);
  return bytes;
}

/** Physical addresses have 52 bits, as on amd64. */
function physAddress(text: string): number {
  if (!/^(0x[0-9a-f]+|\d+)$/i.test(text)) fail(`${text}: not an address, such as 0xf8000000`);
  const addr = Number(text);
  if (addr > 2 ** 52 - 4096 * MIB) fail(`${text}: up to 0x${(2 ** 52 - 4096 * MIB).toString(16)}`);
  if (addr % PAGE !== 0) fail(`${text}: not the address of a page of ${PAGE} bytes`);
  return addr;
}

function yesNo(text: string): boolean {
  return text === 'true' || (text !== 'false' && fail(`${text}: true or false`));
}

function oneOf(...words: string[]): (text: string) => string {
  return (text) => (words.includes(text) ? text : fail(`${text}: one of ${words.join(', ')}`));
}

function nameValue(text: string): [string, string] {
  const eq = text.indexOf('=');
  if (eq < 1 || eq === text.length - 1) fail(`${text}: NAME=VALUE is needed`);
  const name = text.slice(0, eq);
  if (!SYSCTL_NAME.test(name)) fail(`${text}: no name of a sysctl`);
  return [name, text.slice(eq + 1)];
}

/** A capture; `tap` is null for the first NIC's. */
interface CaptureText {
  readonly point: string;
  readonly tap: string | null;
  readonly file: string;
}

function captureOf(text: string): CaptureText {
  const eq = text.indexOf('=');
  if (eq < 1 || eq === text.length - 1) fail(`${text}: POINT=FILE is needed`);
  const [point = '', tap = null] = text.slice(0, eq).split('@', 2);
  const file = text.slice(eq + 1);
  if (!(capturePoints as readonly string[]).includes(point))
    fail(`${point}: no capture point: one of ${POINTS_NOW.join(', ')}`);
  if (!POINTS_NOW.includes(point))
    fail(`${point}: this version captures only at ${POINTS_NOW.join(', ')}`);
  if (!file.endsWith('.pcap')) fail(`${file}: this version writes only .pcap files`);
  return { point, tap, file };
}

function matching(re: RegExp, what: string): (text: string) => string {
  return (text) => (re.test(text) ? text : fail(`${text}: not ${what}`));
}

const orNone =
  (read: (text: string) => string) =>
  (text: string): string | null =>
    text === 'none' ? null : read(text);

const settings = z.strictObject({
  tap: parsed(
    matching(TAP_NAME, "an interface's name: 1 to 15 bytes without / : % and white space"),
  ),
  'host-addr': parsed(orNone(cidr4)),
  'host-addr6': parsed(orNone(cidr6)),
  addr: parsed(cidr4),
  addr6: parsed(cidr6),
  gateway: parsed(orNone(addr4)).optional(),
  mac: parsed(macAddr).optional(),
  mtu: parsed((text) => wholeNumber(text, MTU_MIN, MTU_MAX)),
  nic: z.string(),
  cap: z.string(),
  mode: parsed(oneOf('wire', 'vnet')),
  napi: parsed(oneOf('off', 'thread')),
  engine: parsed(oneOf('native', 'ts')).optional(),
  driver: parsed(oneOf('native', 'tuntap2')),
  netns: parsed(matching(NETNS_NAME, "a namespace's name")).optional(),
  'add-nic': z.array(parsed(parseAddNic)),
  capture: z.array(parsed(captureOf)),
  control: z.string().min(1, 'a path is needed').optional(),
  sysctl: z.array(parsed(nameValue)),
  fault: z.array(z.string()),
  memory: parsed(memorySize),
  'phys-base': parsed(physAddress),
  iommu: parsed(yesNo),
  'dma-check': parsed(yesNo),
  seed: parsed((text) => wholeNumber(text, 0, 0xffffffff)).optional(),
});

const DEFAULTS: Record<string, string | string[]> = {
  tap: 'nic0',
  'host-addr': '192.0.2.1/24',
  'host-addr6': '2001:db8::1/64',
  addr: '192.0.2.2/24',
  addr6: '2001:db8::2/64',
  mtu: '1500',
  nic: 'tn',
  cap: '',
  mode: 'wire',
  napi: 'off',
  driver: 'native',
  'add-nic': [],
  capture: [],
  sysctl: [],
  fault: [],
  memory: '256M',
  'phys-base': '0',
  iommu: 'false',
  'dma-check': 'false',
};

/** The texts of all options and, for error messages, where each is from. */
interface Texts {
  values: Record<string, string | string[]>;
  where: Map<string, string>;
  own: OwnTexts;
}

/** Puts the file under the command line; `ownKeys` are the command's own options. */
function collect(raw: RawFlags, ownKeys: readonly string[]): Texts {
  const values: Texts['values'] = { ...DEFAULTS };
  const where: Texts['where'] = new Map();
  const own: Texts['own'] = {};
  const repeated = NIC_FLAGS.filter(({ repeat }) => repeat).map(({ name }) => name);
  const names = [...NIC_FLAGS.map(({ name }) => name), ...ownKeys];
  const { config } = raw;
  if (typeof config === 'string')
    for (const { key, texts, where: at } of readConfig(config, {
      names,
      repeated,
      lists: ['cap'],
    })) {
      where.set(key, at);
      if (ownKeys.includes(key)) own[key] = { text: texts[0]!, where: at };
      else values[key] = repeated.includes(key) ? texts : texts[0]!;
    }
  for (const name of names) {
    const value = raw[flagKey(name)];
    if (value === undefined) continue;
    const given = typeof value === 'boolean' ? String(value) : value;
    where.set(name, `--${name}`);
    if (ownKeys.includes(name)) own[name] = { text: String(given), where: `--${name}` };
    // Later ones win, name by name.
    else if (name === 'sysctl') values[name] = [values[name] ?? [], given].flat();
    else values[name] = given;
  }
  return { values, where, own };
}

/** Which capabilities `list` switches. Throws Error for one that is none or that the model lacks. */
function capChanges(list: string, model: NicModelInfo): { name: string; on: boolean }[] {
  const has = new Set(model.capabilities.flatMap((word) => keywordsOf(word)));
  return list
    .split(',')
    .filter((word) => word !== '')
    .flatMap((word) => {
      const change = parseCapability(word);
      if (change === null)
        fail(`${word}: no capability: ${model.name} has ${[...has].join(', ') || 'none'}`);
      const names = capabilityKeywords(change.bits).filter((name) => has.has(name));
      if (names.length === 0)
        fail(`${word}: ${model.name} lacks it: it has ${[...has].join(', ') || 'none'}`);
      return names.map((name) => ({ name, on: change.on }));
    });
}

function keywordsOf(word: string): string[] {
  const change = parseCapability(word);
  return change === null ? [] : capabilityKeywords(change.bits);
}

function inSubnet(addr: string, cidr: string): boolean {
  return new Address4(`${addr}/32`).isInSubnet(new Address4(cidr));
}

const hostPart = (cidr: string): string => cidr.slice(0, cidr.indexOf('/'));

/** The default route: what was asked for, else the host if it is on the same network. */
function gatewayOf(
  asked: string | null | undefined,
  addr: string,
  hostAddr: string | null,
): string | null {
  if (asked === null) return null;
  if (asked !== undefined) {
    if (!inSubnet(asked, addr)) fail(`${asked}: not on the network of ${addr}`);
    if (asked === hostPart(addr)) fail(`${asked}: the emulated host's own address`);
    return asked;
  }
  if (hostAddr === null) return null;
  return inSubnet(hostPart(hostAddr), addr) ? hostPart(hostAddr) : null;
}

/** What `--driver tuntap2` cannot do; `given` are the options that somebody named. */
function tuntap2Conflict(given: ReadonlyMap<string, string>, s: Record<string, unknown>): string {
  if (given.has('tap')) return 'tap: tuntap2 has no choice of a name';
  if (given.has('netns')) return 'netns: tuntap2 opens only in the current namespace';
  if (given.has('add-nic')) return 'add-nic: tuntap2 opens one interface';
  if (s['mode'] === 'vnet') return 'mode: tuntap2 has only wire';
  if (s['napi'] === 'thread') return 'napi: tuntap2 has only off';
  if (s['engine'] === 'native') return 'engine: tuntap2 has only ts';
  return '';
}

/** Throws Error unless `word`, a mode or a build, is among what the model has. */
function ofModel<T extends string>(word: string, model: NicModelInfo, has: readonly T[]): T {
  const found = has.find((one) => one === word);
  return found ?? fail(`${word}: ${model.name} has only ${has.join(', ')}`);
}

function mtuOf(mtu: number, model: NicModelInfo): number {
  return mtu <= model.mtuMax ? mtu : fail(`${mtu}: ${model.name} takes up to ${model.mtuMax}`);
}

/**
 * The build of the device: what was asked for, else the fastest there is. tuntap2's wire is no
 * descriptor, which the native build needs.
 */
function engineOf(asked: string | undefined, model: NicModelInfo, tuntap2: boolean): NicBuild {
  const builds = tuntap2 ? model.builds.filter((build) => build === 'ts') : model.builds;
  return asked === undefined ? builds[0]! : ofModel(asked, model, builds);
}

/** The build that can do it all: watching a device's DMA needs `ts`, and says so in `warnings`. */
function watchedEngine(
  engine: NicBuild,
  s: { iommu: boolean; 'dma-check': boolean },
  warnings: string[],
): NicBuild {
  if (engine === 'ts') return engine;
  const watcher = s.iommu ? '--iommu' : s['dma-check'] ? '--dma-check' : null;
  if (watcher === null) return engine;
  warnings.push(`${watcher}: the native build of the NIC cannot be watched: uses --engine ts`);
  return 'ts';
}

function modelOf(name: string, models: readonly NicModelInfo[]): NicModelInfo {
  const model = models.find((one) => one.name === name);
  return model ?? fail(`${name}: no such model: ${models.map((one) => one.name).join(', ')}`);
}

/** Faults there from the start; the n-th one's seed is n unless it says otherwise. */
function faultsOf(list: readonly string[]): FaultSpec[] {
  return list.map((text, i) => {
    const { kind, texts } = faultTexts(text);
    return faultSpec(kind, texts, i + 1, compileFilter);
  });
}

/** The captures that name one of `taps`. */
function capturesOf(
  captures: readonly CaptureText[],
  ...taps: readonly (string | null)[]
): NicOptions['captures'] {
  return captures
    .filter(({ tap }) => taps.includes(tap))
    .map(({ point, file }) => ({ point, file }));
}

/** Throws Error if two NICs are to be on one interface. */
function ownTaps(nics: readonly NicOptions[]): void {
  const taps = nics.map(({ tap }) => tap);
  const twice = taps.find((tap, i) => taps.indexOf(tap) < i);
  if (twice !== undefined) fail(`${twice}: two NICs on one interface`);
}

/** Throws Error if a capture is of none of the NICs, or two go to one file. */
function checkCaptures(captures: readonly CaptureText[], nics: readonly NicOptions[]): void {
  const files = captures.map(({ file }) => resolve(file));
  const twice = captures.find((_capture, i) => files.indexOf(files[i]!) < i);
  if (twice !== undefined) fail(`${twice.file}: two captures in one file`);
  const taps = nics.map(({ tap }) => tap);
  for (const { point, tap } of captures)
    if (tap !== null && !taps.includes(tap))
      fail(`${point}@${tap}: no interface ${tap}: ${taps.join(', ')}`);
}

/** One more NIC: like the first where it says nothing else and its model can. */
function portOf(
  { tap, nic, mac, mtu, cap }: AddNicTexts,
  first: NicOptions,
  s: {
    engine?: string | undefined;
    capture: readonly CaptureText[];
    iommu: boolean;
    'dma-check': boolean;
  },
  models: readonly NicModelInfo[],
): NicOptions {
  if (!TAP_NAME.test(tap)) fail(`${tap}: not an interface's name`);
  const model = modelOf(nic ?? 'tn', models);
  return {
    tap,
    hostAddr: null,
    hostAddr6: null,
    addr: null,
    gateway: null,
    ...(mac === null ? {} : { mac: macAddr(mac) }),
    mtu:
      mtu === null
        ? Math.min(first.mtu, model.mtuMax)
        : mtuOf(wholeNumber(mtu, MTU_MIN, MTU_MAX), model),
    nic: model.name,
    caps: capChanges(cap, model),
    mode: model.modes.find((mode) => mode === first.mode) ?? model.modes[0]!,
    napi: first.napi,
    // A machine whose devices are watched has them all in `ts`.
    engine:
      model.builds.find((build) => build === (s.iommu || s['dma-check'] ? 'ts' : s.engine)) ??
      model.builds[0]!,
    netns: first.netns,
    captures: capturesOf(s.capture, tap),
  };
}

/** What is odd about names and addresses, though it may be meant. */
function warningsOf(tap: string, addr: string, hostAddr: string | null): string[] {
  const warnings: string[] = [];
  if (tap.startsWith('tap'))
    warnings.push(`${tap}: some programs (tcpreplay) refuse interfaces named tap*`);
  const near =
    hostAddr === null || (inSubnet(hostPart(addr), hostAddr) && inSubnet(hostPart(hostAddr), addr));
  if (!near)
    warnings.push(
      `${addr} and ${hostAddr} are not on one network: there must be routes between them`,
    );
  return warnings;
}

/**
 * Checks the options given in `raw` and in the file it names. `ownKeys` are the command's own
 * options, passed through as text. Throws UsageError with one line that says where and why.
 */
export function resolveNicOptions(
  raw: RawFlags,
  models: readonly NicModelInfo[],
  ownKeys: readonly string[] = [],
): NicSettings {
  const { values, where, own } = collect(raw, ownKeys);
  const place = (name: string): string => where.get(name) ?? `--${name}`;
  /** Runs a check and says which option it was about. */
  const checking = <T>(name: string, check: () => T): T => {
    try {
      return check();
    } catch (e) {
      throw new UsageError(`${place(name)}: ${e instanceof Error ? e.message : String(e)}`);
    }
  };
  const result = settings.safeParse(values);
  if (!result.success) {
    const [issue] = result.error.issues;
    throw new UsageError(`${place(String(issue?.path[0]))}: ${issue?.message}`);
  }
  const s = result.data;
  const model = checking('nic', () => modelOf(s.nic, models));
  const tuntap2 = s.driver === 'tuntap2';
  const conflict = tuntap2 ? tuntap2Conflict(where, s) : '';
  if (conflict !== '') throw new UsageError(`${place('driver')}: conflicts with --${conflict}`);
  const hostAddr = s['host-addr'];
  if (hostAddr !== null && hostPart(hostAddr) === hostPart(s.addr))
    throw new UsageError(`${place('addr')}: ${hostPart(s.addr)}: the Linux side has that address`);
  const warnings = warningsOf(s.tap, s.addr, hostAddr);
  const engine = checking('engine', () => engineOf(s.engine, model, tuntap2));
  const nic: NicOptions = {
    tap: s.tap,
    hostAddr,
    hostAddr6: s['host-addr6'],
    addr: s.addr,
    gateway: checking('gateway', () => gatewayOf(s.gateway, s.addr, hostAddr)),
    ...(s.mac === undefined ? {} : { mac: s.mac }),
    mtu: checking('mtu', () => mtuOf(s.mtu, model)),
    nic: s.nic,
    caps: checking('cap', () => capChanges(s.cap, model)),
    mode: checking<NicMode>('mode', () => ofModel(s.mode, model, model.modes)),
    napi: s.napi as NicOptions['napi'],
    engine: watchedEngine(engine, s, warnings),
    netns: s.netns ?? null,
    faults: checking('fault', () => faultsOf(s.fault)),
    captures: capturesOf(s.capture, null, s.tap),
  };
  const ports = checking('add-nic', () => {
    const all = s['add-nic'].map((texts) => portOf(texts, nic, s, models));
    ownTaps([nic, ...all]);
    return all;
  });
  checking('capture', () => checkCaptures(s.capture, [nic, ...ports]));
  return {
    nic,
    ports,
    driver: s.driver as NicSettings['driver'],
    memory: s.memory,
    physBase: s['phys-base'],
    iommu: s.iommu,
    dmaCheck: s['dma-check'],
    seed: s.seed ?? null,
    sysctl: s.sysctl,
    control: s.control ?? null,
    own,
    warnings,
  };
}
