/** The listing of arp(8). Not implemented: setting and deleting entries. */

import type { Vnet } from '../kern/vnet.ts';
import { arpEntries } from '../netinet/if_ether.ts';
import { etherText, inetText } from './ifconfig.ts';

/** A line of `arp -a --json`. */
export interface ArpLine {
  addr: string;
  /** Null while the ARP request is unanswered. */
  ether: string | null;
  if: string;
  /** Seconds until the entry expires; null for a permanent entry. */
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
