/** Checks of single option values of any type. Each throws an OptionError with an empty path. */

import { Address4 } from 'ip-address';
import { OptionError, wrong } from './option_error.ts';

const MIB = 1024 * 1024;
const PAGE = 4096;
const MEMORY_MAX = 4096 * MIB;
/** Physical addresses have 52 bits, as on amd64. */
const PHYS_MAX = 2 ** 52 - MEMORY_MAX;
/**
 * Valid names, as the addon checks them. The kernel is less strict with control characters, which
 * terminals interpret. A namespace's name is a file name.
 */
const NAME = /^(?!\.{1,2}$)[^/:%\s\p{Cc}]+$/u;
const TAP_NAME_BYTES = 15;
const NETNS_NAME_BYTES = 255;

const isName = (name: string, bytesMax: number): boolean =>
  NAME.test(name) && Buffer.byteLength(name) <= bytesMax;

const nameRule = (bytesMax: number): string =>
  `1 to ${bytesMax} bytes without / : % white space and control characters`;
const SYSCTL_NAME = /^[a-z0-9_]+(\.[a-z0-9_%-]+)+$/i;

/** Throws OptionError with a message that does not show the value. */
function unshown(problem: string): never {
  throw new OptionError({ path: [], problem });
}

function scalar(value: unknown): string | number | null {
  if (value === null || typeof value === 'string' || typeof value === 'number') return value;
  return unshown('not a text, a number or null');
}

/** The address of `192.0.2.2/24`, without its prefix length. */
export function withoutPrefix(cidr: string): string {
  return cidr.replace(/\/.*$/, '');
}

/** Returns a text. Converts a number or null to a text, which the next check rejects. */
export function text(value: unknown): string {
  return String(scalar(value));
}

/** Returns `wants: 'number'` if the value is a text. */
function wants(value: unknown): { wants?: 'number' } {
  return typeof value === 'string' ? { wants: 'number' } : {};
}

/** A whole number from `min` to `max`. */
export function wholeNumber(min: number, max: number): (value: unknown) => number {
  return (value) => {
    const given = scalar(value);
    if (typeof given === 'number' && Number.isInteger(given) && given >= min && given <= max)
      return given;
    return wrong(given, `a whole number from ${min} to ${max} is needed`, wants(given));
  };
}

/** A number from `min` to `max`, not necessarily whole. */
export function numberFrom(min: number, max: number): (value: unknown) => number {
  return (value) => {
    const given = scalar(value);
    if (typeof given === 'number' && given >= min && given <= max) return given;
    return wrong(given, `a number from ${min} to ${max} is needed`, wants(given));
  };
}

/** One of `words`. */
export function oneOf<const T extends string>(...words: readonly T[]): (value: unknown) => T {
  return (value) => {
    const given = scalar(value);
    return words.find((word) => word === given) ?? wrong(given, `one of ${words.join(', ')}`);
  };
}

/** True or false. */
export function boolean(value: unknown): boolean {
  return typeof value === 'boolean' ? value : unshown('true or false');
}

/** A text whose meaning is checked later. */
export function anyText(value: unknown): string {
  const given = scalar(value);
  return typeof given === 'string' ? given : wrong(given, 'not a text');
}

/** Null, or the value as `check` returns it. */
export function orNone<T>(check: (value: unknown) => T): (value: unknown) => T | null {
  return (value) => (value === null ? null : check(value));
}

function unicast4(address: Address4, given: string): void {
  const first = Number(address.correctForm().split('.')[0]);
  if (first === 0 || first === 127 || first >= 224) wrong(given, "not a host's address");
}

/** An IPv4 address with prefix length, in its usual form. */
export function cidr4(value: unknown): string {
  const given = text(value);
  if (!given.includes('/') || !Address4.isValid(given))
    wrong(given, 'not an IPv4 address with prefix length', { example: '192.0.2.2/24' });
  const address = new Address4(given);
  const bits = address.subnetMask;
  if (bits < 1 || bits > 31) wrong(given, 'a prefix length from 1 to 31 is needed');
  const all = (1n << BigInt(32 - bits)) - 1n;
  const host = address.bigInt() & all;
  if (bits < 31 && (host === 0n || host === all))
    wrong(given, 'the address of the network itself or its broadcast address');
  unicast4(address, given);
  return `${address.correctForm()}/${bits}`;
}

/** An IPv4 address in its usual form. */
export function addr4(value: unknown): string {
  const given = text(value);
  if (given.includes('/') || !Address4.isValid(given)) wrong(given, 'not an IPv4 address');
  const address = new Address4(given);
  unicast4(address, given);
  return address.correctForm();
}

/** Whether the IPv4 address is on the network of `cidr`. */
export function inSubnet(addr: string, cidr: string): boolean {
  return new Address4(`${addr}/32`).isInSubnet(new Address4(cidr));
}

/** A unicast Ethernet address: lower case, with colons. */
export function macAddr(value: unknown): string {
  const given = text(value);
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(given))
    wrong(given, 'not a MAC address', { example: '02:00:5e:00:53:01' });
  const mac = given.toLowerCase().replaceAll('-', ':');
  if ((Number.parseInt(mac, 16) & 1) !== 0) wrong(given, 'a group address');
  if (mac === '00:00:00:00:00:00') wrong(given, "not a host's address");
  return mac;
}

/** Linux's name of an interface. */
export function tapName(value: unknown): string {
  const given = text(value);
  if (isName(given, TAP_NAME_BYTES)) return given;
  return wrong(given, "not an interface's name", { remedy: nameRule(TAP_NAME_BYTES) });
}

/** The interface name of an additional NIC. It has no default. */
export function portName(value: unknown): string {
  if (typeof value !== 'string') unshown('tap: the name of an interface is needed');
  return isName(value, TAP_NAME_BYTES) ? value : wrong(value, "not an interface's name");
}

/** The name of a network namespace. */
export function netnsName(value: unknown): string {
  const given = text(value);
  if (isName(given, NETNS_NAME_BYTES)) return given;
  return wrong(given, "not a namespace's name", { remedy: nameRule(NETNS_NAME_BYTES) });
}

/** Bytes of memory. */
export function memorySize(value: unknown): number {
  const given = scalar(value);
  if (typeof given !== 'number')
    return wrong(given, 'not a size', { example: '256M', ...wants(given) });
  if (!(given >= 16 * MIB && given <= MEMORY_MAX)) wrong(given, '16M to 4096M');
  if (given % PAGE !== 0) wrong(given, `not a whole number of pages of ${PAGE} bytes`);
  return given;
}

/** The physical address of a page. */
export function physAddress(value: unknown): number {
  const given = scalar(value);
  if (typeof given !== 'number' || !(given >= 0))
    return wrong(given, 'not an address', { example: '0xf8000000', ...wants(given) });
  if (given > PHYS_MAX) wrong(given, `up to 0x${PHYS_MAX.toString(16)}`);
  if (given % PAGE !== 0) wrong(given, `not the address of a page of ${PAGE} bytes`);
  return given;
}

/** A sysctl's name and the text of its value. */
export function sysctlPair(value: unknown): [string, string] {
  if (!Array.isArray(value) || value.length !== 2) unshown('pairs of name and value are needed');
  const [name, to] = value as unknown[];
  if (typeof name !== 'string' || !SYSCTL_NAME.test(name)) wrong(name, 'not the name of a sysctl');
  if (typeof to === 'boolean') return [name, String(to)];
  return [name, text(to)];
}
