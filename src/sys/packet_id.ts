/** The ids with which captures recognize a packet at each of their points. */

// The last packet id. It stays a small integer; 0 means no id.
let lastPktId = 0;

/**
 * The id of the next packet that this machine originates: 1 to 2^30 - 1, then 1 again. Devices
 * number received frames, with bit 31 set.
 */
export function nextPktId(): number {
  lastPktId = lastPktId === 0x3fffffff ? 1 : lastPktId + 1;
  return lastPktId;
}

/** The id of a packet that this machine originates, whose mbuf has `id`: that of another frame, or 0. */
export function sentPktId(id: number): number {
  return id === 0 || id > 0x3fffffff ? nextPktId() : id;
}
