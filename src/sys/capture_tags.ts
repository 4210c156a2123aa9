/**
 * Packet ids of the frames in the rings of NICs whose descriptors have no room for an id, for captures:
 * driver and device name the frame by interface number and slot. An id is taken once.
 */

const SLOTS = 4096;

class CaptureTags {
  readonly #sent: Uint32Array[] = [];
  readonly #received: Uint32Array[] = [];

  /** The driver has put packet `id` into `slot` of interface number `unit`. */
  putSent(unit: number, slot: number, id: number): void {
    (this.#sent[unit] ??= new Uint32Array(SLOTS))[slot % SLOTS] = id;
  }

  /** The device takes the id of the packet in `slot`; 0: none. */
  takeSent(unit: number, slot: number): number {
    return take(this.#sent[unit], slot);
  }

  /** The device has put frame `id` into `slot`. */
  putReceived(unit: number, slot: number, id: number): void {
    (this.#received[unit] ??= new Uint32Array(SLOTS))[slot % SLOTS] = id;
  }

  /** The driver takes the id of the frame in `slot`; 0: none. */
  takeReceived(unit: number, slot: number): number {
    return take(this.#received[unit], slot);
  }
}

function take(ids: Uint32Array | undefined, slot: number): number {
  if (ids === undefined) return 0;
  const id = ids[slot % SLOTS]!;
  ids[slot % SLOTS] = 0;
  return id;
}

/** The ids of this isolate. */
export const captureTags: CaptureTags = new CaptureTags();
