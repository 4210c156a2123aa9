/**
 * Counts the file-page bytes that the host CPU reads, by reason. Every such read passes through
 * src/vm or a mapped sf_buf, and both count here; DMA is not counted. On the path with NOMAP and
 * TXCSUM every reason but `small` stays 0.
 */

/** What FreeBSD copies by design: mb_unmapped_compress, tcp_output's small segments. */
export const READ_SMALL = 0;
/** Software checksums. */
export const READ_CHECKSUM = 1;
/** m_copydata and the like on behalf of a driver or the stack. */
export const READ_COPY = 2;
/** A capture or a BPF listener. */
export const READ_BPF = 3;
/** Programmed I/O. */
export const READ_PIO = 4;

/** Names of the reasons, in the order of their numbers. */
export const payloadReasons = ['small', 'checksum', 'copy', 'bpf', 'pio', 'other'] as const;

const bytes = new Float64Array(payloadReasons.length);
let current = READ_COPY;

/** Sets the reason for the reads that follow; returns the one before, which the caller restores. */
export function payloadReason(reason: number): number {
  const before = current;
  current = reason;
  return before;
}

/** Counts a read of `n` file-page bytes by the CPU, for the current reason. */
export function payloadRead(n: number): void {
  bytes[current]! += n;
}

/** Bytes read for `reason` since boot. */
export function payloadBytesRead(reason: number): number {
  return bytes[reason]!;
}

/** Sets all to 0. Only `vm_init` and tests call this. */
export function payloadReset(): void {
  bytes.fill(0);
  current = READ_COPY;
}
