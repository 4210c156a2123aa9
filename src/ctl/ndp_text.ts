/** The output of ndp(8), after usr.sbin/ndp/ndp.c. */

import type { NdpAnswer, NdpIfinfo, NdpLine, NdpPrefix, NdpRouter } from './ndp.ts';

// Columns of the list of neighbours.
const W_ADDR = 36;
const W_LL = 17;
const W_IF = 6;

/** `23h59m58s`, as FreeBSD's sec2str. */
function duration(total: number): string {
  const parts: [number, string][] = [
    [Math.floor(total / 86400), 'd'],
    [Math.floor(total / 3600) % 24, 'h'],
    [Math.floor(total / 60) % 60, 'm'],
  ];
  const from = parts.findIndex(([n]) => n > 0);
  const head = from < 0 ? [] : parts.slice(from);
  return `${head.map(([n, unit]) => `${n}${unit}`).join('')}${total % 60}s`;
}

function row(addr: string, ll: string, netif: string, expire: string, s: string): string {
  // A long address takes space from the next columns.
  const llWidth = Math.max(W_ADDR + W_LL - Math.max(addr.length, W_ADDR), ll.length);
  return `${addr.padEnd(W_ADDR)} ${ll.padEnd(llWidth)} ${netif.padStart(W_IF)} ${expire.padEnd(9)} ${s}`;
}

function neighborText(line: NdpLine): string {
  const { addr, ether, if: netif, expires, state, router, proxy, probes } = line;
  const expire = expires === null ? 'permanent' : expires > 0 ? duration(expires) : 'expired';
  const probed = probes === 0 ? '' : ` ${probes}`;
  const ll = ether ?? '(incomplete)';
  return `${row(addr, ll, netif, expire, state)} ${router ? 'R' : ''}${proxy ? 'p' : ''}${probed}\n`;
}

function neighborsText(lines: readonly NdpLine[]): string {
  const head = `${row('Neighbor', 'Linklayer Address', 'Netif', 'Expire', 'S')} Flags\n`;
  return head + lines.map(neighborText).join('');
}

function prefixText(pr: NdpPrefix): string {
  const time = (n: number | null): string => (n === null ? 'infinity' : String(n));
  const expire =
    pr.expires === null
      ? ', expire=Never'
      : pr.expires > 0
        ? `, expire=${duration(pr.expires)}`
        : ', expired';
  const by =
    pr.routers.length === 0
      ? '  No advertising router\n'
      : `  advertised by\n${pr.routers.map((r) => `    ${r.addr} (${r.state})\n`).join('')}`;
  return (
    `${pr.prefix}/${pr.prefixlen} if=${pr.if}\n` +
    `flags=${pr.flags} vltime=${time(pr.vltime)}, pltime=${time(pr.pltime)}${expire}, ref=${pr.refcnt}\n${by}`
  );
}

function routerText({ addr, if: netif, flags, pref, expires }: NdpRouter): string {
  const expire = expires === null ? 'Never' : duration(expires);
  return `${addr} if=${netif}, flags=${flags}, pref=${pref}, expire=${expire}\n`;
}

function ifinfoText(i: NdpIfinfo): string {
  const ms = (n: number): string => `${Math.floor(n / 1000)}s${n % 1000}ms`;
  const flags =
    i.flags.length === 0 ? '' : `\nFlags: ${i.flags.map((flag) => `${flag} `).join('')}`;
  return (
    `linkmtu=${i.linkmtu}, maxmtu=${i.maxmtu}, curhlim=${i.curhlim}, ` +
    `basereachable=${ms(i.basereachable)}, reachable=${Math.round(i.reachable / 1000)}s, ` +
    `retrans=${ms(i.retrans)}${flags}\n${dnsText(i)}`
  );
}

/** Ours: FreeBSD passes what routers advertise about DNS to resolvconf(8). */
function dnsText({ rdnss, dnssl }: NdpIfinfo): string {
  const rows = [
    ...rdnss.map(({ addr, ...one }) => ({ text: `rdnss ${addr}`, ...one })),
    ...dnssl.map(({ domain, ...one }) => ({ text: `dnssl ${domain}`, ...one })),
  ];
  return rows
    .map(({ text, router, expires }) => {
      const expire = expires === null ? 'Never' : duration(expires);
      return `${text} from ${router}, expire=${expire}\n`;
    })
    .join('');
}

/** Formats an answer as ndp(8) prints it. */
export function formatNdp(answer: NdpAnswer): string {
  switch (answer.op) {
    case 'neighbors':
      return neighborsText(answer.lines);
    case 'prefixes':
      return answer.lines.map(prefixText).join('');
    case 'routers':
      return answer.lines.map(routerText).join('');
    case 'ifinfo':
      return ifinfoText(answer.info);
    case 'defif':
      return answer.if === null
        ? 'No default interface.\n'
        : `ND default interface = ${answer.if}\n`;
    case 'deleted':
      return answer.addrs.map((addr) => `${addr} (${addr}) deleted\n`).join('');
    case 'done':
      return '';
  }
}
