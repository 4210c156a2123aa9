/** `fault`: faults on the wires of a running instance. */

import type { Fault, FaultSpec } from '../fault/fault.ts';
import { checkedProgram, faultDraft, faultSpec } from '../fault/fault_spec.ts';
import type { FaultStage } from '../fault/fault_stage.ts';
import { type BpfProgram, bpfProgram } from '../sys/bpf_filter.ts';
import { ControlFailure } from './protocol.ts';
import type { AddFault, RemoveFault } from './request.ts';

/** The place of faults on a NIC's wire. */
export interface FaultPlace {
  /** The interface, such as tn0. */
  readonly if: string;
  readonly stage: FaultStage;
  /** Allocates the memory that a fault needs. Throws TapnicError. */
  prepare(): void;
}

/** A line of `fault list`. Options that were not given are null. */
export interface FaultLine extends Omit<FaultSpec, 'match' | 'matchText' | 'delayMs' | 'jitterMs'> {
  readonly id: number;
  readonly if: string;
  readonly delay: number | null;
  readonly jitter: number | null;
  /** The filter's text. */
  readonly match: string | null;
  /** Frames that matched the filter, and frames to which the fault was applied. */
  readonly matched: number;
  readonly hits: number;
}

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

/**
 * Returns the place of the interface `name`; null: the first one. Throws ControlFailure (ENXIO).
 */
function placeOf(places: readonly FaultPlace[], name: string | null): FaultPlace {
  const place = name === null ? places[0] : places.find((p) => p.if === name);
  if (place === undefined)
    throw new ControlFailure('ENXIO', `${name ?? 'the first interface'}: no such interface`);
  return place;
}

/** Runs a check of a fault, whose errors become ControlFailure (EINVAL). */
function checking<T>(check: () => T): T {
  try {
    return check();
  } catch (e) {
    throw new ControlFailure('EINVAL', e instanceof Error ? e.message : String(e));
  }
}

/** `fault add`. Throws ControlFailure (EINVAL, ENXIO), TapnicError (ENOMEM, EMFILE). */
export function addFault(
  places: readonly FaultPlace[],
  { if: name, kind, values, program }: Omit<AddFault, 'op'>,
): FaultLine {
  const place = placeOf(places, name);
  const spec = checking(() => {
    const compiled = program === null ? null : checkedProgram(program);
    return faultSpec(faultDraft(kind, values, place.stage.nextId), compiled);
  });
  place.prepare();
  return lineOf(place, place.stage.add(spec));
}

/** Accepts no frame: `ret #0`. */
const NO_FRAME = bpfProgram([[0x06, 0, 0, 0]]);

/** A fault whose filter is being compiled. It applies to no frame before `activate`. */
export class PendingFault {
  readonly line: FaultLine;
  readonly #stage: FaultStage;
  readonly #fault: Fault;

  /** Adds the fault. Throws as `addFault` does. */
  constructor(
    places: readonly FaultPlace[],
    { if: name, kind, values }: Omit<AddFault, 'op' | 'program'>,
  ) {
    const place = placeOf(places, name);
    const draft = checking(() => faultDraft(kind, values, place.stage.nextId));
    place.prepare();
    this.#stage = place.stage;
    this.#fault = place.stage.add({ ...draft, match: NO_FRAME });
    this.line = lineOf(place, this.#fault);
  }

  /** Sets the filter's program. Returns false if the fault was removed before. */
  activate(program: BpfProgram): boolean {
    if (!this.#stage.faults.includes(this.#fault)) return false;
    this.#fault.filter = program;
    return true;
  }

  /** Removes the fault. Returns false if it was removed before. */
  remove(): boolean {
    return this.#stage.remove(this.#fault.id);
  }
}

/** `fault remove`. Throws ControlFailure (ENOENT, ENXIO). */
export function removeFault(
  places: readonly FaultPlace[],
  { if: name, id }: Omit<RemoveFault, 'op'>,
): { removed: number } {
  const place = placeOf(places, name);
  if (id === 'all') return { removed: place.stage.removeAll() };
  if (!place.stage.remove(id)) throw new ControlFailure('ENOENT', `${id}: no such fault`);
  return { removed: 1 };
}

/** `fault list`: the faults of all NICs. */
export function listFaults(places: readonly FaultPlace[]): FaultLine[] {
  return places.flatMap((place) => place.stage.faults.map((f) => lineOf(place, f)));
}

/** Formats the output of `fault list`. */
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
