/** A stack with IPv6 on a TAP, in real time: the peer is Linux with its own programs. */

import { expect } from 'chai';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { type Nic, openNic } from '../../src/machine/nic.ts';
import { in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6ifa_ifpforlinklocal } from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { Netns } from '../support/netns.ts';
import { endMachine, plainNic } from './plain_nic.ts';

export const HOST6 = '2001:db8::1';
export const OUR6 = '2001:db8::2';

export class Tap6 {
  readonly ns: Netns;
  readonly machine: Machine;
  readonly nic: Nic;

  /** `dad_count` 0: our addresses are ready at once. Linux has `HOST6` immediately. */
  constructor(tag: string, dad_count = 0) {
    this.ns = new Netns(tag);
    this.machine = bootHostMachine({ memory: 32 << 20, seed: 1 });
    mbParams.mb_use_ext_pgs = true;
    this.nic = openNic(this.machine, plainNic('tap6', this.ns));
    this.ns.exec('ip', ['-6', 'addr', 'add', `${HOST6}/64`, 'dev', 'tap6', 'nodad']);
    V_ip6(this.machine.vnet).params.dad_count = dad_count;
  }

  add(text = OUR6): void {
    expect(inPass(in6_aifaddr, this.nic.ifp, parseIn6(text)!, 64)).to.equal(0);
  }

  /** Our link-local address, without its zone. */
  linklocal(): string {
    const { w2, w3 } = in6ifa_ifpforlinklocal(this.nic.ifp, 0)!.ifa_addr;
    return in6Ntop({ w0: 0xfe800000, w1: 0, w2, w3 });
  }

  /** The output of ping6 from Linux: one request, because after a reply ping waits for two RTTs only. */
  async ping(size: number, to = OUR6): Promise<string> {
    const args = ['-6', '-n', '-c', '1', '-W', '10', '-s', `${size}`, to];
    return (await this.ns.run('ping', args)).stdout;
  }

  /** Waits until `holds`, for at most 20 s. */
  async until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
    const end = Date.now() + 20_000;
    while (!(await holds())) {
      if (Date.now() > end) throw new Error(`not within 20 s: ${what}`);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The caller has closed its sockets. */
  close(): void {
    endMachine(this.machine, [this.nic]);
    this.ns[Symbol.dispose]();
  }
}
