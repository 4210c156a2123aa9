/**
 * Compares the frames at `wire` with those that another program recorded on the TAP, such as tcpdump:
 * per direction the same frames in the same order. The two directions are compared separately,
 * because Linux queues a frame for the NIC before the NIC reads it. What one file has before the
 * other began or after it ended is counted, not an error.
 */

import type { FileItem } from '../pcap/read.ts';
import { Numbering, type PacketRecord, type Place } from './records.ts';
import { addMismatch, type Check, type Verdict } from './verify.ts';

/** Frames of each file that are compared; a file with more is refused. */
const FRAMES_MAX = 2_000_000;
/** Frames that one file may have before the other begins. */
const SKEW_MAX = 4096;
/** FNV-1a. */
const FNV_OFFSET = 0x811c9dc5;
const FNV_PRIME = 0x01000193;

/** The frames of one direction. */
class Frames {
  readonly numbers: number[] = [];
  readonly lengths: number[] = [];
  /** Hash of the bytes that both files have. */
  readonly hashes: number[] = [];

  add(number: number, bytes: Uint8Array, wirelen: number, snaplen: number): void {
    let hash = FNV_OFFSET;
    const n = Math.min(bytes.length, snaplen);
    for (let i = 0; i < n; i++) hash = Math.imul(hash ^ bytes[i]!, FNV_PRIME);
    this.numbers.push(number);
    this.lengths.push(wirelen);
    this.hashes.push(hash >>> 0);
  }

  same(at: number, other: Frames, otherAt: number): boolean {
    return this.lengths[at] === other.lengths[otherAt] && this.hashes[at] === other.hashes[otherAt];
  }
}

/** Frames whose agreement decides how the files are laid side by side. */
const RUN = 64;

/** Equal frames among the first ones from `i` and `j`. */
function agreeing(a: Frames, i: number, b: Frames, j: number): number {
  const run = Math.min(RUN, a.numbers.length - i, b.numbers.length - j);
  let same = 0;
  for (let k = 0; k < run; k++) if (a.same(i + k, b, j + k)) same++;
  return same;
}

/**
 * How far `b` is behind `a` at the start: positive if `a` began earlier. The place where most frames
 * agree counts, so that equal ACKs and single faults do not mislead. Null: no common frame.
 */
function skewOf(a: Frames, b: Frames): number | null {
  const n = Math.min(SKEW_MAX, Math.max(a.numbers.length, b.numbers.length));
  let best: number | null = null;
  let most = 0;
  for (let skew = 0; skew <= n; skew++)
    for (const one of skew === 0 ? [0] : [skew, -skew]) {
      const same = agreeing(a, Math.max(0, one), b, Math.max(0, -one));
      if (same > most) {
        most = same;
        best = one;
      }
    }
  return best;
}

/** Where the files agree again after `i` and `j`: the fewest frames of `a` and of `b` to skip. */
function nextAgreement(a: Frames, i: number, b: Frames, j: number): [number, number] {
  for (let skip = 1; skip <= RUN; skip++) {
    if (a.same(i + skip, b, j)) return [skip, 0];
    if (a.same(i, b, j + skip)) return [0, skip];
    if (a.same(i + skip, b, j + skip)) return [skip, skip];
  }
  return [1, 1];
}

/** Both directions of a file. */
interface Both {
  readonly out: Frames;
  readonly in: Frames;
}

function both(): Both {
  return { out: new Frames(), in: new Frames() };
}

/** The frames of our points `wire`. */
export class WireFrames {
  readonly #frames = both();
  readonly #other = both();
  /** The interface that is compared; null: no record at `wire` yet. */
  place: Place | null = null;
  readonly #snaplen: number;

  /** @param snaplen bytes that both files have of a frame */
  constructor(snaplen: number) {
    this.#snaplen = snaplen;
  }

  /** Takes a record of our file. */
  add({ place, direction, number, packet }: PacketRecord): void {
    if (place.point !== 'wire' || direction === 'unknown') return;
    this.place ??= place;
    if (this.place.ifname !== place.ifname) return;
    const cut = Math.min(this.#snaplen, place.snaplen || this.#snaplen);
    this.#frames[direction].add(number, packet.bytes, packet.wirelen, cut);
  }

  /** Reads the other file. Returns what is wrong with it, or null. */
  async read(items: AsyncIterable<FileItem>): Promise<string | null> {
    const { place } = this;
    if (place === null) return 'the capture has no frames of a point wire';
    const { mac } = place;
    if (mac === null) return `the capture does not have the address of ${place.ifname}`;
    const numbering = new Numbering();
    const cut = Math.min(this.#snaplen, place.snaplen || this.#snaplen);
    for await (const item of items) {
      if (item.kind === 'interface') numbering.addInterface(item);
      if (item.kind !== 'packet') continue;
      const { number, packet } = numbering.packet(item);
      if (number > FRAMES_MAX) return `it has more than ${FRAMES_MAX} frames`;
      const ours = mac.every((byte, i) => packet.bytes[6 + i] === byte);
      this.#other[ours ? 'out' : 'in'].add(number, packet.bytes, packet.wirelen, cut);
    }
    return null;
  }

  /** Adds the results to the verdict. */
  compare(verdict: Verdict): void {
    for (const direction of ['out', 'in'] as const) {
      const a = this.#frames[direction];
      const b = this.#other[direction];
      verdict.checks.push(this.#compare(verdict, direction, a, b));
    }
  }

  #compare(verdict: Verdict, direction: string, a: Frames, b: Frames): Check {
    const name = `${this.place!.name} ${direction}: frames as in the other file`;
    const [na, nb] = [a.numbers.length, b.numbers.length];
    if (na === 0 && nb === 0) return { name, expected: 0, found: 0, ok: true, note: '' };
    const skew = skewOf(a, b);
    if (skew === null) {
      addMismatch(verdict, a.numbers[0] ?? 0, `no common ${direction} frame: ${na} and ${nb}`);
      return { name, expected: Math.min(na, nb), found: 0, ok: false, note: 'nothing in common' };
    }
    const [i0, j0] = [Math.max(0, skew), Math.max(0, -skew)];
    let [i, j, found, expected] = [i0, j0, 0, 0];
    while (i < na && j < nb) {
      if (a.same(i, b, j)) {
        found++;
        expected++;
        i++;
        j++;
        continue;
      }
      const [skipA, skipB] = nextAgreement(a, i, b, j);
      for (let k = 0; k < skipA && i < na; k++, i++)
        addMismatch(verdict, a.numbers[i]!, `${direction}: not in the other file as it is here`);
      for (let k = 0; k < skipB && j < nb; k++, j++) {
        const text = `packet ${b.numbers[j]} of the other file is not here as it is there`;
        addMismatch(verdict, 0, `${direction}: ${text}`);
      }
      expected += Math.max(skipA, skipB);
    }
    const extra = [
      [Math.abs(skew), `before the ${skew > 0 ? 'other file' : 'capture'} began`],
      [na - i + (nb - j), 'after one of them ended'],
    ] as const;
    const note = extra.filter(([n]) => n > 0).map(([n, text]) => `${n} ${text}`);
    return { name, expected, found, ok: found === expected, note: note.join(', ') };
  }
}
