/**
 * Resolution of host names for `connect`, by a function that the program passes, such as dns.lookup of
 * Node.js; and the order in which several addresses are tried (RFC 8305), as in net.Socket.
 */

import { ETIMEDOUT, errnoError, TapnicError } from '../sys/errno.ts';
import { passUpcall, type Upcall } from '../sys/pass.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { parseInAddr } from '../netinet/in.ts';
import { parseIn6 } from '../netinet6/in6.ts';
import type { ConnectOptions } from './dial.ts';

/** One result of a lookup. */
interface LookupAddress {
  readonly address: string;
  readonly family: number;
}

/** A function with the arguments of dns.lookup. */
export type LookupFunction = (
  hostname: string,
  options: { family?: number | undefined; hints?: number | undefined; all?: boolean },
  callback: (
    error: Error | null,
    address: string | readonly LookupAddress[],
    family?: number,
  ) => void,
) => void;

/** How `connect` resolves a name. */
export interface LookupOptions {
  /** 4 or 6: the only family to ask for. */
  readonly family?: number | undefined;
  readonly hints?: number | undefined;
  /** Resolves `host` if it is no address. Without it, a name is EINVAL. */
  readonly lookup?: LookupFunction | undefined;
  /** Whether all addresses are tried, alternating between the families. Default true. */
  readonly autoSelectFamily?: boolean | undefined;
  /** How long one of them is tried, ms; at least 10. Default 250. */
  readonly autoSelectFamilyAttemptTimeout?: number | undefined;
}

/** The family of a numeric address without a port: 4, 6, or 0 for other text. */
export function isIP(text: string): 0 | 4 | 6 {
  if (parseInAddr(text) !== null) return 4;
  return parseIn6(text.split('%')[0]!) === null ? 0 : 6;
}

function invalid({ address, family }: LookupAddress, host: string): TapnicError | null {
  if (typeof address !== 'string' || isIP(address) === 0)
    return new TapnicError('ERR_INVALID_IP_ADDRESS', 'connect', `${host}: not an address`);
  if (family === 4 || family === 6) return null;
  return new TapnicError('ERR_INVALID_ADDRESS_FAMILY', 'connect', `${host}: family ${family}`);
}

/** The addresses in the order of the attempts: alternating, the family of the first one first. */
function interleaved(list: readonly LookupAddress[]): LookupAddress[] {
  const first = list.filter(({ family }) => family === list[0]!.family);
  const others = list.filter(({ family }) => family !== list[0]!.family);
  const order: LookupAddress[] = [];
  for (let i = 0; i < Math.max(first.length, others.length); i++)
    order.push(...first.slice(i, i + 1), ...others.slice(i, i + 1));
  return order;
}

/**
 * Resolves `host` and calls `done` with the addresses to try, at least one, or with an error. `seen` is
 * called with each result, for the event 'lookup'. `bound`: the socket has a local address, which allows
 * one family only.
 */
export function resolveHost(
  host: string,
  options: LookupOptions & { readonly lookup: LookupFunction },
  bound: boolean,
  seen: (error: Error | null, address?: string, family?: number) => void,
  done: (error: Error | null, list: LookupAddress[]) => void,
): void {
  const { family, hints, lookup, autoSelectFamily = true } = options;
  const all = autoSelectFamily && family !== 4 && family !== 6 && !bound;
  const query = { family: family === 4 || family === 6 ? family : 0, hints: hints ?? 0 };
  lookup(host, all ? { ...query, all } : query, (error, result, resultFamily) => {
    if (error) {
      seen(error);
      done(error, []);
      return;
    }
    const list =
      typeof result === 'string'
        ? [{ address: result, family: resultFamily ?? isIP(result) }]
        : result;
    for (const { address, family: f } of list) seen(null, address, f);
    const valid = list.filter(
      (address, i) =>
        invalid(address, host) === null &&
        list.findIndex((other) => other.address === address.address) === i,
    );
    if (valid.length > 0) done(null, interleaved(valid));
    else done(invalid(list[0] ?? { address: '', family: 0 }, host), []);
  });
}

/** How `Attempts` acts on its socket. */
interface AttemptHooks {
  /** Begins to connect. Throws TapnicError. */
  dial(options: ConnectOptions): void;
  /** Ends the attempt under way. */
  drop(): void;
  event(name: string, ...args: unknown[]): void;
  /** All attempts failed. */
  failed(error: Error): void;
}

const ATTEMPT_MS = 250;
const ATTEMPT_MIN_MS = 10;

/**
 * Tries addresses one after the other, as net.Socket does: each but the last one for a limited time. If
 * all fail, the error is an AggregateError with those of the attempts; with one address that of it.
 */
export class Attempts {
  readonly #left: LookupAddress[];
  readonly #options: ConnectOptions;
  readonly #hooks: AttemptHooks;
  readonly #errors: Error[] = [];
  readonly #several: boolean;
  readonly #timer: Callout;
  #now: LookupAddress | null = null;

  constructor(list: readonly LookupAddress[], options: ConnectOptions, hooks: AttemptHooks) {
    this.#left = [...list];
    this.#several = list.length > 1;
    this.#options = options;
    this.#hooks = hooks;
    const late: Upcall = { upcall: () => this.#late() };
    this.#timer = new Callout({ run: () => passUpcall(late) });
  }

  /** Tries the next address. */
  next(): void {
    const to = this.#left.shift();
    if (to === undefined) {
      this.#hooks.failed(this.#failure());
      return;
    }
    this.#now = to;
    this.#emit('connectionAttempt');
    try {
      this.#hooks.dial({ ...this.#options, host: to.address });
    } catch (e) {
      this.fail(e as Error);
      return;
    }
    const { autoSelectFamilyAttemptTimeout: ms = ATTEMPT_MS } = this.#options;
    if (this.#left.length > 0) callout_reset(this.#timer, Math.max(ms, ATTEMPT_MIN_MS) * 1e6);
  }

  /** The attempt under way failed. */
  fail(error: Error): void {
    this.#emit('connectionAttemptFailed', error);
    this.#errors.push(error);
    this.stop();
    this.#hooks.drop();
    this.next();
  }

  /** Ends the time limit of the attempt under way. */
  stop(): void {
    callout_stop(this.#timer);
    this.#now = null;
  }

  #late(): void {
    const to = this.#now;
    if (to === null || this.#left.length === 0) return;
    this.#emit('connectionAttemptTimeout');
    const { port } = this.#options;
    this.#errors.push(errnoError(ETIMEDOUT, `connect ${to.address}:${port}`));
    this.#hooks.drop();
    this.next();
  }

  #emit(name: string, ...more: unknown[]): void {
    const { address, family } = this.#now!;
    if (this.#several) this.#hooks.event(name, address, this.#options.port, family, ...more);
  }

  #failure(): Error {
    const [first] = this.#errors as [Error & { code?: string }];
    if (!this.#several) return first;
    const error = new AggregateError(this.#errors, 'connect: all addresses failed');
    return Object.assign(error, { code: first.code, syscall: 'connect' });
  }
}
