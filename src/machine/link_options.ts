/** The options of a simulated link: types, defaults and checks. */

import { TapnicError } from '../sys/errno.ts';
import type { LinkTime } from '../host/link_clock.ts';
import type { Impairments } from '../host/sim_wire.ts';
import { configOf, isMap, lineOf } from './library_options.ts';
import { NIC_SLOTS } from './nic_model.ts';
import { nicModels } from './nic_models.ts';
import { checking, OptionError, wrong } from './option_error.ts';
import { rateOf, sizeOf } from './option_texts.ts';
import {
  memorySize,
  numberFrom,
  oneOf,
  sysctlPair,
  tapName,
  wholeNumber,
} from './option_values.ts';
import { type CheckedOptions, checkOptions, compiledOptions } from './options.ts';
import type { StackOptions } from './stack.ts';

/** The wire of a link: what happens to each frame that a stack sends. */
export interface WireOptions {
  /** Time to the other stacks, ms. Default 1. */
  readonly delayMs?: number;
  /** Additional random delay, 0 to this, ms; it never reorders frames. Default 0. */
  readonly jitterMs?: number;
  /** Probabilities from 0 to 1. Default 0. */
  readonly lossRate?: number;
  readonly duplicateRate?: number;
  /** Frames that later ones may overtake: they are delayed by another `reorderMs`. Default 0. */
  readonly reorderRate?: number;
  /** Default 1. */
  readonly reorderMs?: number;
  /** Frames of which one bit is inverted. Default 0. */
  readonly corruptRate?: number;
  /** Bits per second that each stack can send, a number or a text such as `10M`; 0: no limit. Default 0. */
  readonly rate?: number | string;
  /** Frames that wait for `rate`; more are lost. Default 1000. */
  readonly queue?: number;
}

/** A stack on a link: options of createStack without those of a TAP. */
export type LinkStackOptions = Pick<
  StackOptions,
  | 'addr'
  | 'addr6'
  | 'gateway'
  | 'gateway6'
  | 'mac'
  | 'mtu'
  | 'nic'
  | 'cap'
  | 'capture'
  | 'fault'
  | 'sysctl'
>;

/** Options of a link. `stacks` names its stacks, two to 16. */
export interface LinkOptions<Name extends string = string> extends WireOptions {
  readonly stacks: Readonly<Record<Name, LinkStackOptions>>;
  /** How virtual time passes: see docs/api.md. Default `auto`. */
  readonly time?: LinkTime;
  /** Seed of every random choice, 0 to 4294967295. Default 1. */
  readonly seed?: number;
  /** Memory of the machine that the stacks share, in bytes, or a text such as `64M`. Default `64M`. */
  readonly memory?: number | string;
  /** Sysctls of that machine, `kern.*` and `hw.*`, set in this order before the stacks start. */
  readonly sysctl?: Readonly<Record<string, string | number>>;
}

/** The checked options. */
export interface CheckedLink {
  readonly stacks: readonly { readonly name: string; readonly settings: CheckedOptions }[];
  readonly wire: Partial<Impairments>;
  readonly time: LinkTime;
  readonly seed: number;
  readonly memory: number;
  readonly sysctl: readonly (readonly [string, string])[];
}

const MAX_DELAY_MS = 3_600_000;
const MAX_RATE = 1e12;
const MAX_QUEUE = 100_000;

const probability = numberFrom(0, 1);
const delay = numberFrom(0, MAX_DELAY_MS);
const ns = (value: unknown): number => Math.round(delay(value) * 1e6);

/** The wire's options: the impairment of each, and the conversion of its value. */
const WIRE: Readonly<Record<keyof WireOptions, [keyof Impairments, (value: unknown) => number]>> = {
  delayMs: ['delayNs', ns],
  jitterMs: ['jitterNs', ns],
  lossRate: ['loss', probability],
  duplicateRate: ['duplicate', probability],
  reorderRate: ['reorder', probability],
  reorderMs: ['reorderNs', ns],
  corruptRate: ['corrupt', probability],
  rate: ['rateBps', (v) => numberFrom(0, MAX_RATE)(typeof v === 'string' ? rateOf(v) : v)],
  queue: ['queueFrames', wholeNumber(1, MAX_QUEUE)],
};

/** The values of a wire that no option names. */
const WIRE_DEFAULTS: Partial<Impairments> = { delayNs: 1_000_000 };

const STACK_OPTIONS = [
  'addr',
  'addr6',
  'gateway',
  'gateway6',
  'mac',
  'mtu',
  'nic',
  'cap',
  'capture',
  'fault',
  'sysctl',
];
const LINK_OPTIONS = ['stacks', 'time', 'seed', 'memory', 'sysctl', ...Object.keys(WIRE)];

/** Runs `check`; an OptionError becomes TapnicError EINVAL, of `call`, with `where` before the option. */
export function refusing<T>(call: string, where: string, check: () => T): T {
  try {
    return check();
  } catch (e) {
    throw refusal(call, where, e);
  }
}

