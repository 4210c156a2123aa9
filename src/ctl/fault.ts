/** `fault`: faults on the wires of a running instance. */

import type { Fault, FaultSpec } from '../fault/fault.ts';
import { checkedProgram, FAULT_OPTIONS, faultSpec, type FaultTexts } from '../fault/fault_spec.ts';
import type { FaultStage } from '../fault/fault_stage.ts';
import { ControlFailure, type ControlRequest, stringArg } from './protocol.ts';

/** A NIC's place for faults. */
export interface FaultPlace {
  /** The interface, such as tn0. */
  readonly if: string;
  readonly stage: FaultStage;
  /** Makes sure that there is memory for it. Throws TapnicError. */
  prepare(): void;
}

/** A line of `fault list`; what was not given is null. */
export interface FaultLine extends Omit<FaultSpec, 'match' | 'matchText' | 'delayMs' | 'jitterMs'> {
  readonly id: number;
  readonly if: string;
  readonly delay: number | null;
  readonly jitter: number | null;
  /** The filter's text. */
  readonly match: string | null;
  /** Frames that the filter let through, and those that it was done to. */
  readonly matched: number;
  readonly hits: number;
}

type Args = ControlRequest['args'];

function lineOf(place: FaultPlace, { id, spec, matched, hits }: Fault): FaultLine {
  const { match: _match, matchText, delayMs, jitterMs, ...rest } = spec;
  return {
    id,
    if: place.if,
    ...rest,
    delay: delayMs,
    jitter: jitterMs,
    match: matchText,
    matched,
    hits,
  };
}

/** The NIC that a request names, else the first one. */
function placeOf(places: readonly FaultPlace[], args: Args): FaultPlace {
  const name = stringArg(args, 'if');
  const place = name === undefined ? places[0] : places.find((p) => p.if === name);
  if (place === undefined) throw new ControlFailure('ENXIO', `${name}: no such interface`);
  return place;
}

function programArg(args: Args): Uint32Array | null {
  const { program } = args;
  if (program === undefined) return null;
  const ok =
    Array.isArray(program) &&
    program.every(
      (insn) =>
        Array.isArray(insn) &&
        insn.length === 4 &&
        insn.every((n) => Number.isInteger(n) && n >= 0 && n <= 0xffffffff),
    );
  if (!ok) throw new ControlFailure('EINVAL', 'program: not a BPF program');
  return checkedProgram(program as number[][]);
}

function add(places: readonly FaultPlace[], args: Args): FaultLine {
  const place = placeOf(places, args);
  const texts: FaultTexts = {};
  for (const name of FAULT_OPTIONS) {
    const text = stringArg(args, name);
    if (text !== undefined) texts[name] = text;
  }
  let spec: FaultSpec;
  try {
    const program = programArg(args);
    spec = faultSpec(
      stringArg(args, 'kind') ?? '',
      texts,
      place.stage.nextId,
      program ??
        (() => {
          throw new Error('match: its program is missing');
        }),
    );
  } catch (e) {
    if (e instanceof ControlFailure) throw e;
    throw new ControlFailure('EINVAL', e instanceof Error ? e.message : String(e));
  }
  place.prepare();
  return lineOf(place, place.stage.add(spec));
}

function remove(places: readonly FaultPlace[], args: Args): { removed: number } {
  const id = stringArg(args, 'id') ?? '';
  const place = placeOf(places, args);
  if (id === 'all') return { removed: place.stage.removeAll() };
  if (!/^\d+$/.test(id)) throw new ControlFailure('EINVAL', `${id}: not an id, nor all`);
  if (!place.stage.remove(Number(id))) throw new ControlFailure('ENOENT', `${id}: no such fault`);
  return { removed: 1 };
}

/** Carries `fault add`, `list` or `remove` out. Throws ControlFailure. */
export function runFault(places: readonly FaultPlace[], args: Args): unknown {
  const op = stringArg(args, 'op') ?? '';
  switch (op) {
    case 'add':
      return add(places, args);
    case 'remove':
      return remove(places, args);
    case 'list':
      return places.flatMap((place) => place.stage.faults.map((f) => lineOf(place, f)));
    default:
      throw new ControlFailure('EINVAL', `fault: no operation ${op}`);
  }
}

/** What `fault list` prints. */
export function formatFaults(lines: readonly FaultLine[]): string {
  return lines
    .map((line) => {
      const { id, kind, point, matched, hits } = line;
      const said = (['rate', 'every', 'nth', 'burst', 'delay', 'jitter', 'bits', 'seed'] as const)
        .filter((name) => line[name] !== null)
        .map((name) => `${name} ${line[name]}`);
      const match = line.match === null ? [] : [`match "${line.match}"`];
      const words = [...said, ...match].join(' ');
      return `${id}: ${line.if} ${point} ${kind} ${words}: ${hits} of ${matched} frames\n`;
    })
    .join('');
}
