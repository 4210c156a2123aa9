/** A stack on a simulated link, and the link that several of them share. */

import type { LinkActivity, LinkClock } from '../host/link_clock.ts';
import { readsPending } from '../host/pager.ts';
import type { SimEnd } from '../host/sim_wire.ts';
import type { WireListener } from '../sys/wire.ts';
import type { Vnet } from '../kern/vnet.ts';
import { ifnetList } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { arpTable } from '../netinet/if_ether.ts';
import { tcpConnections, tcpUnderWay } from '../netinet/tcp_pcblist.ts';
import { IN6_IFF_DUPLICATED, IN6_IFF_TENTATIVE, isIn6Ifaddr } from '../netinet6/in6_var.ts';
import { nd6Table } from '../netinet6/nd6.ts';
import type { CaptureFile } from './capture_file.ts';
import type { Machine } from './machine.ts';
import type { HostWire, Nic } from './nic.ts';
import { NicStack, type StackUsers } from './nic_stack.ts';

/** Virtual time that connections have to close when the link or a stack is closed; with real time, less. */
const CLOSE_NS = 60e9;
const CLOSE_REAL_NS = 1e9;

/** The end of a stack's cable. */
export class LinkWire implements HostWire {
  readonly name: string;
  readonly created = true;
  readonly napi = 'off';
  readonly warnings: readonly string[] = [];
  readonly vnetHdr = false;
  readonly #end: SimEnd;

  /** @param name of the stack */
  constructor(name: string, end: SimEnd) {
    this.name = name;
    this.#end = end;
  }

  writev(iov: Uint32Array, iovcnt: number): number {
    return this.#end.writev(iov, iovcnt);
  }

  readv(iov: Uint32Array, iovcnt: number): number {
    return this.#end.readv(iov, iovcnt);
  }

  armWritable(): void {
    this.#end.armWritable();
  }

  setReadable(on: boolean): void {
    this.#end.setReadable(on);
  }

  setListener(listener: WireListener | null): void {
    this.#end.setListener(listener);
  }

  close(): void {
    this.#end.close();
  }
}

/** Whether an interface resolves an address, or detects whether one is a duplicate. */
function resolves(ifp: Ifnet): boolean {
  if (arpTable(ifp)?.holds === true || nd6Table(ifp)?.holds === true) return true;
  return ifp.if_addrhead.some(
    (ifa) =>
      isIn6Ifaddr(ifa) &&
      (ifa.ia6_flags & (IN6_IFF_TENTATIVE | IN6_IFF_DUPLICATED)) === IN6_IFF_TENTATIVE,
  );
}

/** The stacks of a link, as its clock sees them. */
export class LinkNetwork implements LinkActivity {
  readonly clock: LinkClock;
  /** The stacks that are not stopped. */
  readonly running = new Set<LinkStack>();
  /** Those of them whose connections are closing. */
  readonly closing = new Set<LinkStack>();

  constructor(clock: LinkClock) {
    this.clock = clock;
  }

  activity(): 'fast' | 'slow' | 'none' {
    let found: 'slow' | 'none' = 'none';
    for (const { nic, vnet } of this.running) {
      if (nic.heldFrames > 0 || ifnetList(vnet).some(resolves)) return 'fast';
      const tcp = tcpUnderWay(vnet);
      if (tcp === 'fast') return tcp;
      if (tcp === 'slow') found = tcp;
    }
    return found;
  }

  reading(): boolean {
    return readsPending() > 0;
  }

  /** Lets time pass until `done`, or until nothing is under way. */
  async until(done: () => boolean): Promise<void> {
    const { clock } = this;
    const limitNs = clock.mode === 'real' ? CLOSE_REAL_NS : CLOSE_NS;
    await clock.run('active', clock.nowNs() + limitNs, done);
  }
}

/** A stack whose NIC is on a simulated wire. */
export class LinkStack extends NicStack {
  readonly #network: LinkNetwork;

  constructor(
    machine: Machine,
    vnet: Vnet,
    nic: Nic,
    captures: CaptureFile[],
    network: LinkNetwork,
  ) {
    super(machine, vnet, [nic], captures);
    this.#network = network;
    network.running.add(this);
  }

  /**
   * Closes the connections and unplugs the NIC. Virtual time passes meanwhile. Resolves without leaks: the
   * stacks of a link share its memory, so the link finds them.
   */
  override async stop(users: StackUsers): Promise<Record<string, number>> {
    const network = this.#network;
    const { closing, running } = network;
    closing.add(this);
    users.finish();
    // The peer of the last ACK may be another stack that closes.
    await network.until(() => [...closing].every(({ vnet }) => tcpConnections(vnet) === 0));
    this.resetAll(users);
    // RSTs reach their peers, and programs notice the end of their sockets.
    await network.until(() => false);
    closing.delete(this);
    running.delete(this);
    this.detach();
    return {};
  }
}
