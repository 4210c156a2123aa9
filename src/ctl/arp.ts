/** arp(8): the listing, setting and deleting of entries. Left out: `-f`, blackhole and reject. */

import { EEXIST } from '../sys/errno.ts';
import type { InAddr } from '../sys/types.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ether_ntoa } from '../net/ethernet.ts';
import { ifnetList } from '../net/if.ts';
import { ETHER_ADDR_LEN, type Ifnet } from '../net/if_var.ts';
import { arpDelete, arpEntries, arpSet, arpTable } from '../netinet/if_ether.ts';
import { parseInAddr } from '../netinet/in.ts';
import { ifaForPeer } from '../netinet/in_var.ts';
import { inetText } from './ifconfig.ts';
import { ControlFailure } from './protocol.ts';

/** A line of `arp -a --json`. */
export interface ArpLine {
  addr: string;
  /** Null while the ARP request is unanswered. */
  ether: string | null;
  if: string;
  /** Seconds until the entry expires; null for a permanent entry. */
  expires: number | null;
  /** Requests of others for the address are answered. */
  published?: boolean;
}

/** A change of the table: `arp -s`, `-S` (`replace`) or `-d`. */
export interface ArpChange {
  readonly op: 'set' | 'delete';
  readonly addr: string;
  /** With `set`: the Ethernet address, or `auto` for that of the interface. */
  readonly ether: string;
  readonly temp: boolean;
  readonly pub: boolean;
  readonly replace: boolean;
}

export function formatArp(lines: readonly ArpLine[]): string {
  return lines
    .map(({ addr, ether, if: name, expires, published }) => {
      const when =
        expires === null
          ? ' permanent'
          : expires > 0
            ? ` expires in ${expires} seconds`
            : ' expired';
      const pub = published === true ? ' published' : '';
      return `? (${addr}) at ${ether ?? '(incomplete)'} on ${name}${when}${pub} [ethernet]\n`;
    })
    .join('');
}

/** The ARP table of a stack. */
export function gatherArp(vnet: Vnet): ArpLine[] {
  return arpEntries(vnet).map(({ ifp, addr, lladdr, expires, published }) => ({
    addr: inetText(addr),
    ether: lladdr === null ? null : ether_ntoa(lladdr),
    if: ifp.if_xname,
    expires,
    ...(published ? { published } : {}),
  }));
}

/** The interface on whose network `addr` is, or null. */
function interfaceOf(vnet: Vnet, addr: InAddr): Ifnet | null {
  return (
    ifnetList(vnet).find((ifp) => arpTable(ifp) !== null && ifaForPeer(ifp, addr) !== null) ?? null
  );
}

/** The bytes of an Ethernet address as FreeBSD reads it, with one or two digits each. */
export function etherOf(text: string): Uint8Array {
  const parts = text.split(':');
  if (parts.length !== ETHER_ADDR_LEN || !parts.every((part) => /^[0-9a-f]{1,2}$/i.test(part)))
    throw new ControlFailure('EINVAL', `invalid Ethernet address: ${text}`);
  return Uint8Array.from(parts, (part) => parseInt(part, 16));
}

/** Changes the table. Throws ControlFailure. */
export function changeArp(vnet: Vnet, change: ArpChange): null {
  const addr = parseInAddr(change.addr);
  if (addr === null) throw new ControlFailure('EINVAL', `${change.addr}: not an IPv4 address`);
  const ifp = interfaceOf(vnet, addr);
  if (change.op === 'delete') {
    const error = ifp === null ? -1 : arpDelete(ifp, addr);
    if (error !== 0) throw new ControlFailure('ENOENT', `delete: cannot locate ${change.addr}`);
    return null;
  }
  if (ifp === null)
    throw new ControlFailure(
      'EINVAL',
      `set: cannot intuit interface index and type for ${change.addr}`,
    );
  const lladdr = change.ether === 'auto' ? ifp.if_lladdr : etherOf(change.ether);
  if (change.replace) arpDelete(ifp, addr);
  const error = arpSet(ifp, addr, lladdr, change);
  if (error === EEXIST)
    throw new ControlFailure('EEXIST', `set: ${change.addr} is an address of ${ifp.if_xname}`);
  if (error !== 0) throw new ControlFailure('EINVAL', `set: ${change.addr}: the table is full`);
  return null;
}
