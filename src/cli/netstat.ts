/** `netstat`: memory, sockets, statistics, interfaces and routes of a running instance. */

import type { Command } from 'commander';
import type { InterfaceInfo } from '../ctl/ifconfig.ts';
import type { BpfLine } from '../ctl/netstat_b.ts';
import type { NetstatM } from '../ctl/netstat_m.ts';
import type { NetstatS } from '../ctl/netstat_s.ts';
import type { SocketLine } from '../ctl/netstat_an.ts';
import type { RouteLine, RouteShow } from '../ctl/route.ts';
import { CliError, newCommand, print, printJson, UsageError } from './command.ts';
import { addClientOptions, ask, type ClientOptions } from './control_client.ts';

interface NetstatOptions extends ClientOptions {
  m?: boolean;
  i?: boolean;
  r?: boolean;
  /** A family, with -r, -s, -i and sockets. */
  f?: string;
  /** A protocol, with -s and sockets. */
  p?: string;
  W?: boolean;
  4?: boolean;
  6?: boolean;
  a?: boolean;
  B?: boolean;
  /** An interface, with -B. */
  I?: string;
  n?: boolean;
  /** How often -s was given. */
  s: number;
}

async function netstat(options: NetstatOptions): Promise<void> {
  const { json = false, m = false, i = false, r = false, a = false, s } = options;
  const { B: peers = false, I: netif } = options;
  if ([m, i, r, peers, s > 0].filter(Boolean).length > 1)
    throw new UsageError('netstat: one of -m, -i, -s, -r, -B at a time');
  if (netif !== undefined && !peers) throw new UsageError('netstat: -I only with -B');
  const family = familyOf(options);
  const only = { family, protocol: options.p ?? null };
  if (r && only.protocol === null) return routes(options, family);
  const limited = family !== null || only.protocol !== null;
  if (peers && !limited) return bpfPeers(options, netif ?? null);
  if ((limited && (m || r || peers)) || (i && only.protocol !== null))
    throw new UsageError(
      'netstat: a family only with -r, -s, -i and -an, a protocol with -s and -an',
    );
  const report = m ? 'm' : s > 0 ? 's' : i ? 'i' : 'an';
  const all = await ask<unknown>(options, 'netstat', { report, all: a });
  const data = limited ? limitedTo(report, all, only) : all;
  if (json) printJson(data);
  else
    print(
      await formatted(report, data, {
        all: a,
        hideZeros: s > 1,
        family,
        wide: options.W === true,
      }),
    );
}

/** `netstat -B`: those of `only`, or of all interfaces. */
async function bpfPeers(options: NetstatOptions, only: string | null): Promise<void> {
  const lines = await ask<BpfLine[]>(options, 'netstat', { report: 'B' });
  if (options.json === true) {
    printJson(lines.filter((line) => only === null || line.if === only));
    return;
  }
  const { formatNetstatB } = await import('../ctl/netstat_b.ts');
  print(formatNetstatB(lines, only));
}

interface Only {
  readonly family: string | null;
  readonly protocol: string | null;
}

/** The protocols of `netstat -s` that belong to a family. TCP and UDP belong to both. */
const FAMILIES = new Map([
  ['inet', ['tcp', 'udp', 'ip', 'icmp', 'igmp', 'arp']],
  ['inet6', ['tcp', 'udp', 'ip6', 'icmp6', 'mld']],
]);

/** How the rows of a protocol's sockets begin in `netstat -an`. */
const SOCKETS = new Map([
  ['tcp', 'tcp'],
  ['udp', 'udp'],
  ['icmp', 'icm4'],
  ['icmp6', 'icm6'],
]);

