/**
 * The options of a stack: type, schema, defaults, and checks across options. The command line, a
 * YAML file and the library each make a StackConfig; only `checkOptions` checks it.
 */

import { extname, resolve } from 'node:path';
import { z } from 'zod';
import { capabilityKeywords, type CapabilityChange, parseCapability } from '../ctl/bits.ts';
import { capturePoints } from '../sys/capture.ts';
import type { FileSpec } from './capture_file.ts';
import type { FaultSpec } from '../fault/fault.ts';
import {
  FAULT_OPTIONS,
  type FaultDraft,
  faultDraft,
  type FaultOptions,
  type FaultValues,
} from '../fault/fault_spec.ts';
import { compiledFault } from './fault_filter.ts';
import type { StackSettings } from './host_stack.ts';
import type { NicOptions } from './nic.ts';
import type { NicBuild, NicMode, NicModelInfo } from './nic_model.ts';
import { addr6, cidr6 } from './option_addr6.ts';
import { checking, OptionError, type OptionIssue, type Spell, wrong } from './option_error.ts';
import { ipv6Of } from './options6.ts';
import {
  addr4,
  anyText,
  boolean,
  cidr4,
  inSubnet,
  macAddr,
  memorySize,
  netnsName,
  oneOf,
  orNone,
  physAddress,
  portName,
  sysctlPair,
  tapName,
  wholeNumber,
} from './option_values.ts';

/** FreeBSD's smallest MTU (IF_MINMTU), and that of a jumbo frame. */
const MTU_MIN = 72;
const MTU_MAX = 9000;
/** Interfaces of the emulated host that may appear later. */
const CLONES = ['lo', 'vlan', 'lagg'];
/** Endings of capture files. */
const CAPTURE_FILE = /\.pcap(ng)?(\.gz)?$/;

/** A capture point. `at` names an interface or its TAP; null: the first NIC. */
export interface CapturePointConfig {
  readonly point: string;
  readonly at: string | null;
}

/** Capture points and the file that they share. */
export interface CaptureConfig {
  readonly places: readonly CapturePointConfig[];
  readonly file: string;
}

/** An additional NIC. A missing option has the first NIC's value if the model supports it. */
export interface PortConfig {
  readonly tap: string;
  readonly nic?: string | undefined;
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  readonly cap?: readonly string[] | undefined;
}

/** A stack's options as data. A missing or undefined option has its default. */
export interface StackConfig {
  readonly tap?: string | undefined;
  readonly hostAddr?: string | null | undefined;
  readonly hostAddr6?: string | null | undefined;
  readonly addr?: string | undefined;
  readonly addr6?: string | null | undefined;
  readonly gateway?: string | null | undefined;
  readonly gateway6?: string | null | undefined;
  readonly mac?: string | undefined;
  readonly mtu?: number | undefined;
  readonly nic?: string | undefined;
  readonly cap?: readonly string[] | undefined;
  readonly mode?: NicMode | undefined;
  readonly napi?: 'off' | 'thread' | undefined;
  readonly engine?: NicBuild | undefined;
  readonly driver?: 'native' | 'tuntap2' | undefined;
  readonly netns?: string | undefined;
  readonly ports?: readonly PortConfig[] | undefined;
  readonly capture?: readonly CaptureConfig[] | undefined;
  /** Set in this order. */
  readonly sysctl?: readonly (readonly [string, string | number])[] | undefined;
  readonly fault?: readonly (FaultOptions & { readonly kind: string })[] | undefined;
  /** Bytes. */
  readonly memory?: number | undefined;
  readonly physBase?: number | undefined;
  readonly iommu?: boolean | undefined;
  readonly dmaCheck?: boolean | undefined;
  readonly seed?: number | undefined;
}

/** The checked options of a stack. */
export interface CheckedOptions extends StackSettings {
  /** What opens the TAP. With `tuntap2` the kernel chooses the name, and `nic.tap` is ignored. */
  readonly driver: 'native' | 'tuntap2';
  /** Options that work but may be a mistake, or that could not be applied. */
  readonly warnings: readonly OptionIssue[];
}

/** Options of a NIC whose faults have uncompiled filters. */
interface NicDraft extends Omit<NicOptions, 'faults'> {
  readonly faults: readonly FaultDraft[];
}

