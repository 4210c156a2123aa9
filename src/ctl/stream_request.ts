/** Reads and checks the arguments of the streamed requests `ping` and `fetch`; see protocol.ts. */

import { ControlFailure, type ControlRequest } from './protocol.ts';

/** The largest data that fits into an IP packet with IP and ICMP headers. */
export const PING_SIZE_MAX = 65535 - 20 - 8;
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

/** Throws ControlFailure (EINVAL). */
export function readPing({ args }: ControlRequest): PingRequest {
  const host = textArg(args, 'host', 15);
  const bytes = host.split('.');
  if (bytes.length !== 4 || !bytes.every((b) => /^(0|[1-9]\d{0,2})$/.test(b) && Number(b) < 256))
    fail('host: not an IPv4 address');
  return {
    host,
    count: wholeArg(args, 'count', 0, Number.MAX_SAFE_INTEGER, 0),
    intervalMs: numberArg(args, 'intervalMs', 1, DAY_MS, 1000),
    size: wholeArg(args, 'size', 0, PING_SIZE_MAX, 56),
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
