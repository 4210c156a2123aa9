/** The packet ids of fragments. */

import { META_LINK_FRAGMENT } from '../sys/capture_meta.ts';
import { captureNotes } from '../sys/capture_notes.ts';
import { nextPktId } from '../sys/packet_id.ts';

/**
 * The id of fragment `index` of the datagram `id`. While a capture wants metadata it is an id of its
 * own, which captures link to the datagram.
 */
export function fragmentId(id: number, index: number): number {
  if (!captureNotes.on || id === 0) return id;
  const own = nextPktId();
  captureNotes.link(own, META_LINK_FRAGMENT, index, id);
  return own;
}
