/** The library's options as a StackConfig, and the messages of wrong ones as the library spells them. */

import { TapnicError } from '../sys/errno.ts';
import { nicModels } from './nic_models.ts';
import { checking, issueText, OptionError, type OptionIssue } from './option_error.ts';
import { addressOf, capturePlacesOf, faultOf, sizeOf } from './option_texts.ts';
import { type CheckedOptions, checkOptions, compiledOptions, type StackConfig } from './options.ts';

export const isMap = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value);

/** Returns the entries of an option that is an object. Throws OptionError for other values. */
function entriesOf(option: string, value: unknown): [string, unknown][] {
  if (isMap(value)) return Object.entries(value);
  throw new OptionError({ path: [option], problem: 'an object is needed, values by name' });
}

/** Converters of the options whose form in the library differs from that in a StackConfig. */
const READ: Readonly<Record<string, (value: unknown) => unknown>> = {
  memory: (value) => (typeof value === 'string' ? sizeOf(value) : value),
  physBase: (value) => (typeof value === 'string' ? addressOf(value) : value),
  capture: (value) =>
    entriesOf('capture', value).map(([point, file]) => ({ places: capturePlacesOf(point), file })),
  sysctl: (value) => entriesOf('sysctl', value),
  fault: (value) => {
    if (!Array.isArray(value)) return value;
    return value.map((fault: unknown, i) =>
      typeof fault === 'string' ? checking(['fault', i], () => faultOf(fault)) : fault,
    );
  },
};

/**
 * Converts the library's options to a StackConfig. Values may still have wrong types: checkOptions
 * rejects them.
 */
export function configOf(options: object): StackConfig {
  // checkOptions rejects a value that is not an object.
  if (!isMap(options)) return options;
  return Object.fromEntries(
    Object.entries(options).map(([name, value]) => {
      const read = value === undefined ? undefined : READ[name];
      return [name, read === undefined ? value : read(value)];
    }),
  );
}

/** Formats an issue as one line, with the library's spelling of options. */
export function lineOf(issue: OptionIssue): string {
  const [option] = issue.path;
  const quoted =
    issue.wants === 'number' ? { ...issue, value: JSON.stringify(issue.value) } : issue;
  const text = issueText(quoted, (name) => name);
  return option === undefined ? text : `${option}: ${text}`;
}

/** The checked options of a stack on TAP interfaces. Rejects with TapnicError EINVAL. */
export async function checkedStack(options: object): Promise<CheckedOptions> {
  try {
    return await compiledOptions(checkOptions(configOf(options), nicModels));
  } catch (e) {
    if (!(e instanceof OptionError)) throw e;
    throw new TapnicError('EINVAL', 'createStack', lineOf(e.issue));
  }
}
