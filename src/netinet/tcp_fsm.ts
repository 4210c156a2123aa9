/**
 * The states of a connection, after sys/netinet/tcp_fsm.h: RFC 9293, 3.3.2. Only `tcp_state_change`
 * writes t_state; it checks the transition against figure 5 of the RFC.
 */

import { KASSERT } from '../sys/kassert.ts';
import { TH_ACK, TH_FIN, TH_RST, TH_SYN } from './tcp.ts';
import type { Tcpcb } from './tcp_var.ts';

export const TCPS_CLOSED = 0;
export const TCPS_LISTEN = 1;
export const TCPS_SYN_SENT = 2;
export const TCPS_SYN_RECEIVED = 3;
export const TCPS_ESTABLISHED = 4;
export const TCPS_CLOSE_WAIT = 5;
export const TCPS_FIN_WAIT_1 = 6;
export const TCPS_CLOSING = 7;
export const TCPS_LAST_ACK = 8;
export const TCPS_FIN_WAIT_2 = 9;
export const TCPS_TIME_WAIT = 10;
export const TCP_NSTATES = 11;

export type TcpState =
  | typeof TCPS_CLOSED
  | typeof TCPS_LISTEN
  | typeof TCPS_SYN_SENT
  | typeof TCPS_SYN_RECEIVED
  | typeof TCPS_ESTABLISHED
  | typeof TCPS_CLOSE_WAIT
  | typeof TCPS_FIN_WAIT_1
  | typeof TCPS_CLOSING
  | typeof TCPS_LAST_ACK
  | typeof TCPS_FIN_WAIT_2
  | typeof TCPS_TIME_WAIT;

/** Names as netstat(1) prints them. */
export const tcpstates = [
  'CLOSED',
  'LISTEN',
  'SYN_SENT',
  'SYN_RCVD',
  'ESTABLISHED',
  'CLOSE_WAIT',
  'FIN_WAIT_1',
  'CLOSING',
  'LAST_ACK',
  'FIN_WAIT_2',
  'TIME_WAIT',
] as const;

/**
 * TCP flags of outgoing segments, indexed by the state of the connection.
 * @see sys/netinet/tcp_fsm.h
 */
export const tcp_outflags: readonly number[] = [
  TH_RST | TH_ACK, // CLOSED
  0, // LISTEN
  TH_SYN, // SYN_SENT
  TH_SYN | TH_ACK, // SYN_RECEIVED
  TH_ACK, // ESTABLISHED
  TH_ACK, // CLOSE_WAIT
  TH_FIN | TH_ACK, // FIN_WAIT_1
  TH_FIN | TH_ACK, // CLOSING
  TH_FIN | TH_ACK, // LAST_ACK
  TH_ACK, // FIN_WAIT_2
  TH_ACK, // TIME_WAIT
];

/** Whether the peer's SYN has been received. @see sys/netinet/tcp_fsm.h */
export function TCPS_HAVERCVDSYN(s: TcpState): boolean {
  return s >= TCPS_SYN_RECEIVED;
}

/** @see sys/netinet/tcp_fsm.h */
export function TCPS_HAVEESTABLISHED(s: TcpState): boolean {
  return s >= TCPS_ESTABLISHED;
}

/** Whether the peer's FIN has been received. @see sys/netinet/tcp_fsm.h */
export function TCPS_HAVERCVDFIN(s: TcpState): boolean {
  return s === TCPS_CLOSE_WAIT || (s >= TCPS_CLOSING && s !== TCPS_FIN_WAIT_2);
}

// Bit s of edges[t] is set if t may follow s. CLOSED may follow any state.
const edges: readonly number[] = [
  0x7ff, // CLOSED
  1 << TCPS_CLOSED, // LISTEN
  (1 << TCPS_CLOSED) | (1 << TCPS_LISTEN), // SYN_SENT
  (1 << TCPS_CLOSED) | (1 << TCPS_LISTEN) | (1 << TCPS_SYN_SENT), // SYN_RECEIVED: syncache, simultaneous open
  (1 << TCPS_SYN_SENT) | (1 << TCPS_SYN_RECEIVED), // ESTABLISHED
  // The ACK of our SYN may carry a FIN; ESTABLISHED is then passed through.
  (1 << TCPS_ESTABLISHED) | (1 << TCPS_SYN_RECEIVED), // CLOSE_WAIT
  (1 << TCPS_ESTABLISHED) | (1 << TCPS_SYN_RECEIVED), // FIN_WAIT_1
  1 << TCPS_FIN_WAIT_1, // CLOSING
  1 << TCPS_CLOSE_WAIT, // LAST_ACK
  1 << TCPS_FIN_WAIT_1, // FIN_WAIT_2
  (1 << TCPS_FIN_WAIT_2) | (1 << TCPS_CLOSING), // TIME_WAIT
];

/**
 * Changes the state of a connection to `newstate` and updates the counts per state. Panics on a
 * transition that the state machine does not allow.
 * @see sys/netinet/tcp_subr.c
 */
export function tcp_state_change(tp: Tcpcb, newstate: TcpState): void {
  KASSERT(((edges[newstate]! >>> tp.t_state) & 1) === 1, 'tcp_state_change: no such edge');
  const states = tp.t_tcp.states;
  states[tp.t_state]!--;
  states[newstate]!++;
  tp.t_state = newstate;
}
