/**
 * What layers note about packets for captures: why one was converted or copied, and which packet it
 * repeats or belongs to. A note waits in a table, by packet id, until the records of the packet are
 * written, which happens once per turn. The table forgets the oldest notes; it allocates nothing.
 */

const SLOTS = 8192;

class CaptureNotes {
  /** Whether a capture wants notes. Check it before preparing one. */
  on = false;
  readonly #whyId = new Uint32Array(SLOTS);
  readonly #what = new Uint16Array(SLOTS);
  readonly #reason = new Uint16Array(SLOTS);
  readonly #bytes = new Uint32Array(SLOTS);
  readonly #linkId = new Uint32Array(SLOTS);
  readonly #kind = new Uint16Array(SLOTS);
  readonly #index = new Uint16Array(SLOTS);
  readonly #other = new Uint32Array(SLOTS);

  /** Notes META_WHY_* for packet `id`: `reason` of src/sys/reason.ts, and the number of bytes. */
  why(id: number, what: number, reason: number, bytes: number): void {
    if (id === 0) return;
    const at = id % SLOTS;
    this.#whyId[at] = id;
    this.#what[at] = what;
    this.#reason[at] = reason;
    this.#bytes[at] = bytes;
  }

  /** Notes META_LINK_* from packet `id` to packet `other`. */
  link(id: number, kind: number, index: number, other: number): void {
    if (id === 0 || other === 0) return;
    const at = id % SLOTS;
    this.#linkId[at] = id;
    this.#kind[at] = kind;
    this.#index[at] = index;
    this.#other[at] = other;
  }

  /** Passes the notes of packet `id` to `writer`. @param why whether reasons are wanted */
  write(id: number, why: boolean, writer: NoteWriter): void {
    const at = id % SLOTS;
    if (this.#linkId[at] === id) writer.link(this.#kind[at]!, this.#index[at]!, this.#other[at]!);
    if (why && this.#whyId[at] === id)
      writer.why(this.#what[at]!, this.#reason[at]!, this.#bytes[at]!);
  }
}

/** MetaWriter's methods that `write` calls. */
interface NoteWriter {
  link(kind: number, index: number, id: number): void;
  why(what: number, reason: number, bytes: number): void;
}

/** The notes of this isolate. */
export const captureNotes: CaptureNotes = new CaptureNotes();
