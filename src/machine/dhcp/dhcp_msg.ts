/**
 * DHCP messages: RFC 2131, section 2, with the options of RFC 2132, the concatenation of RFC 3396
 * and the classless routes of RFC 3442. Everything that is read came from the network: a message that
 * breaks its own lengths is refused, and nothing is longer than the message.
 */

import { inAddr, type InAddr } from '../../sys/types.ts';

// Message types: option 53.
export const DHCPDISCOVER = 1;
export const DHCPOFFER = 2;
export const DHCPREQUEST = 3;
export const DHCPDECLINE = 4;
export const DHCPACK = 5;
export const DHCPNAK = 6;
export const DHCPRELEASE = 7;

// Options.
const DHO_PAD = 0;
export const DHO_SUBNET_MASK = 1;
export const DHO_ROUTERS = 3;
export const DHO_DNS = 6;
export const DHO_DOMAIN_NAME = 15;
export const DHO_MTU = 26;
export const DHO_REQUESTED_ADDRESS = 50;
export const DHO_LEASE_TIME = 51;
const DHO_OVERLOAD = 52;
export const DHO_MESSAGE_TYPE = 53;
export const DHO_SERVER_ID = 54;
export const DHO_PARAMETERS = 55;
export const DHO_MESSAGE = 56;
export const DHO_MAX_SIZE = 57;
export const DHO_T1 = 58;
export const DHO_T2 = 59;
export const DHO_CLIENT_ID = 61;
export const DHO_CLASSLESS_ROUTES = 121;
const DHO_END = 255;

const BOOTREQUEST = 1;
const BOOTREPLY = 2;
const HTYPE_ETHER = 1;
const MAC_LEN = 6;
/** Offsets. */
const OFF_XID = 4;
const OFF_SECS = 8;
const OFF_FLAGS = 10;
const OFF_CIADDR = 12;
const OFF_YIADDR = 16;
const OFF_CHADDR = 28;
const OFF_SNAME = 44;
const OFF_FILE = 108;
const OFF_COOKIE = 236;
const OFF_OPTIONS = 240;
const COOKIE = 0x63825363;
/** Servers and relays drop shorter messages: RFC 1542, section 2.1. */
const MESSAGE_MIN = 300;

/** The options of a message. */
class DhcpOptions {
  readonly #values = new Map<number, Uint8Array[]>();

  add(code: number, value: Uint8Array): void {
    const values = this.#values.get(code);
    if (values === undefined) this.#values.set(code, [value]);
    else values.push(value);
  }

  /** The first option `code` if it has exactly `size` bytes, as a number; null: not found. */
  number(code: number, size: 1 | 2 | 4): number | null {
    const [first] = this.#values.get(code) ?? [];
    if (first === undefined || first.length !== size) return null;
    return first.reduce((n, byte) => n * 256 + byte, 0);
  }

  addr(code: number): InAddr | null {
    const n = this.number(code, 4);
    return n === null ? null : inAddr(n);
  }

  /** The values of all options `code` in a row, RFC 3396; null: not found. */
  bytes(code: number): Uint8Array | null {
    const values = this.#values.get(code);
    return values === undefined ? null : Uint8Array.from(values.flatMap((v) => [...v]));
  }

  /** The first `max` addresses of a list; empty if its length is not that of a list. */
  addrs(code: number, max: number): InAddr[] {
    const bytes = this.bytes(code);
    if (bytes === null || bytes.length % 4 !== 0) return [];
    const view = new DataView(bytes.buffer);
    const n = Math.min(bytes.length / 4, max);
    return Array.from({ length: n }, (_, i) => inAddr(view.getUint32(4 * i)));
  }
}

/** A message of a server to a client. */
export interface DhcpReply {
  readonly type: number;
  readonly xid: number;
  /** The client's address, by the server. */
  readonly yiaddr: InAddr;
  /** 6 bytes. */
  readonly chaddr: Uint8Array;
  readonly options: DhcpOptions;
}

/** Reads the options in `bytes`. Returns false if one is longer than the rest. */
function readOptions(bytes: Uint8Array, options: DhcpOptions): boolean {
  for (let at = 0; at < bytes.length && bytes[at] !== DHO_END;) {
    const code = bytes[at]!;
    if (code === DHO_PAD) {
      at++;
      continue;
    }
    const len = bytes[at + 1];
    if (len === undefined || at + 2 + len > bytes.length) return false;
    options.add(code, bytes.slice(at + 2, at + 2 + len));
    at += 2 + len;
  }
  return true;
}

/** Parses a message of a server; null if it is not one for an Ethernet client. */
export function parseReply(bytes: Uint8Array): DhcpReply | null {
  if (bytes.length < OFF_OPTIONS) return null;
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  if (bytes[0] !== BOOTREPLY || bytes[1] !== HTYPE_ETHER || bytes[2] !== MAC_LEN) return null;
  if (view.getUint32(OFF_COOKIE) !== COOKIE) return null;
  const options = new DhcpOptions();
  if (!readOptions(bytes.subarray(OFF_OPTIONS), options)) return null;
  // Option 52: options continue in the fields `file` (1) and `sname` (2), in this order.
  const overload = options.number(DHO_OVERLOAD, 1) ?? 0;
  const file = bytes.subarray(OFF_FILE, OFF_COOKIE);
  const sname = bytes.subarray(OFF_SNAME, OFF_FILE);
  if ((overload & 1) !== 0 && !readOptions(file, options)) return null;
  if ((overload & 2) !== 0 && !readOptions(sname, options)) return null;
  const type = options.number(DHO_MESSAGE_TYPE, 1);
  if (type === null) return null;
  return {
    type,
    xid: view.getUint32(OFF_XID),
    yiaddr: inAddr(view.getUint32(OFF_YIADDR)),
    chaddr: bytes.slice(OFF_CHADDR, OFF_CHADDR + MAC_LEN),
    options,
  };
}

/** The values of a client's message. */
interface DhcpRequest {
  readonly xid: number;
  /** Seconds since the client began. */
  readonly secs: number;
  /** The flag BROADCAST: the server broadcasts its answer. */
  readonly broadcast: boolean;
  /** The client's address, if it may use it; else 0. */
  readonly ciaddr: InAddr;
  /** 6 bytes. */
  readonly chaddr: Uint8Array;
  /** Codes and values, in this order. */
  readonly options: readonly (readonly [number, readonly number[]])[];
}

/** The bytes of an address or another 32-bit number. */
export function bytes32(n: number): number[] {
  return [n >>> 24, (n >>> 16) & 0xff, (n >>> 8) & 0xff, n & 0xff];
}

/** Builds a client's message. */
export function buildRequest(request: DhcpRequest): Uint8Array {
  const { xid, secs, broadcast, ciaddr, chaddr, options } = request;
  const tail = options.flatMap(([code, value]) => [code, value.length, ...value]);
  const bytes = new Uint8Array(Math.max(MESSAGE_MIN, OFF_OPTIONS + tail.length + 1));
  const view = new DataView(bytes.buffer);
  bytes.set([BOOTREQUEST, HTYPE_ETHER, MAC_LEN]);
  view.setUint32(OFF_XID, xid);
  view.setUint16(OFF_SECS, Math.min(secs, 0xffff));
  view.setUint16(OFF_FLAGS, broadcast ? 0x8000 : 0);
  view.setInt32(OFF_CIADDR, ciaddr);
  bytes.set(chaddr, OFF_CHADDR);
  view.setUint32(OFF_COOKIE, COOKIE);
  bytes.set([...tail, DHO_END], OFF_OPTIONS);
  return bytes;
}
