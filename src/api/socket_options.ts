/** The options of sockets, as net.Socket's. */

import type { DuplexOptions } from 'node:stream';
import type { SocketStack } from './net_host.ts';
import { invalidArgType, invalidArgValue } from './node_errors.ts';
import type { OnReadOptions } from './socket_reader.ts';

/** Options of a new socket, as net.Socket's. */
export interface SocketOptions {
  /** The stack of the socket. */
  readonly stack: SocketStack;
  /** Keeps our side open after the peer has ended its side. Default false. */
  readonly allowHalfOpen?: boolean | undefined;
  /** High-water mark of both directions, bytes. Default: that of Node's streams. */
  readonly highWaterMark?: number | undefined;
  /** Buffers for received data. There are no 'data' events then. */
  readonly onread?: OnReadOptions | undefined;
  /** TCP_NODELAY; SO_KEEPALIVE, and when the first probe is sent, in ms. */
  readonly noDelay?: boolean | undefined;
  readonly keepAlive?: boolean | undefined;
  readonly keepAliveInitialDelay?: number | undefined;
  /** Destroys the socket when it is aborted. */
  readonly signal?: AbortSignal | undefined;
}

/** Options of streams that are passed on, and those that sockets of a stack do not have. */
interface RawOptions extends SocketOptions, DuplexOptions {
  readonly highWaterMark?: number;
  readonly allowHalfOpen?: boolean;
  readonly signal?: AbortSignal;
  readonly readable?: boolean;
  readonly writable?: boolean;
  readonly fd?: unknown;
  readonly handle?: unknown;
}

const UNSUPPORTED = [
  ['objectMode', ''],
  ['readableObjectMode', ''],
  ['writableObjectMode', ''],
  ['fd', ': a stack has no descriptors of Linux'],
  ['handle', ': a stack has no handles of Linux'],
] as const;

/** Throws ERR_INVALID_ARG_VALUE or ERR_INVALID_ARG_TYPE. */
function checkOptions(options: RawOptions): void {
  const { objectMode, readableObjectMode, writableObjectMode, fd, handle } = options;
  if ((objectMode ?? readableObjectMode ?? writableObjectMode ?? fd ?? handle) !== undefined) {
    for (const [name, reason] of UNSUPPORTED) {
      const value: unknown = options[name];
      if (value !== undefined && value !== false && value !== null)
        throw invalidArgValue(`options.${name}`, value, `is not supported${reason}`);
    }
  }
  const { keepAliveInitialDelay: delay } = options;
  if (delay !== undefined && typeof delay !== 'number')
    throw invalidArgType('options.keepAliveInitialDelay', 'of type number', delay);
}

/**
 * The options of a socket's stream. Always of one shape: a spread takes longer than the rest of the
 * constructor. Throws ERR_INVALID_ARG_VALUE, ERR_INVALID_ARG_TYPE.
 */
export function streamOptions(socketOptions: SocketOptions): DuplexOptions {
  const options = socketOptions as RawOptions;
  checkOptions(options);
  const { readable, writable, highWaterMark, readableHighWaterMark } = options;
  const { writableHighWaterMark, encoding, defaultEncoding } = options;
  return {
    allowHalfOpen: options.allowHalfOpen ?? false,
    autoDestroy: true,
    // _destroy emits 'close', which has an argument.
    emitClose: false,
    readable,
    writable,
    highWaterMark,
    readableHighWaterMark,
    writableHighWaterMark,
    encoding,
    defaultEncoding,
  } as DuplexOptions;
}
