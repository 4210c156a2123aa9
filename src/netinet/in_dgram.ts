/**
 * Sockets whose sends and receives are packets, each with its address: what the switches of UDP and
 * of raw IP have in common. What a bound and a connected one is, and the packets, are the protocol's.
 */

import { EOPNOTSUPP, type Errno } from '../sys/errno.ts';
import { AF_INET, PR_ADDR, PR_ATOMIC, type Protosw } from '../kern/protosw.ts';
import { sbflushRecords } from '../kern/uipc_dgram.ts';
import { socantsendmore, soreserve, type Socket, SS_ISCONNECTED } from '../kern/uipc_socket.ts';
import { in_pcballoc, in_pcbfree, inpaf, type Inpcbinfo, sotoinpcb } from './in_pcb.ts';
import { V_ip } from './ip_var.ts';

/** pr_attach: a control block in `info`, buffers of `sndcc` and `rcvcc` bytes. ENOBUFS. */
export function inDgramAttach(so: Socket, info: Inpcbinfo, sndcc: number, rcvcc: number): Errno {
  const error = soreserve(so, sndcc, rcvcc);
  if (error !== 0) return error;
  const inp = in_pcballoc(so, info, inpaf(so.so_vnet, AF_INET));
  inp.inp_ip_ttl = V_ip(so.so_vnet).params.ttl;
  so.so_pcb = inp;
  return 0;
}

/** pr_detach: what waits to be read and the control block go. */
export function inDgramDetach(so: Socket): void {
  sbflushRecords(so.so_rcv);
  in_pcbfree(sotoinpcb(so));
  so.so_pcb = null;
}

/** The rest of a switch. */
export const inDgramSwitch = {
  pr_domain: AF_INET,
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
    const { inp_af: af, inp_inc: inc } = sotoinpcb(so);
    return af.sockaddr(inc, false);
  },
  pr_peeraddr(so) {
    if ((so.so_state & SS_ISCONNECTED) === 0) return null;
    const { inp_af: af, inp_inc: inc } = sotoinpcb(so);
    return af.sockaddr(inc, true);
  },
} satisfies Partial<Protosw>;