/** The part of a report that is about a family, a protocol, or both. */
function limitedTo(report: string, data: unknown, only: Only): unknown {
  const { family, protocol } = only;
  const ofFamily = family === null ? null : FAMILIES.get(family);
  if (ofFamily === undefined)
    throw new UsageError(`netstat: ${family}: unknown address family: inet, inet6`);
  if (report === 'i')
    return (data as InterfaceInfo[]).map((info) => ({
      ...info,
      inet: family === 'inet6' ? [] : info.inet,
      inet6: family === 'inet' ? [] : info.inet6,
    }));
  if (report === 's') {
    const { protocols, reasons } = data as NetstatS;
    const kept = Object.entries(protocols).filter(
      ([name]) =>
        (protocol === null || name === protocol) && (ofFamily === null || ofFamily.includes(name)),
    );
    if (kept.length === 0) throw unknownProtocol(protocol, Object.keys(protocols));
    // The reasons are of all layers. With a protocol FreeBSD prints only its counters.
    return { protocols: Object.fromEntries(kept), reasons: protocol === null ? reasons : [] };
  }
  const rows = protocol === null ? '' : SOCKETS.get(protocol);
  if (rows === undefined) throw unknownProtocol(protocol, [...SOCKETS.keys()]);
  const digit = family === 'inet' ? '4' : '6';
  return (data as SocketLine[]).filter(
    ({ proto }) => proto.startsWith(rows) && (family === null || proto.includes(digit)),
  );
}

function unknownProtocol(protocol: string | null, known: readonly string[]): CliError {
  return new CliError(
    `netstat: ${protocol}: unknown or uninstrumented protocol: ${known.join(', ')}`,
  );
}

/** The family that -f, -4 or -6 names; null: all. */
function familyOf({ f, 4: four = false, 6: six = false }: NetstatOptions): string | null {
  const named = [
    ...(f === undefined ? [] : [f]),
    ...(four ? ['inet'] : []),
    ...(six ? ['inet6'] : []),
  ];
  if (named.some((one) => one !== named[0])) throw new UsageError('netstat: one family at a time');
  return named[0] ?? null;
}

/** The routing tables: their JSON is a flat list, the text has one table per family. */
async function routes(options: NetstatOptions, family: string | null): Promise<void> {
  if (options.json === true) {
    const lines = await ask<RouteLine[]>(options, 'netstat', { report: 'r' });
    printJson(lines.filter((line) => family === null || line.family === family));
    return;
  }
  const words = family === null ? ['show'] : [`-${family}`, 'show'];
  const { formatRoute } = await import('../ctl/route.ts');
  print(formatRoute(await ask<RouteShow>(options, 'route', { words })));
}

/**
 * Formats a report as text. It assumes an instance of the same version, so the data is not checked.
 */
async function formatted(
  report: 'm' | 's' | 'i' | 'an',
  data: unknown,
  {
    all,
    hideZeros,
    family,
    wide,
  }: { all: boolean; hideZeros: boolean; family: string | null; wide: boolean },
): Promise<string> {
  switch (report) {
    case 'm': {
      const { formatNetstatM } = await import('../ctl/netstat_m.ts');
      return formatNetstatM(data as NetstatM);
    }
    case 's': {
      const { formatNetstatS } = await import('../ctl/netstat_s.ts');
      return formatNetstatS(data as NetstatS, hideZeros);
    }
    case 'i': {
      const { formatNetstatI } = await import('../ctl/netstat_i.ts');
      return formatNetstatI(data as InterfaceInfo[], family, wide);
    }
    case 'an': {
      const { formatNetstatAn } = await import('../ctl/netstat_an.ts');
      return formatNetstatAn(data as SocketLine[], all, wide);
    }
  }
}

export const netstatCommand: Command = addClientOptions(
  newCommand('netstat')
    .description(
      'show the network: sockets, or with -m memory, -s statistics, -i interfaces, -r routes, -B captures',
    )
    .option('-m', 'memory: mbufs, clusters, sendfile')
    .option('-i', 'interfaces')
    .option('-r', 'routing tables')
    .option('-B', 'peers of bpf(4), and captures')
    .option('-I <interface>', 'with -B: only this interface')
    .option('-f <family>', 'with -r, -s, -i or sockets: only this address family: inet, inet6')
    .option('-4', 'the same as -f inet')
    .option('-6', 'the same as -f inet6')
    .option('-p <protocol>', 'with -s or sockets: only this protocol, such as ip6')
    .option('-W', 'whole addresses of sockets and of -i')
    .option('-s', 'statistics by protocol; twice: without zeros', (_v, n: number) => n + 1, 0)
    .option('-a', 'listening sockets too')
    .option('-n', 'numbers instead of names (always on)'),
).action(netstat);
