/**
 * A simulated Ethernet: a learning switch with one cable, a SimLink, per station. Impairments act on what a
 * station sends, on its way to the switch; the switch forwards at once. Left out: VLANs, spanning tree, ageing
 * of addresses.
 */

import { type Impairments, type SimEnd, SimLink, type SimLinkOptions } from './sim_wire.ts';

/** The bit of the first byte that group addresses have. */
const GROUP = 1;

/** A frame that a station sent. */
type SentFrame = (station: number, bytes: Uint8Array, lost: boolean) => void;

export class SimSwitch {
  readonly #options: SimLinkOptions;
  readonly #cables: SimLink[] = [];
  /** The number of the cable behind which each address is, by the address as a number. */
  readonly #learned = new Map<number, number>();
  /** Called with each frame that a station sends. It must not keep or change the bytes. */
  onSent: SentFrame | null = null;

  /** @param options of each cable; a frame has no virtio-net header */
  constructor(options: Omit<SimLinkOptions, 'vnetHdr'>) {
    this.#options = options;
  }

  /** Connects a station. Returns its end of the cable, for a NIC. Its number is the count of those before. */
  connect(): SimEnd {
    const cable = new SimLink(this.#options);
    const port = this.#cables.push(cable) - 1;
    cable.b.onFrame = (frame) => this.#forward(port, frame);
    cable.ab.onSent = (frame, lost) => this.onSent?.(port, frame, lost);
    return cable.a;
  }

  /** Changes the impairments of all cables, in the direction to the switch. */
  setImpair(impair: Partial<Impairments>): void {
    for (const { ab } of this.#cables) Object.assign(ab.impair, impair);
  }

  /** Connects or disconnects the cables of all stations, or of one. */
  setUp(up: boolean, station?: number): void {
    for (const [port, cable] of this.#cables.entries())
      if (station === undefined || station === port) cable.setUp(up);
  }

  /** Takes ownership of the frame. */
  #forward(from: number, frame: Uint8Array): void {
    this.#learned.set(address(frame, 6), from);
    const to = (frame[0]! & GROUP) === 0 ? this.#learned.get(address(frame, 0)) : undefined;
    if (to !== undefined) {
      if (to !== from) this.#cables[to]!.ba.arrived(frame);
      return;
    }
    for (const [port, { ba }] of this.#cables.entries())
      if (port !== from) ba.arrived(frame.slice());
  }
}

function address(frame: Uint8Array, off: number): number {
  let n = 0;
  for (let i = off; i < off + 6; i++) n = n * 256 + frame[i]!;
  return n;
}