function refusal(call: string, where: string, e: unknown): unknown {
  return e instanceof OptionError ? new TapnicError('EINVAL', call, where + lineOf(e.issue)) : e;
}

function known(options: object, names: readonly string[], what: string): void {
  const stranger = Object.keys(options).find((name) => !names.includes(name));
  if (stranger !== undefined)
    throw new OptionError({
      path: [],
      problem: `${stranger}: not an option of ${what}: ${names.join(', ')}`,
    });
}

/** Checks the options of a wire. Throws OptionError. */
export function checkWire(options: WireOptions): Partial<Impairments> {
  if (!isMap(options))
    throw new OptionError({ path: [], problem: 'an object of options is needed' });
  const impair: Record<string, number> = {};
  for (const [name, value] of Object.entries(options)) {
    if (value === undefined) continue;
    if (!Object.hasOwn(WIRE, name)) known(options, Object.keys(WIRE), 'a wire');
    const [to, check] = WIRE[name as keyof WireOptions];
    impair[to] = checking([name], () => check(value));
  }
  return impair;
}

/** The options that a stack of a link has by its place: `number` is 1 for the first. */
function defaults(number: number): LinkStackOptions {
  const last = number.toString(16).padStart(2, '0');
  return {
    addr: `192.0.2.${number}/24`,
    addr6: `2001:db8::${number.toString(16)}/64`,
    mac: `02:00:00:00:00:${last}`,
  };
}

/** Checks one stack, but not the filters of its faults. Throws OptionError. */
function checkStack(name: string, given: unknown, number: number) {
  checking([], () => tapName(name));
  if (!isMap(given)) throw new OptionError({ path: [], problem: 'an object of options is needed' });
  known(given, STACK_OPTIONS, 'a stack on a link');
  for (const [option, value] of [
    ['addr', 'dhcp'],
    ['addr6', 'auto'],
  ] as const)
    if (given[option] === value)
      checking([option], () => wrong(value, 'a link has no server for it: give an address'));
  const set = Object.entries(given).filter(([, value]) => value !== undefined);
  return checkOptions(
    {
      ...configOf({ ...defaults(number), ...Object.fromEntries(set) }),
      tap: name,
      hostAddr: null,
      hostAddr6: null,
      engine: 'ts',
    },
    nicModels,
  );
}

/** Throws TapnicError if two stacks have the same address. */
function checkTwice(stacks: CheckedLink['stacks']): void {
  for (const option of ['addr', 'addr6', 'mac'] as const) {
    const seen = new Map<string, string>();
    for (const { name, settings } of stacks) {
      const value = settings.nic[option]?.replace(/\/.*/, '');
      if (value === undefined) continue;
      const other = seen.get(value);
      if (other !== undefined)
        throw new TapnicError(
          'EINVAL',
          'createLink',
          `stacks.${name}.${option}: ${value}: stacks.${other} has it`,
        );
      seen.set(value, name);
    }
  }
}

async function checkStacks(stacks: unknown): Promise<CheckedLink['stacks']> {
  if (!isMap(stacks))
    throw new OptionError({ path: ['stacks'], problem: 'an object is needed, options by name' });
  const entries = Object.entries(stacks);
  if (entries.length < 2 || entries.length > NIC_SLOTS)
    throw new OptionError({ path: ['stacks'], problem: `2 to ${NIC_SLOTS} stacks are needed` });
  const checked: { name: string; settings: CheckedOptions }[] = [];
  for (const [i, [name, options]] of entries.entries())
    try {
      const settings = await compiledOptions(checkStack(name, options, i + 1));
      checked.push({ name, settings });
    } catch (e) {
      if (!(e instanceof OptionError)) throw e;
      const at = e.issue.path.length > 0 ? '.' : ': ';
      throw refusal('createLink', `stacks.${name}${at}`, e);
    }
  checkTwice(checked);
  return checked;
}

/** Checks the options of a link. Rejects with TapnicError EINVAL, which names the option. */
export async function checkLink(options: LinkOptions): Promise<CheckedLink> {
  try {
    if (!isMap(options))
      throw new OptionError({ path: [], problem: 'an object of options is needed' });
    known(options, LINK_OPTIONS, 'a link');
    const {
      stacks,
      time = 'auto',
      seed = 1,
      memory = '64M',
      sysctl = {},
      ...wire
    } = options as LinkOptions;
    const pairs = configOf({ sysctl }).sysctl ?? [];
    return {
      stacks: await checkStacks(stacks),
      wire: { ...WIRE_DEFAULTS, ...checkWire(wire) },
      time: checking(['time'], () => oneOf('auto', 'manual', 'real')(time)),
      seed: checking(['seed'], () => wholeNumber(0, 0xffffffff)(seed)),
      memory: checking(['memory'], () =>
        memorySize(typeof memory === 'string' ? sizeOf(memory) : memory),
      ),
      sysctl: checking(['sysctl'], () => pairs.map(sysctlPair)),
    };
  } catch (e) {
    throw refusal('createLink', '', e);
  }
}