/** The checked options, except the filters of faults, which `compiledOptions` compiles. */
export interface OptionsDraft extends Omit<CheckedOptions, 'nic'> {
  readonly nic: NicDraft;
}

/**
 * A schema from a check that throws OptionError. The zod issue's `params` carry the option issue.
 */
function field<T>(check: (value: unknown) => T): z.ZodType<T> {
  return z.unknown().transform((value, ctx): T => {
    try {
      return check(value);
    } catch (e) {
      if (!(e instanceof OptionError)) throw e;
      ctx.addIssue({ code: 'custom', message: e.message, params: { issue: e.issue } });
      return z.NEVER;
    }
  });
}

/**
 * The message of zod's own issues: for an unknown key, the key and the keys of `shape`; else
 * `otherwise`.
 */
function objectError(otherwise: string, what: string, shape: object) {
  return (issue: { code?: string | undefined; keys?: unknown }): string => {
    if (issue.code !== 'unrecognized_keys') return otherwise;
    const [key] = issue.keys as string[];
    return `${key}: ${what}: ${Object.keys(shape).join(', ')}`;
  };
}

function listOf<T>(item: z.ZodType<T>): z.ZodDefault<z.ZodArray<z.ZodType<T>>> {
  return z.array(item, { error: 'a list is needed' }).default([]);
}

function capturePoint(value: unknown): string {
  const point = anyText(value);
  if (!(capturePoints as readonly string[]).includes(point))
    wrong(point, 'not a capture point', { remedy: `one of ${capturePoints.join(', ')}` });
  return point;
}

function captureFile(value: unknown): string {
  const file = anyText(value);
  if (file === '-')
    wrong(file, 'standard output has the lines of the command', { remedy: 'use a FIFO' });
  // A FIFO or a device often has no extension; another extension may promise another format.
  const extension = extname(file);
  if (file === '' || (extension !== '' && !CAPTURE_FILE.test(file)))
    wrong(file, 'not the name of a capture', {
      remedy: 'end it with .pcap or .pcapng, and .gz to compress it',
    });
  return file;
}

/** Checks a fault, an object with its kind and options. `number` is its default seed. */
function faultOf(value: unknown, number: number): FaultDraft {
  if (typeof value !== 'object' || value === null || Array.isArray(value))
    throw new OptionError({ path: [], problem: 'a list of faults is needed' });
  const { kind, ...values } = value as FaultValues & { kind?: unknown };
  const key = Object.keys(values).find((name) => !FAULT_OPTIONS.some((one) => one === name));
  if (key !== undefined) wrong(key, 'no option of a fault', { remedy: FAULT_OPTIONS.join(', ') });
  try {
    return faultDraft(kind, values, number);
  } catch (e) {
    throw new OptionError({ path: [], problem: e instanceof Error ? e.message : String(e) });
  }
}

const PORTS = 'a list of objects is needed, such as [{ tap: "nic1" }]';

const portShape = {
  tap: field(portName),
  nic: field(anyText).optional(),
  mac: field(macAddr).optional(),
  mtu: field(wholeNumber(MTU_MIN, MTU_MAX)).optional(),
  cap: listOf(field(anyText)),
};

const portSchema = z.strictObject(portShape, {
  error: objectError(PORTS, 'not an option of a port', portShape),
});

/** The address of the emulated host: null stands for `dhcp`. */
function addrOrDhcp(value: unknown): string | null {
  return value === 'dhcp' ? null : cidr4(value);
}

/** The IPv6 address of the emulated host: `auto`, or null for none. */
function addr6OrAuto(value: unknown): string | null {
  return value === 'auto' ? value : orNone(cidr6)(value);
}

