/** How far the peer has received what a connection sends. */

import { sbused } from '../kern/uipc_sockbuf.ts';
import { sotoinpcb } from '../netinet/in_pcb.ts';
import { intotcpcb } from '../netinet/tcp_subr.ts';
import type { Socket } from '../kern/uipc_socket.ts';

/** `acked`: a number that changes with each byte acknowledged. `unacked`: bytes in the send buffer. */
export interface SendProgress {
  readonly acked: number;
  readonly unacked: number;
}

const CLOSED: SendProgress = { acked: 0, unacked: 0 };

/** The progress of a connection; one that is closed has nothing to send. */
export function sendProgress(so: Socket | null): SendProgress {
  if (so === null || so.so_pcb === null) return CLOSED;
  return { acked: intotcpcb(sotoinpcb(so)).snd_una, unacked: sbused(so.so_snd) };
}
