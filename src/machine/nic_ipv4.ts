/** The configured IPv4 address of a NIC of this host: sets it with its default route, and reports its state. */

import { EINVAL, type Errno, errnoError, errnoName } from '../sys/errno.ts';
import type { InAddr } from '../sys/types.ts';
import { ifConsole } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import type { PendingAddr } from '../netinet/arp_probe.ts';
import { INADDR_ANY, parseInAddr } from '../netinet/in.ts';
import { inConfigure, inPendings } from '../netinet/in_acd.ts';
import { inRouteAddGateway } from '../netinet/in_fib.ts';
import type { NicOptions } from './nic.ts';
import { withoutPrefix } from './option_values.ts';

type Ipv4Options = Pick<NicOptions, 'addr' | 'gateway'>;

function parsed(option: string, text: string): InAddr {
  const addr = parseInAddr(text);
  if (addr === null) throw errnoError(EINVAL, option, text);
  return addr;
}

function must(error: Errno, syscall: string, hint = ''): void {
  if (error !== 0) throw errnoError(error, syscall, hint);
}

/** Sets the address of `ifp`, in a pass. A gateway is added when the address is usable. Throws TapnicError. */
export function configureIpv4(ifp: Ifnet, { addr: cidr, gateway }: Ipv4Options): void {
  if (cidr === null) return;
  const [addr = '', prefixlen] = cidr.split('/');
  let later = false;
  const ready = (): void => {
    if (!later || gateway === null) return;
    const error = inRouteAddGateway(ifp.if_vnet, INADDR_ANY, 0, parsed('gateway', gateway));
    if (error !== 0)
      ifConsole.log?.(`${ifp.if_xname}: default route by ${gateway} left out: ${errnoName(error)}`);
  };
  must(inConfigure(ifp, parsed('addr', addr), Number(prefixlen), ready), `address ${cidr}`);
  later = inPendings(ifp).length > 0;
}

/** Adds the default route, unless `configureIpv4` adds it after the probes. Throws TapnicError. */
export function configureGateway(ifp: Ifnet, { gateway: via }: Ipv4Options): void {
  if (via === null) return;
  const gateway = parsed('gateway', via);
  if (inPendings(ifp).length > 0) return;
  const error = inRouteAddGateway(ifp.if_vnet, INADDR_ANY, 0, gateway);
  must(error, `gateway ${via}`, 'choose an address on the network of the emulated host');
}

/** The IPv4 address that the options of a NIC name. */
export class NicIpv4 {
  /** Never from the network: the DHCP client is asked for that. */
  readonly auto = false;
  readonly #ifp: Ifnet;
  readonly #addr: InAddr | null;
  readonly #text: string;

  constructor(ifp: Ifnet, { addr }: Ipv4Options) {
    this.#ifp = ifp;
    this.#text = addr === null ? '' : withoutPrefix(addr);
    this.#addr = addr === null ? null : parseInAddr(this.#text);
  }

  #pending(): PendingAddr | null {
    return inPendings(this.#ifp).find(({ addr }) => addr === this.#addr) ?? null;
  }

  /** The text of the address; empty: none is configured; null: it is a duplicate. */
  get addr(): string | null {
    return this.#pending()?.duplicated === true ? null : this.#text;
  }

  /** Whether the address is not probed any more. */
  get settled(): boolean {
    const pending = this.#pending();
    return pending === null || pending.duplicated;
  }

  /** Why the address cannot be used, in one line; null: it can. */
  get problem(): string | null {
    if (this.addr !== null) return null;
    return `${this.#ifp.if_xname}: ${this.#text} is a duplicate: another host on the link has it: choose another addr (--addr)`;
  }
}
