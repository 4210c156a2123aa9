/**
 * How `connect` finds the peer: it resolves a host name, by default as the Linux side does, and tries
 * several addresses one after the other (RFC 8305), as net.Socket does.
 */

import { ETIMEDOUT, type Errno } from '../sys/errno.ts';
import { passUpcall, type Upcall } from '../sys/pass.ts';
import { Callout, callout_reset, callout_stop } from '../kern/kern_timeout.ts';
import { type ConnectRequest, isIP } from './net_args.ts';
import type { LookupAddress, LookupFunction, NetHost } from './net_host.ts';
import { nodeError, SocketError, unknownHost } from './node_errors.ts';
import { later } from './turns.ts';

/** The addresses of the stack's lo0. */
const LOCALHOST: readonly LookupAddress[] = [
  { address: '127.0.0.1', family: 4 },
  { address: '::1', family: 6 },
];

/**
 * dns.lookup for a stack: `localhost` is the stack's own lo0, an address is itself, and the function that
 * the stack has resolves any other name.
 */
export function stackLookup(host: NetHost): LookupFunction {
  return (hostname, options, callback) => {
    const { family = 0, all = false } = options;
    const ip = isIP(hostname);
    const local = /^localhost\.?$/i.test(hostname);
    if (ip === 0 && !local) {
      if (host.lookup === null) later(() => callback(unknownHost(hostname), ''));
      else host.lookup(hostname, options, callback);
      return;
    }
    const list = ip === 0 ? LOCALHOST : [{ address: hostname, family: ip }];
    const found = family === 0 || ip !== 0 ? list : list.filter((one) => one.family === family);
    later(() => {
      if (all) callback(null, found);
      else callback(null, found[0]!.address, found[0]!.family);
    });
  };
}

