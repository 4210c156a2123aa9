/** Reads and checks the arguments of the streamed request `capture`; see protocol.ts. */

import type { RecordSpec } from '../pcap/record_spec.ts';
import { bpfProgram, bpf_validate, BPF_MAXINSNS } from '../sys/bpf_filter.ts';
import { capturePoints } from '../sys/capture.ts';
import { ControlFailure, type ControlRequest } from './protocol.ts';
import { programOf, stringArg } from './request.ts';

/** Interfaces of one capture. */
const PLACES_MAX = 64;
const COMMENT_MAX = 1000;

type Args = ControlRequest['args'];

function fail(message: string): never {
  throw new ControlFailure('EINVAL', message);
}

/** A whole number in [1, max]; undefined if it is missing. */
function countArg(args: Args, name: string, max: number): number | undefined {
  const value = args[name];
  if (value === undefined) return undefined;
  if (typeof value !== 'number' || !Number.isInteger(value) || value < 1 || value > max)
    return fail(`${name}: not a whole number from 1 to ${max}`);
  return value;
}

function placesArg(args: Args): RecordSpec['places'] {
  const places = args['places'];
  if (!Array.isArray(places) || places.length === 0 || places.length > PLACES_MAX)
    return fail(`places: not a list of 1 to ${PLACES_MAX} places`);
  return places.map((place: unknown) => {
    const { point, at } = (place ?? {}) as Record<string, unknown>;
    const number = (capturePoints as readonly unknown[]).indexOf(point);
    if (number < 0) fail(`${String(point)}: not a capture point`);
    if (at !== null && typeof at !== 'string') return fail('at: not the name of an interface');
    return { point: number, at };
  });
}

function filterArg(args: Args): RecordSpec['filter'] {
  const insns = programOf(args);
  if (insns === null || insns.length === 0) return undefined;
  const program = bpfProgram(insns);
  if (insns.length > BPF_MAXINSNS || !bpf_validate(program)) fail('program: not a valid filter');
  return { text: stringArg(args, 'filter') ?? '', program };
}

/** Throws ControlFailure (EINVAL). */
export function readCapture({ args }: ControlRequest): RecordSpec {
  const places = placesArg(args);
  const format = stringArg(args, 'format') ?? 'pcapng';
  if (format !== 'pcap' && format !== 'pcapng') return fail(`${format}: not a format`);
  if (format === 'pcap' && places.length > 1)
    fail('a pcap file has one interface: use pcapng for several points');
  const comment = stringArg(args, 'comment');
  if (comment !== null && comment.length > COMMENT_MAX)
    fail(`comment: longer than ${COMMENT_MAX} characters`);
  const snaplen = countArg(args, 'snaplen', 262_144);
  const filter = filterArg(args);
  const pen = countArg(args, 'pen', 0xffffffff);
  const count = countArg(args, 'count', Number.MAX_SAFE_INTEGER);
  return {
    places,
    format,
    nanoseconds: args['nanoseconds'] === true,
    ...(snaplen === undefined ? {} : { snaplen }),
    ...(filter === undefined ? {} : { filter }),
    ...(pen === undefined ? {} : { pen }),
    ...(count === undefined ? {} : { count }),
    ...(comment === null ? {} : { comment }),
  };
}
