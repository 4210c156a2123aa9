/** The arguments of `connect` and `listen` of node:net's sockets and servers, checked as Node does it. */

import { ADDRCONFIG, ALL, V4MAPPED } from 'node:dns';
import { inspect } from 'node:util';
import type { LookupFunction, NetHost } from './net_host.ts';
import {
  invalidArgType,
  invalidArgValue,
  nodeError,
  outOfRange,
  portNumber,
} from './node_errors.ts';
import { parseInAddr } from '../netinet/in.ts';
import { parseIn6 } from '../netinet6/in6.ts';

/** The family of a numeric address without a port: 4, 6, or 0 for other text. */
export function isIP(text: string): 0 | 4 | 6 {
  if (parseInAddr(text) !== null) return 4;
  return parseIn6(text.split('%')[0]!) === null ? 0 : 6;
}

/** The peer of `connect`, and our own address, as net.Socket's. */
export interface ConnectOptions {
  /** 0 to 65535, as a number or as text. */
  readonly port: number | string;
  /**
   * An IPv4 or IPv6 address, such as `fe80::1%tn0`, or a name. Default `localhost`, which is the stack's
   * own lo0.
   */
  readonly host?: string | undefined;
  /** The local address and port. Default: chosen. */
  readonly localAddress?: string | undefined;
  readonly localPort?: number | undefined;
  /** 4 or 6: the only family to ask for. */
  readonly family?: number | 'IPv4' | 'IPv6' | undefined;
  readonly hints?: number | undefined;
  /** Resolves `host` if it is a name. Default: dns.lookup of the Linux side. */
  readonly lookup?: LookupFunction | undefined;
  /** Whether all addresses are tried, alternating between the families. Default true. */
  readonly autoSelectFamily?: boolean | undefined;
  /** How long one of them is tried, ms; at least 10. Default 250. */
  readonly autoSelectFamilyAttemptTimeout?: number | undefined;
  /** The argument of `setTimeout`, with `connect` and `createConnection`. */
  readonly timeout?: number | undefined;
}

/** Arguments in one form: an object of options, and the last argument if it is a function. */
interface NormalArgs {
  readonly options: Record<string, unknown>;
  readonly listener: (() => void) | null;
}

/** Whether a string is a path and not a port. */
function isPath(value: unknown): value is string {
  return typeof value === 'string' && !(Number(value) >= 0);
}

/** `(options)`, `(path)`, `(port, host)`, each with a listener behind. */
export function normalArgs(args: readonly unknown[]): NormalArgs {
  const last = args.at(-1);
  const listener = typeof last === 'function' ? (last as NormalArgs['listener']) : null;
  const [first, second] = args;
  if (args.length === 0) return { options: {}, listener };
  if (typeof first === 'object' && first !== null)
    return { options: first as Record<string, unknown>, listener };
  if (isPath(first)) return { options: { path: first }, listener };
  const options: Record<string, unknown> = { port: first };
  if (typeof second === 'string') options['host'] = second;
  return { options, listener };
}

/** Checked arguments of `connect`. */
export interface ConnectRequest {
  readonly host: string;
  readonly port: number;
  readonly localAddress: string | undefined;
  readonly localPort: number | undefined;
  /** What `lookup` gets; 4 or 6: the only family. */
  readonly family: number | undefined;
  readonly hints: number;
  readonly lookup: LookupFunction | null;
  /** Whether all addresses of a name are tried, each for `attemptMs`. */
  readonly autoSelectFamily: boolean;
  readonly attemptMs: number;
}

/** An address or a name. A value of another type has no such text. */
const textOf = (value: unknown): string => (typeof value === 'string' ? value : inspect(value));

const ATTEMPT_MIN_MS = 10;
const INT32_MAX = 0x7fffffff;

function noPath(call: string, options: Record<string, unknown>): Error {
  const remedy = `: a stack has no Unix domain sockets; ${call} to a port, or use node:net`;
  return invalidArgValue('options.path', options['path'], `is not supported${remedy}`);
}

function familyOf(family: unknown): number | undefined {
  if (family === 'IPv4') return 4;
  return family === 'IPv6' ? 6 : (family as number | undefined);
}

function attemptMsOf(ms: unknown, defaultMs: number): number {
  const name = 'options.autoSelectFamilyAttemptTimeout';
  if (ms === undefined || ms === null) return defaultMs;
  if (typeof ms !== 'number') throw invalidArgType(name, 'of type number', ms);
  if (!Number.isInteger(ms)) throw outOfRange(name, 'an integer', ms);
  if (ms < 1 || ms > INT32_MAX) throw outOfRange(name, `>= 1 && <= ${INT32_MAX}`, ms);
  return Math.max(ms, ATTEMPT_MIN_MS);
}

