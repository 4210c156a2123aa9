/**
 * What is wrong with an option, as data: each front (command line, YAML, library) names the option in
 * its own spelling when it prints the error.
 */

/** How a front spells the name of an option: `--mtu` for `mtu`. */
export type Spell = (option: string) => string;

/** A text; one that names another option is a function of how the front spells it. */
export type OptionText = string | ((spell: Spell) => string);

export interface OptionIssue {
  /** From the option's name down, such as `['ports', 1, 'mtu']`; empty: the options as a whole. */
  readonly path: readonly (string | number)[];
  /** The value as it was given; undefined if the message does not show it. */
  readonly value?: unknown;
  /** Set if the value is a text where a number is needed; a front that takes numbers quotes it. */
  readonly wants?: 'number';
  /** What is wrong. */
  readonly problem: OptionText;
  /** A value that is right. */
  readonly example?: string;
  /** What to do, or what there is to choose from. */
  readonly remedy?: OptionText;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return value;
  return typeof value === 'number' ? String(value) : JSON.stringify(value);
}

/** `192.0.2.2: not an IPv4 address, such as 192.0.2.1`: all but the option's own name. */
export function issueText(issue: OptionIssue, spell: Spell): string {
  const say = (text: OptionText): string => (typeof text === 'string' ? text : text(spell));
  const { value, problem, example, remedy } = issue;
  return [
    value === undefined ? '' : `${shown(value)}: `,
    say(problem),
    example === undefined ? '' : `, such as ${example}`,
    remedy === undefined ? '' : `: ${say(remedy)}`,
  ].join('');
}

/** An option that is wrong. The message spells options as the library does. */
export class OptionError extends Error {
  readonly issue: OptionIssue;

  constructor(issue: OptionIssue) {
    super(issueText(issue, (option) => option));
    this.issue = issue;
  }
}

/** Throws OptionError for `value`, with a path for the caller to fill in. */
export function wrong(
  value: unknown,
  problem: OptionText,
  more: Pick<OptionIssue, 'example' | 'remedy' | 'wants'> = {},
): never {
  throw new OptionError({ path: [], value, problem, ...more });
}

/** Runs a check and puts `path` before the path of the OptionError that it throws. */
export function checking<T>(path: OptionIssue['path'], check: () => T): T {
  try {
    return check();
  } catch (e) {
    if (!(e instanceof OptionError)) throw e;
    throw new OptionError({ ...e.issue, path: [...path, ...e.issue.path] });
  }
}
