/** Captures that begin while a stack runs: the control socket and the library open them. */

import type { Ifnet } from '../net/if_var.ts';
import { capturePoints } from '../sys/capture.ts';
import { TapnicError } from '../sys/errno.ts';
import {
  CaptureRecorder,
  POINT_TEXTS,
  type PlaceNames,
  type RecordSink,
} from './capture_recorder.ts';
import type { RecordSpec } from '../pcap/record_spec.ts';

/** An interface with the names that a capture may give it, and its NIC model. */
export interface CaptureInterface {
  readonly ifp: Ifnet;
  readonly names: PlaceNames;
  /** Empty for an interface without a NIC of its own. */
  readonly model: string;
}

/** A place of `capture --list`. */
export interface PlaceLine {
  /** `POINT@IF`, as a capture names it. */
  readonly place: string;
  readonly point: string;
  readonly if: string;
  /** Linux's name of the interface; null without a NIC. */
  readonly tap: string | null;
  readonly description: string;
  /** Number of captures that record there now. */
  readonly captures: number;
}

/** A place of a capture, and its interface. */
interface FoundPlace {
  readonly at: CaptureInterface;
  readonly place: RecordSpec['places'][number];
}

/** The points at which an interface can be captured. */
function pointsOf({ model }: CaptureInterface): string[] {
  const device = ['ring', 'wire'];
  return capturePoints.filter((point) => model !== '' || !device.includes(point));
}

/** The running captures of a stack. */
export class LiveCaptures {
  readonly #interfaces: () => readonly CaptureInterface[];
  readonly #running = new Set<CaptureRecorder>();

  /** @param interfaces the interfaces now, those of NICs first */
  constructor(interfaces: () => readonly CaptureInterface[]) {
    this.#interfaces = interfaces;
  }

  list(): PlaceLine[] {
    return this.#interfaces().flatMap((at) =>
      pointsOf(at).map((point) => {
        const { ifp, names, model } = at;
        const tap = names.find((name) => name !== null && name !== ifp.if_xname) ?? null;
        const captures = [...this.#running].filter((one) =>
          one.places.some((place) => place.ifp === ifp && capturePoints[place.point] === point),
        ).length;
        return {
          place: `${point}@${ifp.if_xname}`,
          point,
          if: ifp.if_xname,
          tap: model === '' ? null : tap,
          description: POINT_TEXTS[point as keyof typeof POINT_TEXTS],
          captures,
        };
      }),
    );
  }

  /**
   * The interfaces of places, which must exist. Throws TapnicError: ENXIO (no such interface), EINVAL (the
   * interface has no such point).
   */
  find(places: RecordSpec['places']): FoundPlace[] {
    const interfaces = this.#interfaces();
    return places.map((place) => {
      const at = interfaces.find(({ names }) => names.includes(place.at));
      if (at === undefined)
        throw new TapnicError(
          'ENXIO',
          'capture',
          `${place.at ?? 'the first interface'}: no such interface: there is ` +
            interfaces.map(({ ifp }) => ifp.if_xname).join(', '),
        );
      const point = capturePoints[place.point] ?? '';
      if (!pointsOf(at).includes(point))
        throw new TapnicError(
          'EINVAL',
          'capture',
          `${at.ifp.if_xname} has no point ${point}: it has ${pointsOf(at).join(', ')}`,
        );
      return { at, place };
    });
  }

  /** Starts a capture of interfaces that exist. Throws TapnicError, see `find`. */
  open(spec: RecordSpec, sink: RecordSink): CaptureRecorder {
    const found = this.find(spec.places);
    const recorder = new CaptureRecorder(spec, sink);
    for (const { at, place } of found) recorder.attachPlace(place, at.ifp, at.model);
    this.#running.add(recorder);
    return recorder;
  }

  /** Ends a capture: its last bytes go to its sink. */
  close(recorder: CaptureRecorder): void {
    recorder.close();
    this.#running.delete(recorder);
  }

  /** Ends all captures. */
  closeAll(): void {
    for (const recorder of this.#running) this.close(recorder);
  }
}
