/**
 * The commands of the control protocol on a running instance. Each request is answered immediately.
 * `info` returns the instance's `ready` line; the others gather the data that the client prints.
 */

import type { Vnet } from '../kern/vnet.ts';
import { TapnicError } from '../sys/errno.ts';
import { inPass } from '../sys/pass.ts';
import { changeArp, gatherArp } from './arp.ts';
import { addFault, type FaultPlace, listFaults, removeFault } from './fault.ts';
import { gatherInterfaces } from './ifconfig.ts';
import { runIfconfig } from './ifconfig_verbs.ts';
import { runNdp } from './ndp.ts';
import { gatherNetstat } from './netstat.ts';
import {
  ControlFailure,
  type ControlRequest,
  type ControlResponse,
  failureResponse,
  okResponse,
} from './protocol.ts';
import { readRequest, type Request } from './request.ts';
import { runRoute } from './route.ts';
import { readSysctl, writeSysctl } from './sysctl.ts';
import { gatherZones } from './vmstat.ts';

/** The instance that requests act on. */
interface ControlTarget {
  readonly vnet: Vnet;
  /** The `ready` line. */
  readonly info: object;
  /** The fault place of each NIC, in the order of the NICs. */
  readonly faults?: readonly FaultPlace[];
  /** The places where a capture can record. */
  readonly captures?: () => readonly object[];
}

/** Executes a request and returns the data of its answer. Throws ControlFailure. */
function runRequest(target: ControlTarget, req: Request): unknown {
  const { vnet, info, faults = [] } = target;
  switch (req.cmd) {
    case 'info':
      return info;
    case 'arp':
      return req.change === undefined ? gatherArp(vnet) : changeArp(vnet, req.change);
    case 'ifconfig':
      return req.if === null ? gatherInterfaces(vnet) : runIfconfig(vnet, req.if, req.words);
    case 'ndp':
      return runNdp(vnet, req.words);
    case 'netstat':
      return gatherNetstat(vnet, req.report, req.all);
    case 'route':
      return runRoute(vnet, req.words);
    case 'sysctl':
      return req.value === null
        ? readSysctl(vnet, req.name)
        : [writeSysctl(vnet, req.name, req.value)];
    case 'vmstat':
      return gatherZones();
    case 'captures':
      return target.captures?.() ?? [];
    case 'fault':
      switch (req.op) {
        case 'add':
          return addFault(faults, req);
        case 'remove':
          return removeFault(faults, req);
        case 'list':
          return listFaults(faults);
      }
  }
}

/**
 * Executes a request from the socket. An invalid request gets an error answer and does not throw.
 */
export function handleRequest(target: ControlTarget, req: ControlRequest): ControlResponse {
  try {
    return okResponse(req.id, inPass(runRequest, target, readRequest(req)));
  } catch (e) {
    if (e instanceof ControlFailure || e instanceof TapnicError) return failureResponse(req.id, e);
    throw e;
  }
}
