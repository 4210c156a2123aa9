/**
 * The commands of the control protocol on one running instance: a request in, an answer out,
 * nothing waits. `info` is what the instance said when it was ready; the others gather what the
 * client prints.
 */

import type { Vnet } from '../kern/vnet.ts';
import { icmpstat } from '../netinet/ip_icmp.ts';
import { arpstat } from '../netinet/if_ether.ts';
import { ipstat } from '../netinet/ip_var.ts';
import { V_tcp } from '../netinet/tcp_var.ts';
import { udpstat } from '../netinet/udp_var.ts';
import { gatherArp } from './arp.ts';
import { type FaultPlace, runFault } from './fault.ts';
import { gatherInterfaces } from './ifconfig.ts';
import { runIfconfig } from './ifconfig_verbs.ts';
import { gatherNetstatAn } from './netstat_an.ts';
import { gatherNetstatM } from './netstat_m.ts';
import { gatherNetstatS } from './netstat_s.ts';
import {
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  errResponse,
  okResponse,
  stringArg,
  stringsArg,
} from './protocol.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { gatherZones } from './vmstat.ts';

/** What requests act on. */
export interface ControlTarget {
  readonly vnet: Vnet;
  /** The `ready` line. */
  readonly info: object;
  /** Where faults can be put, a place for each NIC, the first one's first. */
  readonly faults?: readonly FaultPlace[];
}

type Args = ControlRequest['args'];

function netstat({ vnet }: ControlTarget, args: Args): unknown {
  const report: string = stringArg(args, 'report') ?? '(none named)';
  switch (report) {
    case 'm':
      return gatherNetstatM();
    case 'an':
      return gatherNetstatAn(vnet, args['all'] === true);
    case 'i':
      return gatherInterfaces(vnet);
    case 's': {
      const { stat, states } = V_tcp(vnet);
      return gatherNetstatS({
        tcp: Object.assign({}, stat, { states }),
        udp: udpstat(vnet),
        ip: ipstat(vnet),
        icmp: icmpstat(vnet),
        arp: arpstat(vnet),
      });
    }
    default:
      throw new ControlFailure('EINVAL', `netstat: no report ${report}`);
  }
}

function ifconfig({ vnet }: ControlTarget, args: Args): unknown {
  const name = stringArg(args, 'if');
  if (name === undefined) return gatherInterfaces(vnet);
  return runIfconfig(vnet, name, stringsArg(args, 'words'));
}

function sysctl({ vnet }: ControlTarget, args: Args): unknown {
  const name = stringArg(args, 'name') ?? '';
  const value = stringArg(args, 'value');
  return value === undefined ? readSysctl(vnet, name) : [writeSysctl(vnet, name, value)];
}

function vmstat(args: Args): unknown {
  const report = stringArg(args, 'report') ?? '(none named)';
  if (report !== 'z') throw new ControlFailure('EINVAL', `vmstat: no report ${report}`);
  return gatherZones();
}

const commands = new Map<string, (target: ControlTarget, args: Args) => unknown>([
  ['info', (target) => target.info],
  ['ifconfig', ifconfig],
  ['netstat', netstat],
  ['sysctl', sysctl],
  ['vmstat', (_target, args) => vmstat(args)],
  ['fault', ({ faults = [] }, args) => runFault(faults, args)],
  ['arp', ({ vnet }) => gatherArp(vnet)],
]);

/** Carries a request out. Never throws for what a request can contain. */
export function handleRequest(target: ControlTarget, req: ControlRequest): ControlResponse {
  const command = commands.get(req.cmd);
  if (command === undefined)
    return errResponse(req.id, 'ENOSYS', `no command ${JSON.stringify(req.cmd)}`);
  try {
    return okResponse(req.id, command(target, req.args));
  } catch (e) {
    if (e instanceof ControlFailure) return errResponse(req.id, e.code, e.message);
    throw e;
  }
}
