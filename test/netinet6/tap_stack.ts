/** A stack with IPv6 on one or more TAPs, each in a namespace of its own. */

import { expect } from 'chai';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { type Nic, type NicOptions, openNic } from '../../src/machine/nic.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import { SIOCSIFMTU } from '../../src/net/if_var.ts';
import { netDetach } from '../../src/net/net_attach.ts';
import { inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { inet6_domain_detach } from '../../src/netinet6/in6_proto.ts';
import { IN6_IFF_NODAD } from '../../src/netinet6/in6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { Netns } from '../support/netns.ts';

/** A NIC: its TAP's name, Linux's address and that of the stack, both in a /64. */
export interface TapSpec {
  readonly tap: string;
  readonly host: string;
  readonly us: string;
  readonly more?: Partial<NicOptions>;
}

export class TapStack {
  readonly machine: Machine;
  readonly nics: Nic[] = [];
  readonly spaces: Netns[] = [];

  constructor(specs: readonly TapSpec[]) {
    this.machine = bootHostMachine({ memory: 32 << 20, seed: 1 });
    for (const spec of specs) this.#open(spec);
  }

  #open({ tap, host, us, more }: TapSpec): void {
    const ns = new Netns(tap);
    this.spaces.push(ns);
    const nic = openNic(this.machine, {
      tap,
      hostAddr: null,
      hostAddr6: null,
      addr6: null,
      gateway6: null,
      addr: null,
      gateway: null,
      mtu: 1500,
      nic: 'tn',
      caps: [],
      mode: 'wire',
      napi: 'off',
      engine: 'ts',
      netns: ns.name,
      captures: [],
      ...more,
    });
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
    const { vnet } = this.machine;
    inPass(() => tcp_shutdownVnet(vnet, 'rst'));
    inPass(() => tcp_shutdownVnet(vnet, 'discard'));
    for (const nic of this.nics) nic.stop();
    inPass(() => {
      netDetach(vnet);
      inet6_domain_detach(vnet);
      inet_domain_detach(vnet);
    });
    timeoutEnd();
    for (const ns of this.spaces) ns[Symbol.dispose]();
  }
}
