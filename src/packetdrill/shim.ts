/**
 * FreeBSD commands that packetdrill scripts call, on an emulated host: sysctl(8), sockstat(1),
 * tcpdrop(8), ifconfig(8). Each has the options that test suites use. Left out: everything
 * unrelated to TCP.
 */

import { formatInterface, gatherInterfaces } from '../ctl/ifconfig.ts';
import { runIfconfig } from '../ctl/ifconfig_verbs.ts';
import { ControlFailure } from '../ctl/protocol.ts';
import { formatSysctl, readSysctl, writeSysctl } from '../ctl/sysctl.ts';
import type { Vnet } from '../kern/vnet.ts';
import { INP_DROPPED, type Inpcb, inpaf } from '../netinet/in_pcb.ts';
import { suffixOf } from '../netinet/in_pcblist.ts';
import { tcpstates, TCPS_CLOSED, TCPS_LISTEN, TCPS_TIME_WAIT } from '../netinet/tcp_fsm.ts';
import { intotcpcb, tcp_close, tcp_drop } from '../netinet/tcp_subr.ts';
import { syncacheList } from '../netinet/tcp_syncache.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { ECONNABORTED } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';

/** Exit status and output of a command. */
interface ShimResult {
  readonly status: number;
  readonly out: string;
  readonly err: string;
}

/** The host that the commands act on. */
interface ShimTarget {
  readonly vnet: Vnet;
}

const ok = (out = ''): ShimResult => ({ status: 0, out, err: '' });
const failed = (err: string, status = 1): ShimResult => ({ status, out: '', err: `${err}\n` });

/** `sysctl [-abdeilNnoqTtwx] NAME[=VALUE] ...` */
function sysctl({ vnet }: ShimTarget, argv: readonly string[]): ShimResult {
  let out = '';
  const flags = argv.filter((word) => word.startsWith('-')).join('');
  const format = { n: flags.includes('n'), d: flags.includes('d'), t: flags.includes('t') };
  const names = argv.filter((word) => !word.startsWith('-'));
  if (names.length === 0 && !flags.includes('a')) return failed('usage: sysctl name[=value] ...');
  for (const word of names.length === 0 ? [''] : names) {
    const eq = word.indexOf('=');
    try {
      const leaves =
        eq < 0
          ? readSysctl(vnet, word)
          : [writeSysctl(vnet, word.slice(0, eq), word.slice(eq + 1).trim())];
      if (!flags.includes('q') || eq < 0) out += formatSysctl(leaves, format);
    } catch (e) {
      if (!(e instanceof ControlFailure)) throw e;
      if (e.code === 'ENOENT' && flags.includes('i')) continue;
      return { status: 1, out, err: `sysctl: ${e.message}\n` };
    }
  }
  return ok(out);
}

interface Line {
  readonly lport: number;
  readonly fport: number;
  /** `4`, `6` or `46`. */
  readonly suffix: string;
  readonly text: string;
}

function sockstatLines(vnet: Vnet): Line[] {
  const tcp = V_tcp(vnet);
  const lines: Line[] = [];
  const add = (
    inc: Inpcb['inp_inc'],
    af: Inpcb['inp_af'],
    fd: string,
    state: string,
    suffix = af.suffix,
  ): void => {
    const end = (foreign: boolean, n: number): string =>
      `${n === 0 && foreign ? '*' : af.print(vnet, inc, foreign)}:${n === 0 ? '*' : n}`;
    const local = end(false, inc.inc_lport).padEnd(21);
    const foreign = end(true, inc.inc_fport).padEnd(21);
    const proto = `tcp${suffix}`.padEnd(6);
    const text = `root     packetdril 1     ${fd.padEnd(3)} ${proto} ${local} ${foreign} ${state}\n`;
    lines.push({ lport: inc.inc_lport, fport: inc.inc_fport, suffix, text });
  };
  for (let inp = tcp.tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    // TCP has ended the connection, but the program has not closed the socket.
    const dropped = (inp.inp_flags & INP_DROPPED) !== 0;
    const fd = inp.inp_socket === null ? '?' : String(inp.inp_socket.so_id);
    const state = dropped ? 'CLOSED' : tcpstates[intotcpcb(inp).t_state];
    add(inp.inp_inc, inp.inp_af, fd, state, suffixOf(inp));
  }
  for (const inc of syncacheList(tcp)) add(inc, inpaf(vnet, inc.inc_family), '?', 'SYN_RCVD');
  return lines;
}

