/**
 * A stack of a machine with its NICs: what the command line and the library show of it, and its captures.
 * HostStack is one on TAP interfaces, LinkStack one on a simulated wire.
 */

import type { FaultPlace } from '../ctl/fault.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifCloneDestroyAll } from '../net/if_clone.ts';
import { ifnetList } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { netDetach } from '../net/net_attach.ts';
import { inet_domain_detach } from '../netinet/in_proto.ts';
import { tcp_shutdownVnet } from '../netinet/tcp_pcblist.ts';
import { inet6_domain_detach } from '../netinet6/in6_proto.ts';
import { inPass } from '../sys/pass.ts';
import { CaptureFile, type FileSpec } from './capture_file.ts';
import type { PlaceNames } from './capture_recorder.ts';
import type { DhcpInfo } from './dhcp/dhcp_client.ts';
import { type CaptureInterface, LiveCaptures } from './live_captures.ts';
import type { Machine } from './machine.ts';
import type { Nic } from './nic.ts';
import { withoutPrefix } from './option_values.ts';

/** The programs on the stack, as `stop` uses them. */
export interface StackUsers {
  /** Stops accepting and sends FIN on every connection. */
  finish(): void;
  /** Releases the remaining connections. */
  reset(): void;
  /** Number of other stacks on the same TAP that have not stopped yet. */
  others?(): number;
}

/** A running stack, for output. */
export interface StackInfo {
  readonly tap: string;
  /** False if the interface existed before. */
  readonly created: boolean;
  /** The emulated host's interface. */
  readonly if: string;
  /** Empty while a DHCP client has no address; null: a duplicate. */
  readonly addr: string | null;
  /** Null: no IPv6, not assigned yet, or a duplicate. A link-local address has its zone. */
  readonly addr6: string | null;
  readonly mac: string;
  readonly mode: 'wire' | 'vnet';
  readonly napi: 'off' | 'thread';
  readonly engine: 'ts' | 'native';
  /** The lease of the first NIC; null: its address is fixed. */
  readonly dhcp: DhcpInfo | null;
  readonly seed: number;
  readonly netns: string | null;
  /** The additional NICs. */
  readonly ports: readonly PortInfo[];
}

/** An additional NIC. */
interface PortInfo {
  /** Linux's name of the interface. */
  readonly tap: string;
  /** The emulated host's interface. */
  readonly if: string;
  readonly mac: string;
  /** The model. */
  readonly nic: string;
}

/** Attaches captures to an interface that exists now. */
export function attachAll(
  captures: readonly CaptureFile[],
  ifp: Ifnet,
  names: PlaceNames,
  model = '',
): void {
  for (const capture of captures) capture.attach(ifp, names, model);
}

/** A stack and its NICs. The first NIC has the addresses. */
export abstract class NicStack {
  readonly machine: Machine;
  readonly vnet: Vnet;
  readonly nic: Nic;
  readonly ports: readonly Nic[];
  /** The captures to files. `stop` closes them and waits for what they still write. */
  readonly captures: CaptureFile[];
  /** Captures that begin later. */
  readonly live: LiveCaptures;

  constructor(
    machine: Machine,
    vnet: Vnet,
    [nic, ...ports]: readonly [Nic, ...Nic[]],
    captures: CaptureFile[],
  ) {
    this.machine = machine;
    this.vnet = vnet;
    this.nic = nic;
    this.ports = ports;
    this.captures = captures;
    this.live = new LiveCaptures(() => this.#interfaces());
  }

  /** Stops the stack. Resolves with the leaks: pool names and counts. */
  abstract stop(users: StackUsers): Promise<Record<string, number>>;

  get info(): StackInfo {
    const { nic } = this;
    return {
      tap: nic.tapName,
      created: nic.created,
      if: nic.ifp.if_xname,
      addr: nic.dhcp === null ? nic.ipv4.addr : withoutPrefix(nic.dhcp.info.addr ?? ''),
      addr6: nic.ipv6.addr,
      mac: nic.mac,
      mode: nic.mode,
      napi: nic.napi,
      engine: nic.engine,
      dhcp: nic.dhcp?.info ?? null,
      seed: this.machine.seed,
      netns: this.netnsName,
      ports: this.ports.map((port) => ({
        tap: port.tapName,
        if: port.ifp.if_xname,
        mac: port.mac,
        nic: port.model,
      })),
    };
  }

  /** The network namespace of the interfaces that the options name. */
  protected get netnsName(): string | null {
    return null;
  }

  /** Options of all NICs that could not be applied, one line each. */
  get warnings(): string[] {
    return [this.nic, ...this.ports].flatMap(({ warnings }) => warnings);
  }

  /** After `configured`: why the first NIC cannot use an address, one line each. */
  get addrProblems(): string[] {
    const { ipv4, ipv6 } = this.nic;
    return [ipv4.problem, ipv6.problem].filter((problem) => problem !== null);
  }

  /** All interfaces, those of NICs first. */
  #interfaces(): CaptureInterface[] {
    const ofNics = [this.nic, ...this.ports].map((nic, i) => ({
      ifp: nic.ifp,
      names: [...(i === 0 ? [null] : []), nic.ifp.if_xname, nic.tapName],
      model: nic.model,
    }));
    const others = ifnetList(this.vnet)
      .filter((ifp) => ofNics.every((one) => one.ifp !== ifp))
      .map((ifp) => ({ ifp, names: [ifp.if_xname], model: '' }));
    return [...ofNics, ...others];
  }

  /** Starts a capture to a file. Throws TapnicError, see LiveCaptures.find. */
  openCaptureFile(spec: FileSpec): CaptureFile {
    const found = this.live.find(spec.places);
    const capture = new CaptureFile(spec);
    for (const { at, place } of found) capture.recorder.attachPlace(place, at.ifp, at.model);
    this.captures.push(capture);
    return capture;
  }

  /** The first problem that made a capture incomplete; null: all are complete. */
  captureProblem(): string | null {
    for (const capture of this.captures) {
      const problem = capture.problem();
      if (problem !== null) return problem;
    }
    return null;
  }

  /** The places where faults can be inserted, the first NIC first. */
  get faultPlaces(): FaultPlace[] {
    return [this.nic, ...this.ports].map((nic) => nic.faultPlace);
  }

  /** Resets the connections that `users` left, and discards those in TIME_WAIT. */
  protected resetAll(users: StackUsers): void {
    users.reset();
    tcp_shutdownVnet(this.vnet, 'rst');
    tcp_shutdownVnet(this.vnet, 'discard');
  }

  /** Ends the captures, unplugs the NICs and removes the interfaces. */
  protected detach(): void {
    ifCloneDestroyAll(this.vnet);
    for (const capture of this.captures) capture.close();
    this.live.closeAll();
    for (const port of this.ports.toReversed()) port.stop();
    this.nic.stop();
    // Free fragments in reassembly and packets that wait for address resolution.
    inPass(() => {
      netDetach(this.vnet);
      inet6_domain_detach(this.vnet);
      inet_domain_detach(this.vnet);
    });
  }
}
