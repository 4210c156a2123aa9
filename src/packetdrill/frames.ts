/**
 * Frames on the socket between packetdrill's shared object and this process.
 * native-bindings/packetdrill/link.h defines their layout; numbers are little-endian, sizes are
 * limited.
 */

/** Operations: `enum link_op` of link.h. */
export const OP_HELLO = 1;
export const OP_SOCKET = 2;
export const OP_BIND = 3;
export const OP_LISTEN = 4;
export const OP_ACCEPT = 5;
export const OP_CONNECT = 6;
export const OP_RECV = 7;
export const OP_SEND = 8;
export const OP_FCNTL = 9;
export const OP_IOCTL = 10;
export const OP_CLOSE = 11;
export const OP_SHUTDOWN = 12;
export const OP_GETSOCKOPT = 13;
export const OP_SETSOCKOPT = 14;
export const OP_POLL = 15;
export const OP_INJECT = 16;
export const OP_RECEIVE = 17;
export const OP_SLEEP = 18;
export const OP_SHIM = 19;

/** The protocol version: field `a` of a HELLO. */
export const LINK_VERSION = 1;
const REQUEST_HEADER = 40;
const REPLY_HEADER = 32;
/** Maximum size of a payload, bytes. */
export const PAYLOAD_MAX = 4 << 20;

export interface LinkRequest {
  readonly id: number;
  readonly op: number;
  readonly fd: number;
  /** Microseconds. */
  readonly nowUs: number;
  readonly a: number;
  readonly b: number;
  readonly c: number;
  /** Whether the call must fail with EDEADLK instead of waiting. */
  readonly noWait: boolean;
  readonly payload: Buffer;
}

export interface LinkReply {
  readonly id: number;
  /** The call's result; a negated Linux errno on failure. */
  readonly result: number;
  /** Whether the call had to wait. */
  readonly late?: boolean;
  readonly nowUs: number;
  readonly a?: number;
  readonly payload?: Uint8Array;
}

/** Splits a stream of bytes into requests. */
export class LinkReader {
  #chunks: Buffer[] = [];
  #bytes = 0;

  /** Whether an incomplete request is buffered. */
  get partial(): boolean {
    return this.#bytes > 0;
  }

  /**
   * Returns the requests that `chunk` completes. Returns null for an invalid size; the caller must
   * then close the connection.
   */
  push(chunk: Buffer): LinkRequest[] | null {
    this.#chunks.push(chunk);
    this.#bytes += chunk.length;
    if (this.#bytes < 4) return [];
    let all = Buffer.concat(this.#chunks);
    const requests: LinkRequest[] = [];
    while (all.length >= 4) {
      const size = all.readUInt32LE(0);
      if (size < REQUEST_HEADER || size > REQUEST_HEADER + PAYLOAD_MAX) return null;
      if (all.length < size) break;
      requests.push(parse(all.subarray(0, size)));
      all = all.subarray(size);
    }
    this.#chunks = [all];
    this.#bytes = all.length;
    return requests;
  }
}

function parse(frame: Buffer): LinkRequest {
  const nowUs = Number(frame.readBigInt64LE(16));
  return {
    id: frame.readUInt32LE(4),
    op: frame.readUInt32LE(8),
    fd: frame.readInt32LE(12),
    // Ignore an invalid time, so that a wrong clock cannot make the stack run endlessly.
    nowUs: Number.isSafeInteger(nowUs * 1000) && nowUs >= 0 ? nowUs : 0,
    a: frame.readInt32LE(24),
    b: frame.readInt32LE(28),
    c: frame.readInt32LE(32),
    noWait: frame.readUInt32LE(36) !== 0,
    payload: Buffer.from(frame.subarray(REQUEST_HEADER)),
  };
}

/** Encodes a reply. */
export function replyFrame({ id, result, late, nowUs, a, payload }: LinkReply): Buffer {
  const len = payload?.length ?? 0;
  const frame = Buffer.alloc(REPLY_HEADER + len);
  frame.writeUInt32LE(frame.length, 0);
  frame.writeUInt32LE(id, 4);
  frame.writeInt32LE(result, 8);
  frame.writeUInt32LE((late ?? false) ? 1 : 0, 12);
  frame.writeBigInt64LE(BigInt(Math.floor(nowUs)), 16);
  frame.writeInt32LE(a ?? 0, 24);
  if (payload !== undefined) frame.set(payload, REPLY_HEADER);
  return frame;
}
