/**
 * The common part of the protocol switches of UDP and raw sockets. The protocol adds bind, connect,
 * send and input.
 */

import { EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import { PR_ADDR, PR_ATOMIC, type Protosw } from '../kern/protosw.ts';
import { Sockaddr } from '../kern/sockaddr.ts';
import { sbflushRecords } from '../kern/uipc_dgram.ts';
import { socantsendmore, soreserve, type Socket, SS_ISCONNECTED } from '../kern/uipc_socket.ts';
import { in6_mapped_sockaddr } from './in_mapped.ts';
import { in_pcballoc, in_pcbfree, inpaf, type Inpcbinfo, sotoinpcb } from './in_pcb.ts';

/**
 * pr_attach: creates the PCB in `info` and reserves buffers of `sndcc` and `rcvcc` bytes. ENOBUFS.
 */
export function inDgramAttach(so: Socket, info: Inpcbinfo, sndcc: number, rcvcc: number): Errno {
  const error = soreserve(so, sndcc, rcvcc);
  if (error !== 0) return error;
  so.so_pcb = in_pcballoc(so, info, inpaf(so.so_vnet, so.so_proto.pr_domain));
  return 0;
}

/** pr_detach: frees the receive queue and the PCB. */
export function inDgramDetach(so: Socket): void {
  sbflushRecords(so.so_rcv);
  in_pcbfree(sotoinpcb(so));
  so.so_pcb = null;
}

/** The functions of the switch that are the same for both protocols and all families. */
export const inDgramSwitch = {
  pr_flags: PR_ATOMIC | PR_ADDR,
  pr_listen: () => EOPNOTSUPP,
  pr_ready: () => EOPNOTSUPP,
  pr_rcvd: () => 0,
  pr_shutdown(so) {
    socantsendmore(so);
    return 0;
  },
  pr_close() {},
  pr_sockaddr(so) {
    const inp = sotoinpcb(so);
    return in6_mapped_sockaddr(inp, inp.inp_inc, false, new Sockaddr());
  },
  pr_peeraddr(so) {
    if ((so.so_state & SS_ISCONNECTED) === 0) return null;
    const inp = sotoinpcb(so);
    return in6_mapped_sockaddr(inp, inp.inp_inc, true, new Sockaddr());
  },
} satisfies Partial<Protosw>;