const shape = {
  tap: field(tapName).default('nic0'),
  hostAddr: field(orNone(cidr4)).default('192.0.2.1/24'),
  hostAddr6: field(orNone(cidr6)).default('2001:db8::1/64'),
  addr: field(addrOrDhcp).default('192.0.2.2/24'),
  addr6: field(addr6OrAuto).default('2001:db8::2/64'),
  gateway: field(orNone(addr4)).optional(),
  gateway6: field(orNone(addr6)).optional(),
  mac: field(macAddr).optional(),
  mtu: field(wholeNumber(MTU_MIN, MTU_MAX)).default(1500),
  nic: field(anyText).default('tn'),
  cap: listOf(field(anyText)),
  mode: field(oneOf('wire', 'vnet')).default('wire'),
  napi: field(oneOf('off', 'thread')).default('off'),
  engine: field(oneOf('native', 'ts')).optional(),
  driver: field(oneOf('native', 'tuntap2')).default('native'),
  netns: field(netnsName).optional(),
  ports: listOf(portSchema),
  capture: listOf(
    z.strictObject({
      places: z.array(z.strictObject({ point: field(capturePoint), at: field(orNone(anyText)) })),
      file: field(captureFile),
    }),
  ),
  sysctl: listOf(field(sysctlPair)),
  fault: listOf(z.unknown()),
  memory: field(memorySize).default(256 * 1024 * 1024),
  physBase: field(physAddress).default(0),
  iommu: field(boolean).default(false),
  dmaCheck: field(boolean).default(false),
  seed: field(wholeNumber(0, 0xffffffff)).optional(),
};

const schema = z.strictObject(shape, {
  error: objectError('an object of options is needed', 'not an option', shape),
});

type Options = z.output<typeof schema>;

function parse(config: unknown): Options {
  const result = schema.safeParse(config);
  if (result.success) return result.data;
  const [issue] = result.error.issues;
  const path = issue!.path as (string | number)[];
  const own = issue!.code === 'custom' ? issue.params?.['issue'] : undefined;
  throw new OptionError({ problem: issue!.message, ...(own as object | undefined), path });
}

/** Parses capability words. Each change contains only capabilities of the model. */
function capChanges(words: readonly string[], model: NicModelInfo): CapabilityChange[] {
  const has = model.capabilities.reduce((bits, word) => bits | bitsOf(word), 0);
  const all = capabilityKeywords(has).join(', ') || 'none';
  return words.map((word, i) =>
    checking([i], () => {
      const change = parseCapability(word);
      if (change === null)
        return wrong(word, 'not a capability', { remedy: `${model.name} has ${all}` });
      const bits = change.bits & has;
      if (bits === 0) wrong(word, `${model.name} lacks it`, { remedy: `it has ${all}` });
      return { bits, on: change.on };
    }),
  );
}

function bitsOf(word: string): number {
  return parseCapability(word)?.bits ?? 0;
}

const hostPart = (cidr: string): string => cidr.slice(0, cidr.indexOf('/'));

/**
 * The default route: the given one, otherwise the Linux side's address if it is on the same
 * network.
 */
function gatewayOf({ gateway, addr, hostAddr }: Options): string | null {
  if (gateway === null) return null;
  // With DHCP the network is not known yet.
  if (addr === null) return null;
  if (gateway !== undefined) {
    if (!inSubnet(gateway, addr)) wrong(gateway, `not on the network of ${addr}`);
    if (gateway === hostPart(addr)) wrong(gateway, "the emulated host's own address");
    return gateway;
  }
  if (hostAddr === null) return null;
  return inSubnet(hostPart(hostAddr), addr) ? hostPart(hostAddr) : null;
}

/**
 * Throws OptionError for options that tuntap2 does not support. `config` has the options that were
 * given.
 */
function checkTuntap2(config: StackConfig, { mode, napi, engine }: Options): void {
  const conflict = (option: string, why: string): never => {
    const problem = (spell: Spell): string => `conflicts with ${spell(option)}: ${why}`;
    throw new OptionError({ path: ['driver'], problem });
  };
  if (config.tap !== undefined) conflict('tap', 'tuntap2 has no choice of a name');
  if (config.netns !== undefined) conflict('netns', 'tuntap2 opens only in the current namespace');
  if (config.ports !== undefined) conflict('ports', 'tuntap2 opens one interface');
  if (mode === 'vnet') conflict('mode', 'tuntap2 has only wire');
  if (napi === 'thread') conflict('napi', 'tuntap2 has only off');
  if (engine === 'native') conflict('engine', 'tuntap2 has only ts');
}

/** Throws OptionError unless `word`, a mode or a build, is in `has`. */
function ofModel<T extends string>(word: T, model: NicModelInfo, has: readonly T[]): T {
  return has.includes(word) ? word : wrong(word, `${model.name} has only ${has.join(', ')}`);
}

