/**
 * Branded number types that must not be mixed, and the functions that create them. At run time
 * every brand is a plain number.
 */

declare const brand: unique symbol;
type Brand<T, B extends string> = T & { readonly [brand]: B };

/** Kernel virtual address: an offset into the direct map. An M_NOMAP page does not have one. */
export type Kva = Brand<number, 'Kva'>;
/**
 * Physical address: arena base + offset, below 2^53. Devices use the same numbers as bus addresses:
 * the IOMMU checks them and does not translate.
 */
export type PhysAddr = Brand<number, 'PhysAddr'>;
/**
 * IPv4 address in host byte order as a signed 32-bit integer: 128.0.0.0 is -2^31. V8 stores it
 * without a heap allocation. Compare addresses with `===`, never with `<`; use `>>> 0` to print
 * one. Convert with `inAddr`, or with `getInt32` and `setInt32` on bytes in network order.
 */
export type InAddr = Brand<number, 'InAddr'>;
/** TCP or UDP port in host byte order. */
export type Port = Brand<number, 'Port'>;
/**
 * TCP sequence number modulo 2^32 as a signed 32-bit integer, which V8 never boxes. Compare with
 * SEQ_LT and the other SEQ_ functions, never with `<`; use `>>> 0` to print it.
 */
export type TcpSeq = Brand<number, 'TcpSeq'>;

function checked(n: number, max: number, what: string): number {
  if (!(n >= 0 && n <= max) || !Number.isInteger(n)) throw new RangeError(`${what}: ${n}`);
  return n;
}

export const kva = (n: number): Kva => n as Kva;
export const physAddr = (n: number): PhysAddr => n as PhysAddr;
/** Brands an address, given signed or unsigned. */
export const inAddr = (n: number): InAddr => (n | 0) as InAddr;
/** Brands a port. Throws RangeError outside 0 to 65535. */
export const port = (n: number): Port => checked(n, 0xffff, 'port') as Port;
export const tcpSeq = (n: number): TcpSeq => (n | 0) as TcpSeq;
