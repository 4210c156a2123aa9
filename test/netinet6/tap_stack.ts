/** A stack with IPv6 on one or more TAPs, each in a namespace of its own. */

import { expect } from 'chai';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { type Nic, type NicOptions, openNic } from '../../src/machine/nic.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import { SIOCSIFMTU } from '../../src/net/if_var.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { Netns } from '../support/netns.ts';
import { endMachine, plainNic } from './plain_nic.ts';

/** A NIC: its TAP's name, Linux's address and that of the stack, both in a /64. */
export interface TapSpec {
  readonly tap: string;
  readonly host: string;
  readonly us: string;
  readonly more?: Partial<NicOptions>;
  /** See openNic. */
  readonly onPlugged?: ((nic: Nic) => void) | undefined;
}

export class TapStack {
  readonly machine: Machine;
  readonly nics: Nic[] = [];
  readonly spaces: Netns[] = [];

  constructor(specs: readonly TapSpec[]) {
    this.machine = bootHostMachine({ memory: 32 << 20, seed: 1 });
    for (const spec of specs) this.#open(spec);
  }

  #open({ tap, host, us, more, onPlugged }: TapSpec): void {
    const ns = new Netns(tap);
    this.spaces.push(ns);
    const nic = openNic(this.machine, { ...plainNic(tap, ns), ...more }, undefined, onPlugged);
    this.nics.push(nic);
    ns.exec('ip', ['-6', 'addr', 'add', `${host}/64`, 'dev', tap, 'nodad']);
    const add = (): number => in6_aifaddr(nic.ifp, parseIn6(us)!, 64, IN6_IFF_NODAD);
    expect(inPass(add)).to.equal(0);
  }

  sysctl(name: string, value: number): void {
    const error = inPass(() => this.machine.vnet.sysctl.write(name, `${value}`));
    expect(error, name).to.equal(0);
  }

  setMtu(nic: number, mtu: number): void {
    expect(inPass(() => ifhwioctl(this.nics[nic]!.ifp, SIOCSIFMTU, mtu))).to.equal(0);
  }

  close(): void {
    endMachine(this.machine, this.nics);
    for (const ns of this.spaces) ns[Symbol.dispose]();
  }
}
