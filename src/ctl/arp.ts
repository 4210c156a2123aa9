/** What arp(8) lists: the ARP table. Left out: setting and deleting entries. */

import type { Vnet } from '../kern/vnet.ts';
import { arpEntries } from '../netinet/if_ether.ts';
import { etherText, inetText } from './ifconfig.ts';

/** A line of `arp -a --json`. */
export interface ArpLine {
  addr: string;
  /** Null until the reply to the ARP request has arrived. */
  ether: string | null;
  if: string;
  /** Seconds until the entry expires; null for one that does not. */
  expires: number | null;
}

export function formatArp(lines: readonly ArpLine[]): string {
  return lines
    .map(({ addr, ether, if: name, expires }) => {
      const when =
        expires === null
          ? ' permanent'
          : expires > 0
            ? ` expires in ${expires} seconds`
            : ' expired';
      return `? (${addr}) at ${ether ?? '(incomplete)'} on ${name}${when} [ethernet]\n`;
    })
    .join('');
}

/** The ARP table of a stack. */
export function gatherArp(vnet: Vnet): ArpLine[] {
  return arpEntries(vnet).map(({ ifp, addr, lladdr, expires }) => ({
    addr: inetText(addr),
    ether: lladdr === null ? null : etherText(lladdr),
    if: ifp.if_xname,
    expires,
  }));
}
