/**
 * Limits of log lines that packets cause: so many lines of a kind in a second, so that a peer cannot
 * fill the log. The first line after a pause says how many were left out.
 */

import { nowNs } from '../kern/kern_timeout.ts';
import { VNET_DEFINE, type Vnet } from '../kern/vnet.ts';
import { ifConsole } from './if.ts';

// Kinds of lines.
export const LOG_SOURCE_ROUTE = 0;
export const LOG_REDIRECT = 1;
export const LOG_UDP_VAIN = 2;
export const LOG_TCP = 3;
export const LOG_ND6 = 4;
const KINDS = 5;
/** Lines of a kind in a second. */
const PER_SEC = 10;

const V_logLimit = VNET_DEFINE(() => ({
  windowNs: new Float64Array(KINDS).fill(-1e9),
  lines: new Float64Array(KINDS),
}));

/** Whether one more line of `kind` may be written; if not, the caller need not build it. */
export function logAllowed(vnet: Vnet, kind: number): boolean {
  if (ifConsole.log === null) return false;
  const v = V_logLimit(vnet);
  const now = nowNs();
  if (now - v.windowNs[kind]! >= 1e9) {
    const left = v.lines[kind]! - PER_SEC;
    if (left > 0) ifConsole.log(`${left} lines like the next one were left out`);
    v.windowNs[kind] = now;
    v.lines[kind] = 0;
  }
  return ++v.lines[kind]! <= PER_SEC;
}
