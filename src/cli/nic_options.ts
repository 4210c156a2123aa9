/**
 * The NIC options of a command: texts from the command line and a --config file become the
 * StackConfig that `checkOptions` (src/machine/options.ts) checks, and each error becomes one line
 * that names the flag or the place in the file. Only commands that bring up a NIC import this file,
 * because zod takes time to load.
 */

import type { NicModelInfo } from '../machine/nic_model.ts';
import { issueText, OptionError, type OptionIssue } from '../machine/option_error.ts';
import { addressOf, capturePlacesOf, faultOf, numberOf, sizeOf } from '../machine/option_texts.ts';
import {
  type CheckedOptions,
  checkOptions,
  compiledOptions,
  type OptionsDraft,
  type StackConfig,
} from '../machine/options.ts';
import { UsageError } from './command.ts';
import { parseAddNic } from './add_nic.ts';
import { readConfig } from './config_file.ts';
import { flagKey, flagOf, NIC_FLAGS, optionOf, type OwnTexts, type RawFlags } from './nic_flags.ts';

/** The checked NIC options. */
export interface NicSettings extends Omit<CheckedOptions, 'warnings'> {
  readonly control: string | null;
  /** The command's own keys, such as `port`, by name; from the command line or the file. */
  readonly own: OwnTexts;
  /** One line each. */
  readonly warnings: string[];
  /** Where each setting of `sysctl` was given: `--sysctl`, or `FILE:LINE:COLUMN`. */
  readonly sysctlWhere: readonly string[];
}

type Given = string | string[];

/** The options that were given, by flag, and the origin of each. */
interface Texts {
  values: Record<string, Given>;
  /** `--mtu`, or `FILE:LINE:COLUMN`; for a repeated flag, of each of its texts. */
  where: Map<string, readonly string[]>;
  own: OwnTexts;
}

/** Returns the origin of a flag, or of its i-th text if it is repeated. */
function placeOf({ where }: Pick<Texts, 'where'>, name: string, i = 0): string {
  const places = where.get(name);
  return places?.[i] ?? places?.[0] ?? `--${name}`;
}

const REPEATED = NIC_FLAGS.filter(({ repeat }) => repeat).map(({ name }) => name);

/**
 * Collects the options of the file and the command line, which wins. `ownKeys` are the command's
 * own options.
 */
function collect(raw: RawFlags, ownKeys: readonly string[]): Texts {
  const values: Texts['values'] = {};
  const where: Texts['where'] = new Map();
  const own: Texts['own'] = {};
  const names = [...NIC_FLAGS.map(({ name }) => name), ...ownKeys];
  const { config } = raw;
  if (typeof config === 'string')
    for (const { key, texts, where: at } of readConfig(config, {
      names,
      repeated: REPEATED,
      lists: ['cap'],
    })) {
      where.set(key, at);
      if (ownKeys.includes(key)) own[key] = { text: texts[0]!, where: at[0]! };
      else values[key] = REPEATED.includes(key) ? texts : texts[0]!;
    }
  for (const name of names) {
    const value = raw[flagKey(name)];
    if (value === undefined) continue;
    const given = typeof value === 'boolean' ? String(value) : value;
    const here = [given].flat().map(() => `--${name}`);
    // Keep both lists: for one sysctl the last value wins.
    where.set(name, name === 'sysctl' ? [...(where.get(name) ?? []), ...here] : here);
    if (ownKeys.includes(name)) own[name] = { text: String(given), where: `--${name}` };
    else if (name === 'sysctl') values[name] = [values[name] ?? [], given].flat();
    else values[name] = given;
  }
  return { values, where, own };
}

/** Splits `NAME=VALUE`; `what` is the expected form for the message. Throws Error. */
function pair(text: string, what: string): [string, string] {
  const eq = text.indexOf('=');
  if (eq < 1 || eq === text.length - 1) throw new Error(`${text || "''"}: ${what} is needed`);
  return [text.slice(0, eq), text.slice(eq + 1)];
}

function captureOf(text: string): object {
  const [at, file] = pair(text, 'POINT=FILE');
  return { places: capturePlacesOf(at), file };
}

const orNone = (text: string): string | null => (text === 'none' ? null : text);

