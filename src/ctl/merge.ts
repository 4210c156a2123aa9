/**
 * Joins the answers of several stacks with one address to one answer: counters are added, lists of
 * connections are joined, and settings are those of worker 0. The stacks get every change, so their
 * settings are the same.
 */

import { TCPS_LISTEN } from '../netinet/tcp_fsm.ts';
import type { ArpLine } from './arp.ts';
import type { FaultLine } from './fault.ts';
import type { InterfaceInfo } from './ifconfig.ts';
import type { NdpAnswer } from './ndp.ts';
import type { SocketLine } from './netstat_an.ts';
import type { NetstatS } from './netstat_s.ts';
import { type ControlRequest, type ControlResponse, errResponse, okResponse } from './protocol.ts';
import type { SysctlLeaf } from './sysctl.ts';
import type { ZoneLine } from './vmstat.ts';

/** Integers that count what a stack has now; the others are settings. */
const CURRENT = new Set([
  'net.inet.tcp.pcbcount',
  'net.inet.tcp.reass.cursegments',
  'net.inet.tcp.syncache.count',
]);

/** Adds numbers, arrays and objects of them; other values are those of the first. */
function added(values: readonly unknown[]): unknown {
  const [first] = values;
  if (typeof first === 'number')
    return (values as readonly number[]).reduce((sum, n) => sum + n, 0);
  if (Array.isArray(first))
    return first.map((_item, i) => added((values as readonly unknown[][]).map((list) => list[i])));
  if (typeof first !== 'object' || first === null) return first;
  const maps = values as readonly Record<string, unknown>[];
  return Object.fromEntries(
    Object.keys(first).map((name) => [name, added(maps.map((map) => map[name]))]),
  );
}

/** Joins rows of the same key by `join`; a row that only one list has is kept. */
function byKey<T>(
  lists: readonly (readonly T[])[],
  key: (row: T) => string,
  join: (rows: readonly T[]) => T,
): T[] {
  const found = new Map<string, T[]>();
  for (const row of lists.flat()) {
    const rows = found.get(key(row));
    if (rows === undefined) found.set(key(row), [row]);
    else rows.push(row);
  }
  return [...found.values()].map(join);
}

/** The rows with the named fields added. */
const adding =
  <T extends object>(...fields: (keyof T)[]) =>
  (rows: readonly T[]): T => {
    const sums = fields.map((field) => [field, added(rows.map((row) => row[field]))]);
    return { ...rows[0]!, ...(Object.fromEntries(sums) as Partial<T>) };
  };

/** The first row whose link-level address is known. */
const resolved = <T extends { ether: string | null }>(rows: readonly T[]): T =>
  rows.find(({ ether }) => ether !== null) ?? rows[0]!;

const interfaces = (lists: readonly InterfaceInfo[][]): InterfaceInfo[] =>
  byKey(lists, ({ name }) => name, adding('counters'));

function statistics(all: readonly NetstatS[]): NetstatS {
  const sum = added(all) as NetstatS;
  const states = sum.protocols['tcp']?.['states'];
  const own = all[0]!.protocols['tcp']?.['states'];
  // Each stack has the same listener.
  if (Array.isArray(states) && Array.isArray(own)) states[TCPS_LISTEN] = own[TCPS_LISTEN]!;
  return sum;
}

/** Sockets without a peer are the same in each stack. */
function sockets(lists: readonly SocketLine[][]): SocketLine[] {
  return lists.flatMap((list, i) =>
    i === 0 ? list : list.filter(({ foreign }) => foreign !== '*.*'),
  );
}

function leaves(lists: readonly SysctlLeaf[][]): SysctlLeaf[] {
  return lists[0]!.map((leaf, i) => {
    if (leaf.type !== 'counters' && !CURRENT.has(leaf.name)) return leaf;
    const all = lists.map((list) => list[i]!);
    return {
      ...leaf,
      ...(added(all.map(({ value }) => ({ value }))) as Pick<SysctlLeaf, 'value'>),
    };
  });
}

function ndp(answers: readonly NdpAnswer[]): NdpAnswer {
  const first = answers[0]!;
  if (first.op === 'neighbors')
    return {
      op: 'neighbors',
      lines: byKey(
        answers.map((answer) => (answer.op === 'neighbors' ? answer.lines : [])),
        ({ addr }) => addr,
        resolved,
      ),
    };
  if (first.op !== 'deleted') return first;
  const addrs = answers.flatMap((answer) => (answer.op === 'deleted' ? answer.addrs : []));
  return { op: 'deleted', addrs: [...new Set(addrs)] };
}

function netstat(report: unknown, data: readonly unknown[]): unknown {
  switch (report) {
    case 'i':
      return interfaces(data as InterfaceInfo[][]);
    case 's':
      return statistics(data as NetstatS[]);
    case 'm':
      return added(data);
    case 'an':
      return sockets(data as SocketLine[][]);
    case 'B':
      return data.flat();
    default:
      return data[0];
  }
}

function merged({ cmd, args }: ControlRequest, data: readonly unknown[]): unknown {
  const [first] = data;
  switch (cmd) {
    case 'arp':
      if (args['op'] !== undefined) return first;
      return byKey(data as ArpLine[][], (line) => `${line.if} ${line.addr}`, resolved);
    case 'ifconfig':
      if (Array.isArray(first)) return interfaces(data as InterfaceInfo[][]);
      return first === null ? null : interfaces(data.map((info) => [info as InterfaceInfo]))[0];
    case 'ndp':
      return ndp(data as NdpAnswer[]);
    case 'netstat':
      return netstat(args['report'], data);
    case 'sysctl':
      return leaves(data as SysctlLeaf[][]);
    case 'vmstat': {
      const sum = adding<ZoneLine>('limit', 'used', 'free', 'requests', 'failures');
      return byKey(data as ZoneLine[][], ({ name }) => name, sum);
    }
    case 'fault':
      if (args['op'] !== 'list') return first;
      return byKey(
        data as FaultLine[][],
        (line) => `${line.if} ${line.id}`,
        adding('matched', 'hits'),
      );
    default:
      return first;
  }
}

/** Whether each stack may have entries of its own, so that a request about one may fail in others. */
export function hasOwnEntries({ cmd }: ControlRequest): boolean {
  return cmd === 'arp' || cmd === 'ndp';
}

/**
 * Joins the answers to `req`, that of worker 0 first. If a worker could not do what others did, the
 * answer is its error with its number.
 */
export function mergeAnswers(
  req: ControlRequest,
  answers: readonly ControlResponse[],
): ControlResponse {
  const done = answers.filter((answer) => answer.ok);
  if (done.length === 0) return answers[0]!;
  const worker = answers.findIndex((answer) => !answer.ok);
  const failed = answers[worker];
  if (failed !== undefined && !failed.ok && !(hasOwnEntries(req) && failed.err.code === 'ENOENT'))
    return errResponse(req.id, failed.err.code, `worker ${worker}: ${failed.err.message}`);
  return okResponse(
    req.id,
    merged(
      req,
      done.map(({ data }) => data),
    ),
  );
}