/** `sockstat [-46clsuw] [-P protocols] [-p ports]` */
function sockstat({ vnet }: ShimTarget, argv: readonly string[]): ShimResult {
  let ports: number[] | null = null;
  let protocols = ['tcp'];
  // As sockstat(1): both families without -4 and -6, and with both.
  let families = '';
  for (let i = 0; i < argv.length; i++) {
    const word = argv[i]!;
    if (word === '-p' || word === '-P') {
      const value = argv[++i];
      if (value === undefined) return failed(`sockstat: option requires an argument -- ${word[1]}`);
      if (word === '-p') ports = value.split(',').map(Number);
      else protocols = value.split(',');
    } else if (/^-[46aclLnqsSuwU]+$/.test(word)) {
      families += word.replace(/[^46]/g, '');
    } else {
      return failed(`sockstat: illegal option -- ${word}`);
    }
  }
  let out =
    'USER     COMMAND    PID   FD  PROTO  LOCAL ADDRESS         FOREIGN ADDRESS       STATE\n';
  if (!protocols.includes('tcp')) return ok(out);
  const shown = ({ suffix }: Line): boolean =>
    families === '' || Array.from(suffix).some((family) => families.includes(family));
  for (const line of sockstatLines(vnet).filter(shown))
    if (ports === null || ports.includes(line.lport) || ports.includes(line.fport))
      out += line.text;
  return ok(out);
}

/** `tcpdrop -a`, `tcpdrop -s STATE`, `tcpdrop LADDR LPORT FADDR FPORT` */
function tcpdrop({ vnet }: ShimTarget, argv: readonly string[]): ShimResult {
  const words = argv.filter((word) => word !== '-l');
  let match: (inp: Inpcb) => boolean;
  if (words[0] === '-a' && words.length === 1) {
    match = (): boolean => true;
  } else if (words[0] === '-s' && words.length === 2) {
    const state = words[1]!.toUpperCase();
    if (!(tcpstates as readonly string[]).includes(state))
      return failed(`tcpdrop: ${words[1]}: no state`);
    match = (inp): boolean => tcpstates[intotcpcb(inp).t_state] === state;
  } else if (words.length === 4) {
    const [laddr, lport, faddr, fport] = words;
    match = ({ inp_af, inp_inc, inp_vnet }): boolean =>
      inp_af.print(inp_vnet, inp_inc, false) === laddr &&
      inp_inc.inc_lport === Number(lport) &&
      inp_af.print(inp_vnet, inp_inc, true) === faddr &&
      inp_inc.inc_fport === Number(fport);
  } else {
    return failed('usage: tcpdrop -a | -s state | laddr lport faddr fport');
  }
  const found: Inpcb[] = [];
  for (let inp = V_tcp(vnet).tcbinfo.ipi_listhead; inp !== null; inp = inp.listNext) {
    if ((inp.inp_flags & INP_DROPPED) !== 0) continue;
    const { t_state } = intotcpcb(inp);
    if (t_state !== TCPS_CLOSED && t_state !== TCPS_LISTEN && match(inp)) found.push(inp);
  }
  for (const inp of found) {
    const tp = intotcpcb(inp);
    if (tp.t_state === TCPS_TIME_WAIT) tcp_close(tp);
    else tcp_drop(tp, ECONNABORTED);
  }
  if (found.length === 0 && words.length === 4) return failed('tcpdrop: no such connection');
  return ok();
}

/** `ifconfig [-a] [IF [WORDS]]` */
function ifconfig({ vnet }: ShimTarget, argv: readonly string[]): ShimResult {
  const [name, ...words] = argv.filter((word) => !/^-[al46]$/.test(word));
  try {
    if (name === undefined)
      return ok(
        gatherInterfaces(vnet)
          .map((i) => formatInterface(i))
          .join(''),
      );
    const info = runIfconfig(vnet, name, words);
    return ok(words.length > 0 || info === null ? '' : formatInterface(info));
  } catch (e) {
    if (!(e instanceof ControlFailure)) throw e;
    return failed(e.message.startsWith('ifconfig') ? e.message : `ifconfig: ${e.message}`);
  }
}

const shims = new Map<string, (target: ShimTarget, argv: readonly string[]) => ShimResult>([
  ['sysctl', sysctl],
  ['sockstat', sockstat],
  ['tcpdrop', tcpdrop],
  ['ifconfig', ifconfig],
]);

/** Runs the command `argv[0]`. Returns status 127 if it is unknown. */
export function runShim(target: ShimTarget, argv: readonly string[]): ShimResult {
  const shim = shims.get(argv[0] ?? '');
  if (shim === undefined) return failed(`${argv[0] ?? ''}: not found`, 127);
  return inPass(shim, target, argv.slice(1));
}
