/** What a device knows about a frame, and how it becomes the metadata of a capture record. */

import {
  META_DESCS_BYTES,
  META_ITEM_BYTES,
  META_LINK_BYTES,
  META_PACKET_BYTES,
  META_WHY_BYTES,
  META_WHY_DROP,
  type MetaWriter,
} from './capture_meta.ts';
import type { Reason } from './reason.ts';

/** Maximum number of descriptors in a record; further ones are left out. */
const META_DESCS_MAX = 65;
/** Maximum number of frames that one received packet is linked to. */
const META_LINKS_MAX = 255;

/** Facts about one frame. One object serves all frames of a device. */
export class FrameFacts {
  /** META_CSUM_*. */
  csum = 0;
  /** META_LINK_*; 0: no link. */
  linkKind = 0;
  linkIndex = 0;
  readonly linkIds: Uint32Array = new Uint32Array(META_LINKS_MAX);
  linkCount = 0;
  /**
   * Descriptors: their ring is at arena offset `descBase` and has `descSlots` slots of `descBytes`
   * bytes. `descCount` of them, from slot `descFirst`, belong to the frame.
   */
  descBase = 0;
  descSlots = 0;
  descBytes = 0;
  descFirst = 0;
  descCount = 0;
  /** META_WHY_*; 0: nothing happened to the frame. */
  what = 0;
  reason: Reason = 0;
  bytes = 0;

  clear(): void {
    this.csum = this.linkKind = this.linkIndex = this.linkCount = 0;
    this.descCount = this.what = 0;
  }

  link(kind: number, index: number, id: number): void {
    this.linkKind = kind;
    this.linkIndex = index;
    this.linkIds[0] = id;
    this.linkCount = 1;
  }

  /** Links to the packets `ids[0 .. n)`, n at most META_LINKS_MAX. */
  links(kind: number, ids: Uint32Array, n: number): void {
    this.linkKind = kind;
    this.linkIndex = 0;
    for (let i = 0; i < n; i++) this.linkIds[i] = ids[i]!;
    this.linkCount = n;
  }

  /** Lists `count` descriptors; at most META_DESCS_MAX are recorded. */
  descs(base: number, slots: number, bytes: number, first: number, count: number): void {
    this.descBase = base;
    this.descSlots = slots;
    this.descBytes = bytes;
    this.descFirst = first;
    this.descCount = Math.min(count, META_DESCS_MAX);
  }

  dropped(reason: Reason, bytes: number): void {
    this.what = META_WHY_DROP;
    this.reason = reason;
    this.bytes = bytes;
  }
}

/** Bytes of the metadata of `facts`. */
export function metaRoomOf(facts: FrameFacts): number {
  const { descCount, descBytes, linkCount, what } = facts;
  let n = META_ITEM_BYTES + META_PACKET_BYTES;
  if (descCount > 0) n += META_ITEM_BYTES + META_DESCS_BYTES + descCount * descBytes;
  if (linkCount > 0) n += META_ITEM_BYTES + META_LINK_BYTES + 4 * linkCount;
  if (what !== 0) n += META_ITEM_BYTES + META_WHY_BYTES;
  return n;
}

/** Writes them. The descriptors are read now from `mem`, the arena. */
export function metaOfFacts(
  w: MetaWriter,
  mem: Uint8Array,
  facts: FrameFacts,
  point: number,
  direction: number,
  pktId: number,
): void {
  const { descBase, descSlots, descBytes, descFirst, descCount } = facts;
  w.packet(pktId, point, direction, 0, facts.csum);
  if (descCount > 0) {
    let to = w.descs(0, descFirst, descCount, descBytes);
    for (let i = 0; i < descCount; i++, to += descBytes) {
      const slot = (descFirst + i) % descSlots;
      const from = descBase + slot * descBytes;
      mem.copyWithin(to, from, from + descBytes);
    }
  }
  if (facts.linkCount > 0) w.links(facts.linkKind, facts.linkIndex, facts.linkIds, facts.linkCount);
  if (facts.what !== 0) w.why(facts.what, facts.reason, facts.bytes);
}
