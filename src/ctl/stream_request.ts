/** Reads and checks the arguments of the streamed requests `ping` and `fetch`; see protocol.ts. */

import { parseInAddr } from '../netinet/in.ts';
import { parseIn6 } from '../netinet6/in6.ts';
import { ControlFailure, type ControlRequest } from './protocol.ts';

/** Redirects that `fetch` follows. */
export const FETCH_REDIRECTS = 5;

/** The largest data that fits into an IP packet with IP and ICMP headers. */
export const PING_SIZE_MAX = 65535 - 20 - 8;
/** The same with IPv6, whose length field does not count the IPv6 header. */
export const PING6_SIZE_MAX = 65535 - 8;
export const DAY_MS = 86_400_000;
const URL_MAX = 8192;

/** The arguments of `ping`; src/apps/ping documents the values. */
export interface PingRequest {
  readonly host: string;
  readonly count: number;
  readonly intervalMs: number;
  readonly size: number;
  readonly waitMs: number | null;
  readonly timeoutMs: number;
  readonly ttl: number | null;
  readonly dontFragment: boolean;
}

interface FetchRequest {
  readonly url: string;
  /** Milliseconds without traffic. */
  readonly idleMs: number;
}

type Args = ControlRequest['args'];

function fail(message: string): never {
  throw new ControlFailure('EINVAL', message);
}

/** Returns a number in [min, max], or `missing` if the argument is absent. */
function numberArg<T>(args: Args, name: string, min: number, max: number, missing: T): number | T {
  const value = args[name] ?? null;
  if (value === null) return missing;
  if (typeof value !== 'number' || !(value >= min && value <= max))
    return fail(`${name}: not a number from ${min} to ${max}`);
  return value;
}

function wholeArg<T>(args: Args, name: string, min: number, max: number, missing: T): number | T {
  const value = numberArg(args, name, min, max, missing);
  return value === missing || Number.isInteger(value) ? value : fail(`${name}: not a whole number`);
}

function textArg(args: Args, name: string, max: number): string {
  const value = args[name];
  if (typeof value !== 'string' || value === '' || value.length > max)
    return fail(`${name}: not a text of 1 to ${max} characters`);
  return value;
}

/** Bytes of an IPv6 address with the name of an interface. */
const HOST_MAX = 64;

/** Checks an IPv4 address, or an IPv6 address with an optional zone. */
function hostArg(args: Args): string {
  const host = textArg(args, 'host', HOST_MAX);
  const [addr = '', zone, more] = host.split('%');
  const six = parseIn6(addr) !== null && zone !== '' && more === undefined;
  return six || parseInAddr(host) !== null ? host : fail('host: not an IPv4 or IPv6 address');
}

/** Throws ControlFailure (EINVAL). */
export function readPing({ args }: ControlRequest): PingRequest {
  const host = hostArg(args);
  const sizeMax = host.includes(':') ? PING6_SIZE_MAX : PING_SIZE_MAX;
  return {
    host,
    count: wholeArg(args, 'count', 0, Number.MAX_SAFE_INTEGER, 0),
    intervalMs: numberArg(args, 'intervalMs', 1, DAY_MS, 1000),
    size: wholeArg(args, 'size', 0, sizeMax, 56),
    waitMs: numberArg(args, 'waitMs', 1, DAY_MS, null),
    timeoutMs: numberArg(args, 'timeoutMs', 0, DAY_MS, 0),
    ttl: wholeArg(args, 'ttl', 1, 255, null),
    dontFragment: args['dontFragment'] === true,
  };
}

/** Throws ControlFailure (EINVAL). */
export function readFetch({ args }: ControlRequest): FetchRequest {
  return {
    url: textArg(args, 'url', URL_MAX),
    idleMs: numberArg(args, 'idleMs', 1, DAY_MS, 60_000),
  };
}
