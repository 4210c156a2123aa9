/**
 * The types of control requests. The JSON of a line is checked and converted to one of them here;
 * all other code takes typed requests.
 */

import { FAULT_OPTIONS, type FaultValues } from '../fault/fault_spec.ts';
import type { ArpChange } from './arp.ts';
import { ControlFailure, type ControlRequest } from './protocol.ts';

const NETSTAT_REPORTS = ['m', 'an', 'i', 's', 'r', 'B'] as const;
type NetstatReport = (typeof NETSTAT_REPORTS)[number];

/** `addFault` checks `values`, which may have any type. `program` is the compiled `match`. */
export interface AddFault {
  readonly op: 'add';
  /** The interface, such as tn0; null: the first one. */
  readonly if: string | null;
  readonly kind: string;
  readonly values: FaultValues;
  readonly program: readonly (readonly number[])[] | null;
}

export interface RemoveFault {
  readonly op: 'remove';
  readonly if: string | null;
  readonly id: number | 'all';
}

/** All requests. */
export type Request =
  | { readonly cmd: 'info' }
  /** Without `change`: list the table. */
  | { readonly cmd: 'arp'; readonly change?: ArpChange }
  /** `if` null: all interfaces. `words` are ifconfig(8)'s. */
  | { readonly cmd: 'ifconfig'; readonly if: string | null; readonly words: readonly string[] }
  /** `all`: include listening sockets. */
  | { readonly cmd: 'netstat'; readonly report: NetstatReport; readonly all: boolean }
  /** `words` are ndp(8)'s. */
  | { readonly cmd: 'ndp'; readonly words: readonly string[] }
  /** `words` are route(8)'s. */
  | { readonly cmd: 'route'; readonly words: readonly string[] }
  /** `name` '' is the root; `value` null reads. */
  | { readonly cmd: 'sysctl'; readonly name: string; readonly value: string | null }
  | { readonly cmd: 'vmstat'; readonly report: 'z' }
  /** The places where a capture can record. */
  | { readonly cmd: 'captures' }
  | ({ readonly cmd: 'fault' } & (AddFault | RemoveFault | { readonly op: 'list' }));

type Args = ControlRequest['args'];

function fail(message: string): never {
  throw new ControlFailure('EINVAL', message);
}

/** A string argument; null if it is missing. */
export function stringArg(args: Args, name: string): string | null {
  const value = args[name];
  if (value === undefined) return null;
  return typeof value === 'string' ? value : fail(`${name}: not a string`);
}

/** A list of strings; empty if it is missing. */
function stringsArg(args: Args, name: string): string[] {
  const value = args[name] ?? [];
  if (Array.isArray(value) && value.every((v) => typeof v === 'string')) return value;
  return fail(`${name}: not a list of strings`);
}

function netstatOf(args: Args): Request {
  const name = stringArg(args, 'report') ?? '(none named)';
  const report = NETSTAT_REPORTS.find((one) => one === name);
  if (report === undefined) return fail(`netstat: no report ${name}`);
  return { cmd: 'netstat', report, all: args['all'] === true };
}

function arpOf(args: Args): Request {
  const op = stringArg(args, 'op');
  if (op === null) return { cmd: 'arp' };
  if (op !== 'set' && op !== 'delete') return fail(`arp: no operation ${op}`);
  const change = {
    op,
    addr: stringArg(args, 'addr') ?? '',
    ether: stringArg(args, 'ether') ?? '',
    temp: args['temp'] === true,
    pub: args['pub'] === true,
    replace: args['replace'] === true,
  } as const;
  return { cmd: 'arp', change };
}

function vmstatOf(args: Args): Request {
  const report = stringArg(args, 'report') ?? '(none named)';
  return report === 'z' ? { cmd: 'vmstat', report } : fail(`vmstat: no report ${report}`);
}

/** A BPF program as a list of instructions; null if it is missing. */
export function programOf({ program }: Args): AddFault['program'] {
  if (program === undefined) return null;
  const isWord = (n: unknown): boolean =>
    Number.isInteger(n) && (n as number) >= 0 && (n as number) <= 0xffffffff;
  const ok =
    Array.isArray(program) &&
    program.every((insn) => Array.isArray(insn) && insn.length === 4 && insn.every(isWord));
  return ok ? (program as number[][]) : fail('program: not a BPF program');
}

function faultOf(args: Args): Request {
  const op = stringArg(args, 'op') ?? '';
  const on = stringArg(args, 'if');
  switch (op) {
    case 'list':
      return { cmd: 'fault', op };
    case 'remove': {
      const { id = '' } = args;
      if (id !== 'all' && !Number.isSafeInteger(id)) fail(`${String(id)}: not an id, nor all`);
      return { cmd: 'fault', op, if: on, id: id as number | 'all' };
    }
    case 'add': {
      const values: FaultValues = {};
      for (const name of FAULT_OPTIONS) if (args[name] !== undefined) values[name] = args[name];
      const kind = stringArg(args, 'kind') ?? '';
      return { cmd: 'fault', op, if: on, kind, values, program: programOf(args) };
    }
    default:
      return fail(`fault: no operation ${op}`);
  }
}

const readers = new Map<string, (args: Args) => Request>([
  ['info', () => ({ cmd: 'info' })],
  ['arp', arpOf],
  [
    'ifconfig',
    (args) => ({
      cmd: 'ifconfig',
      if: stringArg(args, 'if'),
      words: stringsArg(args, 'words'),
    }),
  ],
  ['ndp', (args) => ({ cmd: 'ndp', words: stringsArg(args, 'words') })],
  ['netstat', netstatOf],
  ['route', (args) => ({ cmd: 'route', words: stringsArg(args, 'words') })],
  [
    'sysctl',
    (args) => ({
      cmd: 'sysctl',
      name: stringArg(args, 'name') ?? '',
      value: stringArg(args, 'value'),
    }),
  ],
  ['vmstat', vmstatOf],
  ['captures', () => ({ cmd: 'captures' })],
  ['fault', faultOf],
]);

/**
 * Converts a request. Throws ControlFailure: ENOSYS (unknown command), EINVAL (a wrong argument).
 */
export function readRequest({ cmd, args }: ControlRequest): Request {
  const read = readers.get(cmd);
  if (read === undefined) throw new ControlFailure('ENOSYS', `no command ${JSON.stringify(cmd)}`);
  return read(args);
}
