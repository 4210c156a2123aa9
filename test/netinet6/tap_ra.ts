/** A stack on a TAP that is configured by router advertisements; the router is radvd in its namespace. */

import type { ChildProcess } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { type Nic, openNic } from '../../src/machine/nic.ts';
import type { Ifnet } from '../../src/net/if_var.ts';
import { in6Ntop } from '../../src/netinet6/in6.ts';
import { IN6_IFF_TENTATIVE, type In6Ifaddr, isIn6Ifaddr } from '../../src/netinet6/in6_var.ts';
import { in6AutoconfStart } from '../../src/netinet6/nd6_flags.ts';
import { nd6Drlist } from '../../src/netinet6/nd6_list.ts';
import { ip6_sprintf } from '../../src/netinet6/scope6.ts';
import { inPass } from '../../src/sys/pass.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';
import { endMachine, plainNic } from './plain_nic.ts';

const TAP = 'tap6';
/** Longest wait for what happens within seconds. */
const WAIT_MS = 60_000;

export class RaTap {
  readonly ns = new Netns('ra');
  readonly site = new Site();
  readonly machine: Machine;
  readonly nic: Nic;
  readonly tap = TAP;

  constructor() {
    this.machine = bootHostMachine({ memory: 32 << 20, seed: 1 });
    this.nic = openNic(this.machine, plainNic(TAP, this.ns));
    this.ns.exec('ip', ['link', 'set', TAP, 'up']);
    this.ns.exec('sysctl', ['-q', '-w', 'net.ipv6.conf.all.forwarding=1']);
  }

  get ifp(): Ifnet {
    return this.nic.ifp;
  }

  autoconf(): void {
    expect(inPass(in6AutoconfStart, this.ifp, true)).to.equal(0);
  }

  /** Starts radvd on interface `dev` of `ns`. */
  radvd(body: string, ns = this.ns, dev = TAP): ChildProcess {
    const tag = `${ns.name}.${dev}`;
    const conf = this.site.path(`radvd.${tag}.conf`);
    const times = 'AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4;';
    writeFileSync(conf, `interface ${dev} { ${times} ${body} };\n`);
    const pid = this.site.path(`radvd.${tag}.pid`);
    const args = ['-n', '-C', conf, '-p', pid, '-m', 'stderr'];
    return ns.spawn('radvd', args, { stdio: 'ignore' });
  }

  /** The addresses of the interface that are not link-local and not tentative. */
  get addresses(): In6Ifaddr[] {
    return this.ifp.if_addrhead
      .filter(isIn6Ifaddr)
      .filter((ia) => ia.ifa_addr.w0 >>> 16 !== 0xfe80 && (ia.ia6_flags & IN6_IFF_TENTATIVE) === 0);
  }

  get texts(): string[] {
    return this.addresses.map(({ ifa_addr }) => in6Ntop(ifa_addr));
  }

  /** The router with the default route; null: there is none. */
  get gateway(): string | null {
    const dr = nd6Drlist(this.machine.vnet).find(({ installed }) => installed);
    return dr === undefined ? null : ip6_sprintf(this.machine.vnet, dr.rtaddr).split('%')[0]!;
  }

  /** The link-local address of interface `dev` of Linux. */
  linklocal(ns = this.ns, dev = TAP): string {
    const out = ns.exec('ip', ['-6', '-o', 'addr', 'show', 'dev', dev, 'scope', 'link']);
    return /inet6 (\S+)\/64/.exec(out)![1]!;
  }

  /** Waits until `done` holds. */
  async until(what: string, done: () => boolean): Promise<void> {
    for (const end = Date.now() + WAIT_MS; !done();) {
      if (Date.now() > end) throw new Error(`${what}: not within ${WAIT_MS} ms`);
      await sleep(20);
    }
  }

  close(): void {
    endMachine(this.machine, [this.nic]);
    this.ns[Symbol.dispose]();
    this.site[Symbol.dispose]();
  }
}
