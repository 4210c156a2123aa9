/**
 * Option errors as data. Each front end (command line, YAML, library) prints the error with its own
 * spelling of the option's name.
 */

/** A front end's spelling of an option's name: `--mtu` for `mtu`. */
export type Spell = (option: string) => string;

/** A text, or a function of the spelling if the text names another option. */
export type OptionText = string | ((spell: Spell) => string);

export interface OptionIssue {
  /** Path from the option's name, such as `['ports', 1, 'mtu']`; empty: the options as a whole. */
  readonly path: readonly (string | number)[];
  /** The given value; undefined if the message does not show it. */
  readonly value?: unknown;
  /**
   * Set if the value is a text but must be a number; a front end that accepts numbers prints it in
   * quotes.
   */
  readonly wants?: 'number';
  /** What is wrong. */
  readonly problem: OptionText;
  /** A valid value. */
  readonly example?: string;
  /** What to do, or the valid choices. */
  readonly remedy?: OptionText;
}

function shown(value: unknown): string {
  if (typeof value === 'string') return value === '' ? "''" : value;
  return typeof value === 'number' ? String(value) : JSON.stringify(value);
}

/** `192.0.2.2: not an IPv4 address, such as 192.0.2.1`: the message without the option's name. */
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

/** The error of a wrong option. Its message spells options as the library does. */
export class OptionError extends Error {
  readonly issue: OptionIssue;

  constructor(issue: OptionIssue) {
    super(issueText(issue, (option) => option));
    this.issue = issue;
  }
}

/** Throws OptionError for `value`. The path is empty; `checking` fills it in. */
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
