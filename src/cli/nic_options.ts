/**
 * The NIC options of a command: texts from the command line and a --config file become the
 * StackConfig that `checkOptions` (src/machine/options.ts) checks, and its errors become one line that
 * names the flag or the place in the file. Imported only by what brings a NIC up: zod takes time to load.
 */

import type { NicModelInfo } from '../machine/nic_model.ts';
import { issueText, OptionError, type OptionIssue } from '../machine/option_error.ts';
import { addressOf, capturePointOf, faultOf, numberOf, sizeOf } from '../machine/option_texts.ts';
import { type CheckedOptions, checkOptions, type StackConfig } from '../machine/options.ts';
import { UsageError } from './command.ts';
import { parseAddNic } from './add_nic.ts';
import { readConfig } from './config_file.ts';
import { flagKey, flagOf, NIC_FLAGS, optionOf, type OwnTexts, type RawFlags } from './nic_flags.ts';

/** Everything the NIC options say. */
export interface NicSettings extends Omit<CheckedOptions, 'warnings'> {
  readonly control: string | null;
  /** The command's own keys, such as `port`, by name; from the command line or the file. */
  readonly own: OwnTexts;
  /** One line each. */
  readonly warnings: string[];
}

type Given = string | string[];

/** The options that were given, by flag, and where each is from. */
interface Texts {
  values: Record<string, Given>;
  /** `--mtu`, or `FILE:LINE:COLUMN`. */
  where: Map<string, string>;
  own: OwnTexts;
}

const REPEATED = NIC_FLAGS.filter(({ repeat }) => repeat).map(({ name }) => name);

/** Puts the file under the command line; `ownKeys` are the command's own options. */
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
      if (ownKeys.includes(key)) own[key] = { text: texts[0]!, where: at };
      else values[key] = REPEATED.includes(key) ? texts : texts[0]!;
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

/** `NAME=VALUE` in two; `what` says how it is written. Throws Error. */
function pair(text: string, what: string): [string, string] {
  const eq = text.indexOf('=');
  if (eq < 1 || eq === text.length - 1) throw new Error(`${text}: ${what} is needed`);
  return [text.slice(0, eq), text.slice(eq + 1)];
}

function captureOf(text: string): object {
  const [at, file] = pair(text, 'POINT=FILE');
  return { ...capturePointOf(at), file };
}

const orNone = (text: string): string | null => (text === 'none' ? null : text);

function booleanOf(text: string): boolean {
  if (text !== 'true' && text !== 'false') throw new Error(`${text}: true or false`);
  return text === 'true';
}

const words = (text: string): string[] => text.split(',').filter((word) => word !== '');

/** How the text of a flag is read; for a repeated flag, each of its texts. Others are texts. */
const READ: Readonly<Record<string, (text: string) => unknown>> = {
  'host-addr': orNone,
  'host-addr6': orNone,
  gateway: orNone,
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

/** The data that the texts stand for. Throws UsageError for a text that has no such form. */
function configOf({ values, where }: Texts): StackConfig {
  const config: Record<string, unknown> = {};
  for (const [name, given] of Object.entries(values)) {
    if (name === 'control') continue;
    const read = READ[name] ?? ((text: string) => text);
    try {
      config[optionOf(name)] = typeof given === 'string' ? read(given) : given.map(read);
    } catch (e) {
      throw new UsageError(`${where.get(name) ?? `--${name}`}: ${(e as Error).message}`);
    }
  }
  // Values may still be of other types: checkOptions refuses them.
  return config;
}

/** One line about an option, which names it by its flag or by its place in the file. */
function lineOf(issue: OptionIssue, { values, where }: Texts): string {
  const place = (option: string): string => where.get(flagOf(option)) ?? `--${flagOf(option)}`;
  const spell = (option: string): string => {
    const flag = flagOf(option);
    const at = place(option);
    return at === `--${flag}` ? at : `${flag} (${at})`;
  };
  const [option] = issue.path;
  if (option === undefined) return issueText(issue, spell);
  const given = values[flagOf(String(option))];
  // A number as the user wrote it: 0x1001, not 4097.
  const own =
    issue.path.length === 1 && typeof issue.value === 'number' && typeof given === 'string';
  return `${place(String(option))}: ${issueText(own ? { ...issue, value: given } : issue, spell)}`;
}

function checked(texts: Texts, models: readonly NicModelInfo[]): CheckedOptions {
  try {
    return checkOptions(configOf(texts), models);
  } catch (e) {
    throw e instanceof OptionError ? new UsageError(lineOf(e.issue, texts)) : e;
  }
}

/**
 * Reads and checks the options given in `raw` and in the file it names. `ownKeys` are the command's own
 * options, passed through as text. Throws UsageError with one line that says where and why.
 */
export function resolveNicOptions(
  raw: RawFlags,
  models: readonly NicModelInfo[],
  ownKeys: readonly string[] = [],
): NicSettings {
  const texts = collect(raw, ownKeys);
  const { control = null } = texts.values;
  if (control === '')
    throw new UsageError(`${texts.where.get('control') ?? '--control'}: a path is needed`);
  const settings = checked(texts, models);
  return {
    ...settings,
    control: control === null ? null : String(control),
    own: texts.own,
    warnings: settings.warnings.map((warning) => lineOf(warning, texts)),
  };
}
