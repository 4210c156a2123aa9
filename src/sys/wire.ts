/** The link a NIC is plugged into: a TAP interface or a simulated link (src/host). */

// The virtio-net header with num_buffers: VIRTIO 1.1, 5.1.6
export const VNET_HDR_LEN = 12;
export const VNET_F_NEEDS_CSUM = 1;
export const VNET_F_DATA_VALID = 2;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_ECN = 0x80;

/**
 * Events that a wire reports to its NIC. Called from the event loop, never inside a call of Wire.
 */
export interface WireListener {
  /** Frames may be waiting. Read until -EAGAIN. */
  wireReadable(): void;
  /** The wire has room again, after `writev` returned -EAGAIN and `armWritable()` was called. */
  wireWritable(): void;
  /** The link went up or down. `error` is a FreeBSD errno, or 0. */
  wireState(up: boolean, error: number): void;
}

/**
 * Sends and receives frames by arena offset, without copies through JavaScript. Both calls take
 * (offset, length) pairs in `iov[0 .. 2*iovcnt)`, never block, and move exactly one frame, starting
 * with the 12-byte virtio-net header (VIRTIO 1.1, 5.1.6) iff `vnetHdr`.
 */
export interface Wire {
  readonly vnetHdr: boolean;
  /**
   * Sends one frame. Returns its length or a negated FreeBSD errno: -EAGAIN if the wire is full,
   * -EIO if it is down, -EINVAL for an invalid frame, -EFAULT for an address outside the arena.
   */
  writev(iov: Uint32Array, iovcnt: number): number;
  /**
   * Receives one frame. Returns its length, -EAGAIN if there is no frame, or -EIO if the wire is
   * down. A frame longer than `iov` is truncated.
   */
  readv(iov: Uint32Array, iovcnt: number): number;
  /** Requests one `wireWritable()`. */
  armWritable(): void;
  /** Turns `wireReadable()` on or off. Initially off. */
  setReadable(on: boolean): void;
  setListener(listener: WireListener | null): void;
  close(): void;
}
