/**
 * Socket addresses, after sys/netinet/in.h and sys/netinet6/in6.h: one class for all families, and
 * two layouts in memory. `len` selects the layout:
 *
 *     16 bytes   len  family  port  w0                           8 bytes of zeros
 *     28 bytes   len  family  port  flowinfo  w0  w1  w2  w3     scope_id
 *
 * Left out: other socket addresses (local sockets, link level).
 */

import { NetAddr } from '../sys/addr.ts';
import { type Kva, port as portOf, type Port } from '../sys/types.ts';
import { memView } from '../vm/arena.ts';

/** Bytes of struct sockaddr_in and struct sockaddr_in6. */
export const SOCKADDR_IN_SIZE = 16;
export const SOCKADDR_IN6_SIZE = 28;

/** An address with its port. The object holds its own copy of the address words. */
export class Sockaddr extends NetAddr {
  /** Bytes of its layout in memory. */
  len = SOCKADDR_IN_SIZE;
  /** AF_*. */
  family = 0;
  port: Port = portOf(0);
  /** IPv6 only: flow label and traffic class; interface index of a link-local address. */
  flowinfo = 0;
  scope_id = 0;
}

/** Writes `sa` to the `sa.len` bytes at `p`. */
export function sockaddrPut(p: Kva, sa: Sockaddr): void {
  memView.setUint8(p, sa.len);
  memView.setUint8(p + 1, sa.family);
  memView.setUint16(p + 2, sa.port);
  if (sa.len === SOCKADDR_IN_SIZE) {
    memView.setInt32(p + 4, sa.w0);
    memView.setFloat64(p + 8, 0);
    return;
  }
  memView.setInt32(p + 4, sa.flowinfo);
  memView.setInt32(p + 8, sa.w0);
  memView.setInt32(p + 12, sa.w1);
  memView.setInt32(p + 16, sa.w2);
  memView.setInt32(p + 20, sa.w3);
  memView.setInt32(p + 24, sa.scope_id);
}

/** Reads the socket address at `p`, written by `sockaddrPut`, into `sa`. */
export function sockaddrGet(p: Kva, sa: Sockaddr): void {
  sa.len = memView.getUint8(p);
  sa.family = memView.getUint8(p + 1);
  sa.port = memView.getUint16(p + 2) as Port;
  if (sa.len === SOCKADDR_IN_SIZE) {
    sa.set(memView.getInt32(p + 4));
    sa.flowinfo = 0;
    sa.scope_id = 0;
    return;
  }
  sa.flowinfo = memView.getInt32(p + 4);
  sa.set(
    memView.getInt32(p + 8),
    memView.getInt32(p + 12),
    memView.getInt32(p + 16),
    memView.getInt32(p + 20),
  );
  sa.scope_id = memView.getInt32(p + 24);
}