function mtuOf(mtu: number, model: NicModelInfo): number {
  return mtu <= model.mtuMax ? mtu : wrong(mtu, `${model.name} takes up to ${model.mtuMax}`);
}

/**
 * The build of the device: the given one, otherwise the fastest. The native build needs a wire with
 * a descriptor; that of tuntap2 has none. `iommu` and `dmaCheck` select `ts`.
 */
function engineOf(
  { engine, driver, iommu, dmaCheck }: Options,
  model: NicModelInfo,
  warnings: OptionIssue[],
): NicBuild {
  const builds = model.builds.filter((build) => build === 'ts' || driver !== 'tuntap2');
  const found = engine === undefined ? builds[0]! : ofModel(engine, model, builds);
  if (found === 'ts' || !(iommu || dmaCheck)) return found;
  warnings.push({
    path: [iommu ? 'iommu' : 'dmaCheck'],
    problem: (spell) =>
      `the native build of the NIC does not support it: uses ${spell('engine')} ts`,
  });
  return 'ts';
}

function modelOf(name: string, models: readonly NicModelInfo[]): NicModelInfo {
  const model = models.find((one) => one.name === name);
  const names = models.map((one) => one.name).join(', ');
  return model ?? wrong(name, 'no such model', { remedy: names });
}

/** With DHCP, Linux's side has an address only if one was given: the network has others. */
function withDhcp(o: Options, { hostAddr }: StackConfig): Options {
  return o.addr === null && hostAddr === undefined ? { ...o, hostAddr: null } : o;
}

/** Throws OptionError if both sides have the same address. */
function checkHostAddr({ addr, hostAddr }: Options): void {
  if (addr === null || hostAddr === null || hostPart(hostAddr) !== hostPart(addr)) return;
  checking(['addr'], () => wrong(hostPart(addr), 'the Linux side has that address'));
}

/** Throws OptionError if two NICs have the same interface. */
function checkTaps(nics: readonly Pick<NicOptions, 'tap'>[]): void {
  const taps = nics.map(({ tap }) => tap);
  const twice = taps.find((tap, i) => taps.indexOf(tap) < i);
  if (twice !== undefined) wrong(twice, 'two NICs on one interface');
}

/** Whether `name` can be the name of an interface of the emulated host. */
function isInterface(name: string, models: readonly NicModelInfo[]): boolean {
  const kind = /^([a-z]+)[0-9]+$/.exec(name)?.[1];
  return [...CLONES, ...models.map(({ ifname }) => ifname)].some((one) => one === kind);
}

/** Throws OptionError if a capture names an unknown NIC, or two have one file. */
function checkCaptures(
  captures: readonly CaptureConfig[],
  nics: readonly Pick<NicOptions, 'tap'>[],
  models: readonly NicModelInfo[],
): void {
  const files = captures.map(({ file }) => resolve(file));
  const twice = captures.find((_capture, i) => files.indexOf(files[i]!) < i);
  if (twice !== undefined) wrong(twice.file, 'two captures in one file');
  const taps = nics.map(({ tap }) => tap);
  for (const { point, at } of captures.flatMap(({ places }) => places))
    if (at !== null && !taps.includes(at) && !isInterface(at, models))
      wrong(`${point}@${at}`, `no interface ${at}`, { remedy: taps.join(', ') });
}

/**
 * Settings of an additional NIC. Missing options have the first NIC's values if the model supports
 * them.
 */
function portOf(
  port: Options['ports'][number],
  first: NicDraft,
  { engine, iommu, dmaCheck }: Options,
  models: readonly NicModelInfo[],
): NicOptions {
  const { tap, mac, mtu } = port;
  const model = checking(['nic'], () => modelOf(port.nic ?? 'tn', models));
  // With `iommu` or `dmaCheck` all devices use the build `ts`.
  const build = iommu || dmaCheck ? 'ts' : engine;
  return {
    tap,
    hostAddr: null,
    hostAddr6: null,
    addr: null,
    gateway: null,
    addr6: null,
    gateway6: null,
    ...(mac === undefined ? {} : { mac }),
    mtu:
      mtu === undefined
        ? Math.min(first.mtu, model.mtuMax)
        : checking(['mtu'], () => mtuOf(mtu, model)),
    nic: model.name,
    caps: checking(['cap'], () => capChanges(port.cap, model)),
    mode: model.modes.find((mode) => mode === first.mode) ?? model.modes[0]!,
    napi: first.napi,
    engine: model.builds.find((one) => one === build) ?? model.builds[0]!,
    netns: first.netns,
  };
}

