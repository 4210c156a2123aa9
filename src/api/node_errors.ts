/**
 * Errors as node:net and node:dgram have them: those of wrong arguments, which are thrown, and those of
 * the network, which are emitted. Codes, messages and properties are Node's; `errno` is the negated
 * number of Linux. A message may end with a remedy.
 */

import { getSystemErrorMap, inspect } from 'node:util';
import { type Errno, errnoName, TapnicError } from '../sys/errno.ts';

/** Linux's negated number and the text of a code, as Node prints it. */
type SystemError = readonly [errno: number, text: string];

let systemErrors: Map<string, SystemError> | null = null;

function systemError(code: string): SystemError {
  systemErrors ??= new Map(
    [...getSystemErrorMap()].map(([errno, [name, text]]) => [name, [errno, text]]),
  );
  return systemErrors.get(code) ?? [0, code];
}

/** The address and the port of a call that failed. */
interface Where {
  readonly address?: string | undefined;
  readonly port?: number | undefined;
}

/** An error of the network, with the properties of Node's. */
export class SocketError extends TapnicError {
  readonly errno: number;
  readonly address?: string;
  readonly port?: number;

  /**
   * @param described whether the message describes the error in words, as that of `listen` does
   * @param hint what the user can do
   */
  constructor(error: Errno, syscall: string, where: Where = {}, described = false, hint = '') {
    const code = errnoName(error);
    const [errno, text] = systemError(code);
    const { address, port } = where;
    const at = address === undefined ? '' : ` ${address}${port === undefined ? '' : `:${port}`}`;
    const more = hint === '' ? '' : `: ${hint}`;
    super(code, syscall, hint, `${syscall} ${code}${described ? `: ${text}` : ''}${at}${more}`);
    this.errno = errno;
    if (address !== undefined) this.address = address;
    if (port !== undefined) this.port = port;
  }
}

/** A name that cannot be resolved: the error of getaddrinfo(3) as dns.lookup has it. */
export function unknownHost(hostname: string): Error {
  const error = new TapnicError(
    'ENOTFOUND',
    'getaddrinfo',
    '',
    `getaddrinfo ENOTFOUND ${hostname}`,
  );
  return Object.assign(error, { errno: systemError('EAI_NONAME')[0], hostname });
}

/** An error of Node's with a `code`. */
type CodedError = Error & { code: string };

function coded(error: Error, code: string): CodedError {
  return Object.assign(error, { code });
}

/** How Node's messages describe a value that has the wrong type. */
function received(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (typeof value === 'function' && value.name !== '') return `function ${value.name}`;
  if (typeof value === 'object') {
    const { name } = (value.constructor as { name?: string } | undefined) ?? {};
    return name ? `an instance of ${name}` : inspect(value, { depth: -1 });
  }
  const text = inspect(value);
  return `type ${typeof value} (${text.length > 28 ? `${text.slice(0, 25)}...` : text})`;
}

const kindOf = (name: string): string => (name.includes('.') ? 'property' : 'argument');

/** ERR_INVALID_ARG_TYPE. @param wanted such as `of type string` */
export function invalidArgType(name: string, wanted: string, value: unknown): CodedError {
  const text = `The "${name}" ${kindOf(name)} must be ${wanted}. Received ${received(value)}`;
  return coded(new TypeError(text), 'ERR_INVALID_ARG_TYPE');
}

/** ERR_INVALID_ARG_VALUE. @param reason what is wrong, and the remedy */
export function invalidArgValue(name: string, value: unknown, reason = 'is invalid'): CodedError {
  const text = inspect(value);
  const shown = text.length > 128 ? `${text.slice(0, 128)}...` : text;
  return coded(
    new TypeError(`The ${kindOf(name)} '${name}' ${reason}. Received ${shown}`),
    'ERR_INVALID_ARG_VALUE',
  );
}

/** ERR_OUT_OF_RANGE. @param range such as `>= 1` */
export function outOfRange(name: string, range: string, value: unknown): CodedError {
  const text = `The value of "${name}" is out of range. It must be ${range}. Received ${inspect(value)}`;
  return coded(new RangeError(text), 'ERR_OUT_OF_RANGE');
}

/** Another error of Node's with its message. */
export function nodeError(
  code: string,
  message: string,
  Type: new (message: string) => Error = Error,
): CodedError {
  return coded(new Type(message), code);
}

/** A port, 0 to 65535, given as a number or as its text. Throws ERR_SOCKET_BAD_PORT. */
export function portNumber(value: unknown, name = 'Port', min = 0): number {
  const text = typeof value === 'string' && value.trim() !== '';
  const n = typeof value === 'number' || text ? Number(value) : NaN;
  if (Number.isInteger(n) && n >= min && n <= 65_535) return n;
  const range = `${name} should be ${min === 0 ? '>=' : '>'} 0 and < 65536`;
  throw coded(new RangeError(`${range}. Received ${received(value)}.`), 'ERR_SOCKET_BAD_PORT');
}