/** The error of an unusable result of a lookup; null if it is usable. */
function wrongResult(
  { address, family }: LookupAddress,
  { host, port }: ConnectRequest,
): Error | null {
  if (typeof address !== 'string' || isIP(address) === 0)
    return nodeError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${address}`, TypeError);
  if (family === 4 || family === 6) return null;
  const error = nodeError(
    'ERR_INVALID_ADDRESS_FAMILY',
    `Invalid address family: ${family} ${host}:${port}`,
    RangeError,
  );
  return Object.assign(error, { host, port });
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

/** How `Attempts` acts on its socket. */
interface AttemptHooks {
  /** Binds a new BSD socket and begins to connect. Returns what failed at once, or null. */
  dial(to: LookupAddress): DialFailure | null;
  /** Ends the attempt under way. */
  drop(): void;
  event(name: string, ...args: unknown[]): void;
  /** Several addresses will be tried. */
  several(attempted: string[]): void;
  /** All attempts failed. */
  failed(error: Error): void;
}

/** Why an attempt failed at once. */
export interface DialFailure {
  readonly error: SocketError;
  /** Whether `connect` failed, and not `bind`. */
  readonly connecting: boolean;
}

/** Finds the addresses of the peer and tries them one after the other, each but the last for a limited time. */
export class Attempts {
  readonly #request: ConnectRequest;
  readonly #hooks: AttemptHooks;
  /** Ends an attempt; null until several addresses are tried. */
  #timer: Callout | null = null;
  readonly #attempted: string[] = [];
  #left: LookupAddress[] = [];
  readonly #errors: SocketError[] = [];
  #several = false;
  #now: LookupAddress | null = null;
  #stopped = false;

  constructor(request: ConnectRequest, hooks: AttemptHooks) {
    this.#request = request;
    this.#hooks = hooks;
  }

  /** Begins: an address is tried in a later turn, a name is resolved. */
  start(stack: NetHost): void {
    const { host, family, hints, autoSelectFamily } = this.#request;
    const ip = isIP(host);
    if (ip !== 0) {
      later(() => this.#try([{ address: host, family: ip }]));
      return;
    }
    const query = { family, hints };
    const lookup = this.#request.lookup ?? stackLookup(stack);
    lookup(host, autoSelectFamily ? { ...query, all: true } : query, (error, result, of) => {
      if (error) this.#notFound(error, result, of);
      else if (typeof result === 'string' || !Array.isArray(result))
        this.#found([{ address: result as string, family: of ?? 0 }]);
      else this.#found(result as LookupAddress[]);
    });
  }

  #notFound(error: Error, result: unknown, of: number | undefined): void {
    const { host, autoSelectFamily } = this.#request;
    if (this.#stopped && autoSelectFamily) return;
    const address = autoSelectFamily ? undefined : result;
    this.#hooks.event('lookup', error, address, autoSelectFamily ? undefined : of, host);
    this.#failLater(error);
  }

  #failLater(error: Error): void {
    later(() => {
      if (!this.#stopped) this.#hooks.failed(error);
    });
  }

  #found(list: readonly LookupAddress[]): void {
    const { host, autoSelectFamily } = this.#request;
    if (this.#stopped && autoSelectFamily) return;
    for (const { address, family } of list) {
      this.#hooks.event('lookup', null, address, family, host);
      if (this.#stopped) return;
    }
    const valid = list.filter((one) => wrongResult(one, this.#request) === null);
    const usable = valid.filter(
      (one, i) => valid.findIndex(({ address }) => address === one.address) === i,
    );
    if (usable.length > 0) this.#try(interleaved(usable));
    else this.#failLater(wrongResult(list[0] ?? { address: '', family: 0 }, this.#request)!);
  }

  #try(list: LookupAddress[]): void {
    if (this.#stopped) return;
    this.#left = list;
    this.#several = list.length > 1;
    if (this.#several) {
      this.#hooks.several(this.#attempted);
      const late: Upcall = { upcall: () => this.#late() };
      this.#timer = new Callout({ run: () => passUpcall(late) });
    }
    this.#next();
  }

  /** Tries the next address. */
  #next(): void {
    const to = this.#left.shift();
    if (to === undefined) {
      this.#stopped = true;
      this.#hooks.failed(this.#failure());
      return;
    }
    this.#now = to;
    this.#attempted.push(`${to.address}:${this.#request.port}`);
    this.#emit('connectionAttempt');
    if (this.#stopped) return;
    const failure = this.#hooks.dial(to);
    if (failure !== null) {
      this.#failed(failure.error, failure.connecting && this.#several);
      return;
    }
    if (this.#left.length > 0) callout_reset(this.#timer!, this.#request.attemptMs * 1e6);
  }

  /** The attempt under way failed. */
  fail(error: SocketError): void {
    this.#failed(error, true);
  }

  #failed(error: SocketError, reported: boolean): void {
    this.#errors.push(error);
    this.#endTimer();
    this.#hooks.drop();
    if (reported) this.#emit('connectionAttemptFailed', error);
    if (!this.#stopped) this.#next();
  }

  /** No more attempts: the socket is connected or destroyed. */
  stop(): void {
    this.#stopped = true;
    this.#endTimer();
  }

  #endTimer(): void {
    if (this.#timer !== null) callout_stop(this.#timer);
  }

  /** The error of the attempt under way. */
  errorOf(errno: Errno): SocketError {
    const { port, localAddress, localPort } = this.#request;
    const error = new SocketError(errno, 'connect', { address: this.#now!.address, port });
    return localAddress !== undefined && localPort !== undefined
      ? Object.assign(error, { localAddress, localPort })
      : error;
  }

  #late(): void {
    if (this.#stopped || this.#now === null || this.#left.length === 0) return;
    this.#emit('connectionAttemptTimeout');
    this.#errors.push(this.errorOf(ETIMEDOUT));
    this.#hooks.drop();
    if (!this.#stopped) this.#next();
  }

  #emit(name: string, ...more: unknown[]): void {
    const { address, family } = this.#now!;
    this.#hooks.event(name, address, this.#request.port, family, ...more);
  }

  #failure(): Error {
    const [first] = this.#errors as [SocketError];
    if (!this.#several) return first;
    const text = this.#errors.map(({ message }) => message).join('; ');
    const { code, errno, syscall, address, port } = first;
    return Object.assign(new AggregateError(this.#errors, text), {
      code,
      errno,
      syscall,
      address,
      port,
    });
  }
}
