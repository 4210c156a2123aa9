/**
 * Socket options at level IPPROTO_IP, after ip_ctloutput of sys/netinet/ip_output.c. Those that request
 * control messages are in ip_control.ts, those of multicast in in_mcast.ts. Left out: IP_HDRINCL,
 * IP_BINDANY, IP_ONESBCAST, flow ids, IP_VLAN_PCP, IPsec.
 */

import { EINVAL, EMSGSIZE, ENOPROTOOPT, type Errno } from '../sys/errno.ts';
import { MLEN } from '../kern/mbuf.ts';
import { IPPROTO_IP } from '../kern/protosw.ts';
import {
  $optval,
  sooptcopyout,
  sooptInt,
  sooptPutInt,
  type Sockopt,
  SOPT_SET,
} from '../kern/sockopt.ts';
import type { Socket } from '../kern/uipc_socket.ts';
import { INP_DONTFRAG, INP_HIGHPORT, INP_LOWPORT, type Inpcb } from './in_pcb.ts';
import { controlOptions, IP_TOS } from './ip_control.ts';
import { inp_mcastopts, isMulticastOption } from './in_mcast.ts';
import { IpOptions, ip_pcbopts, optionsValue } from './ip_options.ts';

export { IP_TOS } from './ip_control.ts';

// Option names of sys/netinet/in.h.
export const IP_OPTIONS = 1;
export const IP_TTL = 4;
export const IP_RETOPTS = 8;
export const IP_PORTRANGE = 19;
export const IP_MINTTL = 66;
export const IP_DONTFRAG = 67;
// Values of IP_PORTRANGE.
const IP_PORTRANGE_DEFAULT = 0;
const IP_PORTRANGE_HIGH = 1;
const IP_PORTRANGE_LOW = 2;

const MAXTTL = 255;

function setRange(inp: Inpcb, range: number): Errno {
  if (range < IP_PORTRANGE_DEFAULT || range > IP_PORTRANGE_LOW) return EINVAL;
  inp.inp_flags &= ~(INP_LOWPORT | INP_HIGHPORT);
  if (range === IP_PORTRANGE_HIGH) inp.inp_flags |= INP_HIGHPORT;
  if (range === IP_PORTRANGE_LOW) inp.inp_flags |= INP_LOWPORT;
  return 0;
}

/** Sets or reads the option whose bit of inp_flags is `bit`. */
function controlOption(inp: Inpcb, sopt: Sockopt, bit: number): Errno {
  if (sopt.sopt_dir !== SOPT_SET) return sooptPutInt(sopt, (inp.inp_flags & bit) !== 0 ? 1 : 0);
  const error = sooptInt(sopt);
  if (error !== 0) return error;
  if ($optval.v !== 0) inp.inp_flags |= bit;
  else inp.inp_flags &= ~bit;
  return 0;
}

function set(inp: Inpcb, name: number, v: number): Errno {
  switch (name) {
    case IP_TOS:
      inp.inp_ip_tos = v & 0xff;
      return 0;
    case IP_TTL:
      // As in FreeBSD, any value; the header has room for its low byte.
      inp.inp_ip_ttl = v & 0xff;
      return 0;
    case IP_MINTTL:
      if (v < 0 || v > MAXTTL) return EINVAL;
      inp.inp_ip_minttl = v;
      return 0;
    case IP_DONTFRAG:
      if (v !== 0) inp.inp_flags |= INP_DONTFRAG;
      else inp.inp_flags &= ~INP_DONTFRAG;
      return 0;
    default:
      return setRange(inp, v);
  }
}

function get(inp: Inpcb, name: number): number {
  switch (name) {
    case IP_TOS:
      return inp.inp_ip_tos;
    case IP_TTL:
      return inp.inp_ip_ttl;
    case IP_MINTTL:
      return inp.inp_ip_minttl;
    case IP_DONTFRAG:
      return (inp.inp_flags & INP_DONTFRAG) !== 0 ? 1 : 0;
    default:
      if ((inp.inp_flags & INP_HIGHPORT) !== 0) return IP_PORTRANGE_HIGH;
      return (inp.inp_flags & INP_LOWPORT) !== 0 ? IP_PORTRANGE_LOW : IP_PORTRANGE_DEFAULT;
  }
}

/** IP_OPTIONS: the options of each packet of the socket. @see ip(4) */
function options(inp: Inpcb, sopt: Sockopt): Errno {
  if (sopt.sopt_dir !== SOPT_SET) {
    const opt = inp.inp_options;
    return sooptcopyout(sopt, opt === null ? new Uint8Array() : optionsValue(opt));
  }
  if (sopt.sopt_valsize > MLEN) return EMSGSIZE;
  // The old options end even if the new ones are wrong.
  inp.inp_options = null;
  const val = sopt.sopt_val.subarray(0, sopt.sopt_valsize);
  if (val.length === 0) return 0;
  const opt = new IpOptions();
  const error = ip_pcbopts(val, opt);
  if (error === 0) inp.inp_options = opt;
  return error;
}

/**
 * Gets or sets an IPv4 option of a socket whose control block is an Inpcb. EINVAL: the level is not
 * IPPROTO_IP, or the value is out of range; ENOPROTOOPT: unknown option.
 * @see ip(4)
 */
export function ip_ctloutput(so: Socket, sopt: Sockopt): Errno {
  const inp = so.so_pcb as Inpcb;
  if (sopt.sopt_level !== IPPROTO_IP) return EINVAL;
  const bit = controlOptions.get(sopt.sopt_name);
  if (bit !== undefined) return controlOption(inp, sopt, bit);
  switch (sopt.sopt_name) {
    case IP_RETOPTS:
      // As in FreeBSD, it can be read only.
      return sopt.sopt_dir === SOPT_SET ? ENOPROTOOPT : options(inp, sopt);
    case IP_OPTIONS:
      return options(inp, sopt);
    case IP_TOS:
    case IP_TTL:
    case IP_MINTTL:
    case IP_DONTFRAG:
    case IP_PORTRANGE:
      if (sopt.sopt_dir === SOPT_SET) return sooptInt(sopt) || set(inp, sopt.sopt_name, $optval.v);
      return sooptPutInt(sopt, get(inp, sopt.sopt_name));
    default:
      return isMulticastOption(sopt.sopt_name) ? inp_mcastopts(so, inp, sopt) : ENOPROTOOPT;
  }
}
