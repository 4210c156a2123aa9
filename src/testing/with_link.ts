/** `withLink`: a test on a simulated link, in virtual time and without privileges. */

import { createLink } from '../index.ts';
import type { Link } from '../machine/link.ts';
import type { LinkOptions, LinkStackOptions } from '../machine/link_options.ts';
import type { Stack } from '../machine/stack.ts';
import { TapnicError } from '../sys/errno.ts';
import { virtualLinks } from './expect_frames.ts';
import { fixture, type FixtureOptions, type TestFunction } from './fixture.ts';

/** Options of withLink: those of createLink. `stacks` is optional: `client` and `server`. */
export interface WithLinkOptions<Name extends string = 'client' | 'server'>
  extends Omit<LinkOptions<Name>, 'stacks'>, FixtureOptions {
  readonly stacks?: Readonly<Record<Name, LinkStackOptions>>;
}

/** What a test gets: the link, and each stack under its name. */
export type LinkTest<Name extends string> = {
  readonly link: Link<Name>;
  /** `link.advance`. */
  readonly advance: (ms: number) => Promise<void>;
} & { readonly [N in Name]: Stack };

type LinkBody<Name extends string> = (test: LinkTest<Name>) => unknown;

const RESERVED = ['link', 'advance'];
/**
 * A test function, for mocha, node:test and vitest, that creates a link, runs `body` with it and closes it. The test fails
 * if anything leaks. Throws TapnicError EINVAL: no function, or a stack is called `link` or `advance`.
 */
export function withLink(body: LinkBody<'client' | 'server'>): TestFunction;
export function withLink<Name extends string = 'client' | 'server'>(
  options: WithLinkOptions<Name>,
  body: LinkBody<Name>,
): TestFunction;
export function withLink<Name extends string>(
  first: WithLinkOptions<Name> | LinkBody<Name>,
  second?: LinkBody<Name>,
): TestFunction {
  const body = typeof first === 'function' ? first : second;
  const options = typeof first === 'function' ? {} : first;
  if (typeof body !== 'function')
    throw new TapnicError('EINVAL', 'withLink', 'a function that runs the test is needed');
  const { keepCapture = true, stacks, ...rest } = options;
  const hosts = stacks ?? ({ client: {}, server: {} } as Record<Name, LinkStackOptions>);
  const taken = Object.keys(hosts).find((name) => RESERVED.includes(name));
  if (taken !== undefined)
    throw new TapnicError('EINVAL', 'withLink', `stacks.${taken}: choose another name`);
  const open = async () => {
    const link = await createLink<Name>({ ...rest, stacks: hosts });
    const named = Object.entries<Stack>(link.stacks).map(([name, stack]) => ({ name, stack }));
    if (rest.time !== 'real') for (const { stack } of named) virtualLinks.set(stack, link);
    return {
      context: { ...link.stacks, link, advance: (ms: number) => link.advance(ms) },
      stacks: named,
      close: () => link.close(),
      repeat: `seed of the link: ${rest.seed ?? 1}; the run is the same with the same seed`,
    };
  };
  return fixture({ keepCapture }, open, body);
}