/** Warnings about names and addresses that are allowed but unusual. */
function warningsOf({ tap, addr, hostAddr }: Options): OptionIssue[] {
  const warnings: OptionIssue[] = [];
  if (tap.startsWith('tap'))
    warnings.push({
      path: [],
      value: tap,
      problem: 'some programs (tcpreplay) refuse interfaces named tap*',
    });
  const near =
    hostAddr === null ||
    addr === null ||
    (inSubnet(hostPart(addr), hostAddr) && inSubnet(hostPart(hostAddr), addr));
  if (!near)
    warnings.push({
      path: [],
      problem: `${addr} and ${hostAddr} are not on one network`,
      remedy: 'there must be routes between them',
    });
  return warnings;
}

/** The first NIC, which has the addresses. `config` has the options that were given. */
function nicOf(
  o: Options,
  config: StackConfig,
  model: NicModelInfo,
  warnings: OptionIssue[],
): NicDraft {
  return {
    tap: o.tap,
    hostAddr: o.hostAddr,
    addr: o.addr,
    gateway: checking(['gateway'], () => gatewayOf(o)),
    ...(o.addr === null ? { dhcp: { gateway: o.gateway === undefined ? 'auto' : o.gateway } } : {}),
    // The first NIC gets the first unit.
    ...ipv6Of(o, config, `${model.ifname}0`, warnings),
    ...(o.mac === undefined ? {} : { mac: o.mac }),
    mtu: checking(['mtu'], () => mtuOf(o.mtu, model)),
    nic: o.nic,
    caps: checking(['cap'], () => capChanges(o.cap, model)),
    mode: checking(['mode'], () => ofModel(o.mode, model, model.modes)),
    napi: o.napi,
    engine: checking(['engine'], () => engineOf(o, model, warnings)),
    netns: o.netns ?? null,
    faults: o.fault.map((fault, i) => checking(['fault', i], () => faultOf(fault, i + 1))),
  };
}

/**
 * Checks a stack's options. `config` may have values of any type. Throws OptionError for the first
 * error.
 */
export function checkOptions(config: StackConfig, models: readonly NicModelInfo[]): OptionsDraft {
  const o = withDhcp(parse(config), config);
  const model = checking(['nic'], () => modelOf(o.nic, models));
  if (o.driver === 'tuntap2') checkTuntap2(config, o);
  checkHostAddr(o);
  const warnings = warningsOf(o);
  const nic = nicOf(o, config, model, warnings);
  const ports = o.ports.map((port, i) =>
    checking(['ports', i], () => portOf(port, nic, o, models)),
  );
  checking(['ports'], () => checkTaps([nic, ...ports]));
  checking(['capture'], () => checkCaptures(o.capture, [nic, ...ports], models));
  return {
    nic,
    ports,
    driver: o.driver,
    memory: o.memory,
    physBase: o.physBase,
    iommu: o.iommu,
    dmaCheck: o.dmaCheck,
    seed: o.seed ?? null,
    sysctl: o.sysctl,
    captures: o.capture.map(fileSpecOf),
    warnings,
  };
}

/** A capture with the numbers of its points. */
function fileSpecOf({ places, file }: Options['capture'][number]): FileSpec {
  const number = (point: string): number => (capturePoints as readonly string[]).indexOf(point);
  return { places: places.map(({ point, at }) => ({ point: number(point), at })), file };
}

/** Compiles the filters of faults. Rejects with OptionError for the first error. */
export async function compiledOptions(draft: OptionsDraft): Promise<CheckedOptions> {
  const faults: FaultSpec[] = [];
  for (const [i, fault] of draft.nic.faults.entries())
    try {
      faults.push(await compiledFault(fault));
    } catch (e) {
      throw new OptionError({ path: ['fault', i], problem: (e as Error).message });
    }
  return { ...draft, nic: { ...draft.nic, faults } };
}
