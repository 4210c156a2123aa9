/** The IPv6 part of a stack's options: the addresses and the gateway of the first NIC. */

import { checkZone, hostPart6, inSubnet6, isLinkLocal, MTU_MIN6 } from './option_addr6.ts';
import type { NicOptions } from './nic.ts';
import { checking, type OptionIssue, wrong } from './option_error.ts';

/** The options after the checks of each value. `gateway6` undefined: by default. */
interface Given {
  readonly tap: string;
  readonly mtu: number;
  readonly hostAddr6: string | null;
  /** `auto`: from the network. Null: none. */
  readonly addr6: string | null;
  readonly gateway6?: string | null | undefined;
}

type Settings = Pick<NicOptions, 'hostAddr6' | 'addr6' | 'gateway6' | 'slaac'>;

/** The addresses without zones. Throws OptionError for a zone of another interface. */
function zonesChecked(o: Given, ifname: string): Given {
  const { tap, hostAddr6, addr6, gateway6 } = o;
  const own = (option: string, value: string): string =>
    checking([option], () => checkZone(value, ifname, "the emulated host's interface"));
  return {
    ...o,
    hostAddr6:
      hostAddr6 === null
        ? null
        : checking(['hostAddr6'], () => checkZone(hostAddr6, tap, "the Linux side's interface")),
    addr6: addr6 === null ? null : own('addr6', addr6),
    gateway6: typeof gateway6 === 'string' ? own('gateway6', gateway6) : gateway6,
  };
}

/**
 * The default route: the given one, otherwise the Linux side's address if it is on the same network.
 */
function gatewayOf({ addr6, hostAddr6, gateway6 }: Given & { addr6: string }): string | null {
  if (gateway6 === null) return null;
  if (gateway6 !== undefined) {
    // The link of a link-local address is that of the interface.
    if (!isLinkLocal(gateway6) && !inSubnet6(gateway6, addr6))
      wrong(gateway6, `not on the network of ${addr6}`);
    if (gateway6 === hostPart6(addr6)) wrong(gateway6, "the emulated host's own address");
    return gateway6;
  }
  if (hostAddr6 === null || !inSubnet6(hostAddr6, addr6)) return null;
  const host = hostPart6(hostAddr6);
  return host === hostPart6(addr6) ? null : host;
}

/** Warnings about addresses that are allowed but unusual. */
function warningsOf({ addr6, hostAddr6 }: Given): OptionIssue[] {
  if (addr6 === null || addr6 === 'auto' || hostAddr6 === null) return [];
  if (hostPart6(addr6) === hostPart6(hostAddr6))
    return [
      {
        path: ['addr6'],
        value: hostPart6(addr6),
        problem: 'the Linux side has that address',
        remedy: 'it will be a duplicate: choose another one',
      },
    ];
  if (inSubnet6(addr6, hostAddr6) && inSubnet6(hostAddr6, addr6)) return [];
  return [
    {
      path: [],
      problem: `${addr6} and ${hostAddr6} are not on one network`,
      remedy: 'there must be routes between them',
    },
  ];
}

/**
 * Checks the IPv6 options against each other. Throws OptionError.
 * @param given the names of the options that the user gave
 * @param ifname the name that the interface of the emulated host will have
 * @param warnings gets those about these options
 */
export function ipv6Of(
  options: Given,
  given: { readonly addr6?: unknown; readonly hostAddr6?: unknown },
  ifname: string,
  warnings: OptionIssue[],
): Settings {
  const o = zonesChecked(options, ifname);
  const { addr6, gateway6 } = o;
  if (addr6 === null) {
    if (typeof gateway6 === 'string')
      checking(['gateway6'], () => wrong(gateway6, 'the emulated host has no IPv6 address'));
    return { hostAddr6: o.hostAddr6, addr6: null, gateway6: null };
  }
  if (o.mtu < MTU_MIN6) {
    const problem = `IPv6 needs an MTU of at least ${MTU_MIN6}`;
    if (given.addr6 !== undefined)
      checking(['addr6'], () => wrong(addr6, problem, { remedy: `it is ${o.mtu}` }));
    warnings.push({ path: ['mtu'], value: o.mtu, problem: `no IPv6 addresses: ${problem}` });
    const hostAddr6 = given.hostAddr6 === undefined ? null : o.hostAddr6;
    return { hostAddr6, addr6: null, gateway6: null };
  }
  warnings.push(...warningsOf(o));
  if (addr6 === 'auto')
    return {
      hostAddr6: o.hostAddr6,
      addr6: null,
      gateway6: null,
      slaac: { gateway: gateway6 === undefined ? 'auto' : gateway6 },
    };
  const via = checking(['gateway6'], () => gatewayOf({ ...o, addr6 }));
  return { hostAddr6: o.hostAddr6, addr6, gateway6: via };
}