/**
 * Checks the options of `connect`. Throws ERR_MISSING_ARGS, ERR_SOCKET_BAD_PORT, ERR_INVALID_ARG_TYPE,
 * ERR_INVALID_ARG_VALUE (a path), ERR_INVALID_IP_ADDRESS, ERR_OUT_OF_RANGE.
 */
export function connectRequest(
  options: Record<string, unknown>,
  { autoSelect }: NetHost,
): ConnectRequest {
  const { port, path, localAddress, localPort, lookup, autoSelectFamily } = options;
  if (path) {
    if (typeof path !== 'string') throw invalidArgType('options.path', 'of type string', path);
    throw noPath('connect', options);
  }
  if (port === undefined)
    throw nodeError(
      'ERR_MISSING_ARGS',
      'The "options" or "port" or "path" argument must be specified',
      TypeError,
    );
  const local = localAddress ? textOf(localAddress) : undefined;
  if (local !== undefined && isIP(local) === 0)
    throw nodeError('ERR_INVALID_IP_ADDRESS', `Invalid IP address: ${local}`, TypeError);
  if (localPort && typeof localPort !== 'number')
    throw invalidArgType('options.localPort', 'of type number', localPort);
  if (typeof port !== 'number' && typeof port !== 'string')
    throw invalidArgType('options.port', 'one of type number or string', port);
  const number = portNumber(port);
  if (
    autoSelectFamily !== undefined &&
    autoSelectFamily !== null &&
    typeof autoSelectFamily !== 'boolean'
  )
    throw invalidArgType('options.autoSelectFamily', 'of type boolean', autoSelectFamily);
  const attemptMs = attemptMsOf(options['autoSelectFamilyAttemptTimeout'], autoSelect.attemptMs());
  if (lookup !== undefined && lookup !== null && typeof lookup !== 'function')
    throw invalidArgType('options.lookup', 'of type function', lookup);
  const host = textOf(options['host'] || 'localhost');
  const hints = Number(options['hints'] ?? 0);
  // A `lookup` of the program checks the hints itself.
  if (!lookup && (hints & ~(ADDRCONFIG | ALL | V4MAPPED)) !== 0 && isIP(host) === 0)
    throw invalidArgValue('hints', hints);
  const family = familyOf(options['family']);
  const one = family === 4 || family === 6;
  return {
    host,
    port: number,
    localAddress: local,
    localPort: typeof localPort === 'number' && localPort !== 0 ? localPort : undefined,
    family,
    hints: hints || (one ? 0 : ADDRCONFIG),
    lookup: (lookup as LookupFunction | undefined) ?? null,
    autoSelectFamily: (autoSelectFamily ?? autoSelect.enabled()) && !one && !localAddress,
    attemptMs,
  };
}

/** Checked arguments of `listen`. */
interface ListenRequest {
  readonly port: number;
  /** Null: all addresses. */
  readonly host: string | null;
  readonly backlog: number;
  readonly ipv6Only: boolean;
  readonly signal: AbortSignal | null;
  readonly listener: (() => void) | null;
}

/** A positive number of an argument of `listen`; else 0. */
const countOf = (value: unknown): number => {
  const n = Number(value);
  return n > 0 ? n : 0;
};

function signalOf(signal: unknown): AbortSignal | null {
  if (signal === undefined) return null;
  if (typeof signal === 'object' && signal !== null && 'aborted' in signal)
    return signal as AbortSignal;
  throw invalidArgType('options.signal', 'an instance of AbortSignal', signal);
}

/**
 * Checks the arguments of `listen`: `(port, host, backlog)`, each of them optional, `(options)`, and a
 * listener behind. `defaultBacklog`: the backlog if the arguments have none. Throws ERR_SOCKET_BAD_PORT,
 * ERR_INVALID_ARG_VALUE (also for a path or a descriptor), ERR_INVALID_ARG_TYPE.
 */
export function listenRequest(args: readonly unknown[], defaultBacklog: number): ListenRequest {
  const { options, listener } = normalArgs(args);
  const { port, host, path, fd } = options;
  const signal = signalOf(options['signal']);
  if (typeof fd === 'number' && fd >= 0)
    throw invalidArgValue(
      'options.fd',
      fd,
      'is not supported: a stack has no descriptors of Linux',
    );
  const any =
    args.length === 0 ||
    typeof args[0] === 'function' ||
    port === null ||
    (port === undefined && 'port' in options);
  if (!any && typeof port !== 'number' && typeof port !== 'string') {
    if (isPath(path)) throw noPath('listen', options);
    const known = 'port' in options || 'path' in options;
    throw invalidArgValue(
      'options',
      options,
      known ? 'is invalid' : 'must have the property "port" or "path"',
    );
  }
  const backlog = countOf(options['backlog']) || countOf(args[1]) || countOf(args[2]);
  return {
    port: any ? 0 : portNumber(port, 'options.port'),
    host: host ? textOf(host) : null,
    backlog: backlog || defaultBacklog,
    ipv6Only: options['ipv6Only'] === true,
    signal,
    listener,
  };
}
