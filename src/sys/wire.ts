/** What a NIC is plugged into: a TAP interface or a simulated link (src/host). */

// The virtio-net header with num_buffers: VIRTIO 1.1, 5.1.6
export const VNET_HDR_LEN = 12;
export const VNET_F_NEEDS_CSUM = 1;
export const VNET_F_DATA_VALID = 2;
export const VNET_GSO_NONE = 0;
export const VNET_GSO_TCPV4 = 1;
export const VNET_GSO_TCPV6 = 4;
export const VNET_GSO_ECN = 0x80;

/** What a wire tells the NIC on it. Called from the event loop, never from inside a wire call. */
export interface WireListener {
  /** Frames may be waiting: read until -EAGAIN. */
  wireReadable(): void;
  /** Room again after a -EAGAIN from `writev` and `armWritable()`. */
  wireWritable(): void;
  /** The wire is gone or came back, as a link state. `error` is a FreeBSD errno, 0 if none. */
  wireState(up: boolean, error: number): void;
}

/**
 * Frames in and out by arena offset; nothing is copied through JavaScript. Both calls take
 * (offset, length) pairs in `iov[0 .. 2*iovcnt)`, never block, and move exactly one frame,
 * starting with the 12-byte virtio-net header (VIRTIO 1.1, 5.1.6) iff `vnetHdr`.
 */
export interface Wire {
  readonly vnetHdr: boolean;
  /**
   * Sends one frame. Returns its length or a negated FreeBSD errno: -EAGAIN when the wire is full
   * for now, -EIO when it is down, -EINVAL for a frame it refuses, -EFAULT outside the arena.
   */
  writev(iov: Uint32Array, iovcnt: number): number;
  /**
   * Receives one frame. Returns its length, or -EAGAIN when there is none, -EIO when down. A frame
   * longer than the room given is cut to it and its rest is lost.
   */
  readv(iov: Uint32Array, iovcnt: number): number;
  /** Asks for one `wireWritable()`. */
  armWritable(): void;
  /** Turns `wireReadable()` on and off. Off at the start. */
  setReadable(on: boolean): void;
  setListener(listener: WireListener | null): void;
  close(): void;
}
