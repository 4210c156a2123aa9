/** The TCP connections of a stack as a whole: how many there are, and an end to all of them. */

import { ECONNABORTED } from '../sys/errno.ts';
import { passEnter, passLeave } from '../sys/pass.ts';
import type { Vnet } from '../kern/vnet.ts';
import { TCPS_CLOSED, TCPS_LISTEN, TCPS_TIME_WAIT } from '../netinet/tcp_fsm.ts';
import { intotcpcb, tcp_close, tcp_drop } from '../netinet/tcp_subr.ts';
import { V_tcp } from '../netinet/tcp_var.ts';

/** Connections that are not over: neither closed, listening nor in TIME_WAIT. */
export function connectionsLeft(vnet: Vnet): number {
  const { states } = V_tcp(vnet);
  const all = states.reduce((sum, n) => sum + n, 0);
  return all - states[TCPS_CLOSED]! - states[TCPS_LISTEN]! - states[TCPS_TIME_WAIT]!;
}

/** RST to every connection that is left, and an end to TIME_WAIT. */
export function abortConnections(vnet: Vnet): void {
  passEnter();
  // The list changes underneath: dropping one may close another.
  const pcbs = [];
  for (let inp = V_tcp(vnet).tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) pcbs.push(inp);
  for (const inp of pcbs) {
    if (inp.inp_ppcb === null) continue;
    const tp = intotcpcb(inp);
    if (tp.t_state === TCPS_TIME_WAIT) tcp_close(tp);
    else if (tp.t_state !== TCPS_LISTEN && tp.t_state !== TCPS_CLOSED) tcp_drop(tp, ECONNABORTED);
  }
  passLeave();
}