function booleanOf(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new Error(`${text}: true or false`);
  return text === 'true';
}

const words = (text: string): string[] => text.split(',').filter((word) => word !== '');

/** Parsers of flag texts; for a repeated flag, of each text. Other flags stay texts. */
const READ: Readonly<Record<string, (text: string) => unknown>> = {
  'host-addr': orNone,
  'host-addr6': orNone,
  addr6: orNone,
  gateway: orNone,
  gateway6: orNone,
  mtu: numberOf,
  cap: words,
  'add-nic': parseAddNic,
  capture: captureOf,
  sysctl: (text) => pair(text, 'NAME=VALUE'),
  fault: faultOf,
  memory: sizeOf,
  'phys-base': addressOf,
  iommu: booleanOf,
  'dma-check': booleanOf,
  seed: numberOf,
};

/** Converts the texts to a StackConfig. Throws UsageError for a text of a wrong form. */
function configOf(texts: Texts): StackConfig {
  const config: Record<string, unknown> = {};
  for (const [name, given] of Object.entries(texts.values)) {
    if (name === 'control') continue;
    const read = (text: string, i = 0): unknown => {
      try {
        return (READ[name] ?? String)(text);
      } catch (e) {
        throw new UsageError(`${placeOf(texts, name, i)}: ${(e as Error).message}`);
      }
    };
    config[optionOf(name)] = typeof given === 'string' ? read(given) : given.map(read);
  }
  // Values may still have wrong types: checkOptions rejects them.
  return config;
}

/** Formats an issue as one line that names the option's flag or its place in the file. */
function lineOf(issue: OptionIssue, texts: Texts): string {
  const { values } = texts;
  const spell = (option: string): string => {
    const flag = flagOf(option);
    const at = placeOf(texts, flag);
    return at === `--${flag}` ? at : `${flag} (${at})`;
  };
  const [option, item] = issue.path;
  if (option === undefined) return issueText(issue, spell);
  const given = values[flagOf(String(option))];
  // Show a number as the user wrote it: 0x1001, not 4097.
  const own =
    issue.path.length === 1 && typeof issue.value === 'number' && typeof given === 'string';
  const at = placeOf(texts, flagOf(String(option)), typeof item === 'number' ? item : 0);
  return `${at}: ${issueText(own ? { ...issue, value: given } : issue, spell)}`;
}

/** An OptionError becomes a UsageError; other errors stay the same. */
function usageError(e: unknown, texts: Texts): unknown {
  return e instanceof OptionError ? new UsageError(lineOf(e.issue, texts)) : e;
}

function checked(texts: Texts, models: readonly NicModelInfo[]): OptionsDraft {
  try {
    return checkOptions(configOf(texts), models);
  } catch (e) {
    throw usageError(e, texts);
  }
}

/** The checked NIC options, except the filters of faults. */
interface NicSettingsDraft extends Omit<NicSettings, 'nic'> {
  readonly nic: OptionsDraft['nic'];
}

/** The NIC options of a command. */
interface ResolvedOptions {
  readonly draft: NicSettingsDraft;
  /** Compiles the filters of faults. Rejects with UsageError. */
  compiled(): Promise<NicSettings>;
}

/**
 * Reads and checks the options in `raw` and in its --config file. `ownKeys` are the command's own
 * options, which are returned as text. Throws UsageError with one line that names the place and the
 * problem.
 */
export function resolveNicOptions(
  raw: RawFlags,
  models: readonly NicModelInfo[],
  ownKeys: readonly string[] = [],
): ResolvedOptions {
  const texts = collect(raw, ownKeys);
  const { control = null } = texts.values;
  if (control === '') throw new UsageError(`${placeOf(texts, 'control')}: a path is needed`);
  const draft = checked(texts, models);
  const rest = {
    control: control === null ? null : String(control),
    own: texts.own,
    warnings: draft.warnings.map((warning) => lineOf(warning, texts)),
    sysctlWhere: texts.where.get('sysctl') ?? [],
  };
  const compiled = async (): Promise<NicSettings> => {
    try {
      return { ...(await compiledOptions(draft)), ...rest };
    } catch (e) {
      throw usageError(e, texts);
    }
  };
  return { draft: { ...draft, ...rest }, compiled };
}
