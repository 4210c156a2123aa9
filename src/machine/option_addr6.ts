/**
 * Checks of IPv6 option values. Each throws an OptionError with an empty path. An address with a zone
 * keeps it as text, `fe80::1%tn0`: `checkZone` compares it with the name of the interface later.
 */

import { addrMasked, type NetAddr } from '../sys/addr.ts';
import {
  IN6_ADDR_BITS,
  in6Ntop,
  IN6_IS_ADDR_LINKLOCAL,
  IN6_IS_ADDR_LOOPBACK,
  IN6_IS_ADDR_MULTICAST,
  IN6_IS_ADDR_UNSPECIFIED,
  IN6_IS_ADDR_V4MAPPED,
  in6_matchlen,
  parseIn6,
} from '../netinet6/in6.ts';
import { wrong } from './option_error.ts';
import { text, withoutPrefix } from './option_values.ts';

/** The smallest MTU of a link with IPv6: RFC 8200, 5. */
export const MTU_MIN6 = 1280;

const EXAMPLE = '2001:db8::2/64';

/** `fe80::1%tn0` as address and zone; '' if it has no zone. */
function split(addr: string): [head: string, zone: string] {
  const at = addr.indexOf('%');
  return at < 0 ? [addr, ''] : [addr.slice(0, at), addr.slice(at + 1)];
}

function unicast6(a: NetAddr, given: string): void {
  if (IN6_IS_ADDR_V4MAPPED(a)) wrong(given, 'an IPv4 address in the form of IPv6');
  const v4compat = (a.w0 | a.w1 | a.w2) === 0;
  if (v4compat || IN6_IS_ADDR_MULTICAST(a) || IN6_IS_ADDR_UNSPECIFIED(a) || IN6_IS_ADDR_LOOPBACK(a))
    wrong(given, "not a host's address");
}

/** Parses `ADDR[%ZONE]`. Returns the address and its usual form with the zone. */
function parse(addr: string, given: string, problem: string, example: string): [NetAddr, string] {
  const [head, zone] = split(addr);
  const a = parseIn6(head);
  if (a === null || addr.endsWith('%')) return wrong(given, problem, { example });
  unicast6(a, given);
  if (zone === '') return [a, in6Ntop(a)];
  if (!IN6_IS_ADDR_LINKLOCAL(a))
    wrong(given, `zone ${zone}: only a link-local address (fe80::/10) has a zone`);
  return [a, `${in6Ntop(a)}%${zone}`];
}

/** An IPv6 address with prefix length, in its usual form. A link-local one may have a zone. */
export function cidr6(value: unknown): string {
  const given = text(value);
  const problem = 'not an IPv6 address with prefix length';
  const match = /^([^/]*)\/(\d{1,9})$/.exec(given);
  if (match === null) return wrong(given, problem, { example: EXAMPLE });
  const [a, usual] = parse(match[1]!, given, problem, EXAMPLE);
  const plen = Number(match[2]);
  if (plen < 1 || plen > IN6_ADDR_BITS) wrong(given, 'a prefix length from 1 to 128 is needed');
  // RFC 4291, 2.6.1: that address belongs to all routers. Networks of two hosts have none: RFC 6164.
  if (plen < IN6_ADDR_BITS - 1 && isNetwork(a, plen))
    wrong(given, 'the address of the network itself');
  return `${usual}/${plen}`;
}

/** Whether all bits after the prefix are 0. */
function isNetwork(a: NetAddr, plen: number): boolean {
  return addrMasked(a, plen).equals(a);
}

/** An IPv6 address, in its usual form. A link-local one may have a zone. */
export function addr6(value: unknown): string {
  const given = text(value);
  return parse(given, given, 'not an IPv6 address', '2001:db8::1')[1];
}

/** The address of `2001:db8::2/64`, without its zone. */
export function hostPart6(cidr: string): string {
  return split(withoutPrefix(cidr))[0];
}

/** Whether an address is link-local. */
export function isLinkLocal(addr: string): boolean {
  return IN6_IS_ADDR_LINKLOCAL(parseIn6(hostPart6(addr))!);
}

/** Whether the address is on the network of `cidr`. */
export function inSubnet6(addr: string, cidr: string): boolean {
  const plen = Number(cidr.slice(cidr.indexOf('/') + 1));
  return in6_matchlen(parseIn6(hostPart6(addr))!, parseIn6(hostPart6(cidr))!) >= plen;
}

/**
 * Returns `value`, an address with or without prefix length, without its zone. Throws OptionError if
 * the zone is not the interface `name`. @param what describes the interface
 */
export function checkZone(value: string, name: string, what: string): string {
  const [, addr = '', zone = '', plen = ''] = /^([^%/]*)(?:%([^/]*))?(\/.*)?$/.exec(value)!;
  if (zone !== '' && zone !== name)
    wrong(value, `unknown zone ${zone}`, { remedy: `${what} is ${name}` });
  return `${addr}${plen}`;
}
