/** The part of the stacks on TAPs that all tests of this folder share: NIC options and the end of a machine. */

import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import type { Machine } from '../../src/machine/machine.ts';
import type { Nic, NicOptions } from '../../src/machine/nic.ts';
import { netDetach } from '../../src/net/net_attach.ts';
import { inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import { inet6_domain_detach } from '../../src/netinet6/in6_proto.ts';
import { inPass } from '../../src/sys/pass.ts';
import type { Netns } from '../support/netns.ts';

/** The options of a NIC on `tap` in `ns`, without addresses on either side. */
export function plainNic(tap: string, ns: Netns): NicOptions {
  return {
    tap,
    hostAddr: null,
    hostAddr6: null,
    addr: null,
    gateway: null,
    addr6: null,
    gateway6: null,
    mtu: 1500,
    nic: 'tn',
    caps: [],
    mode: 'wire',
    napi: 'off',
    engine: 'ts',
    netns: ns.name,
  };
}

/** Ends a machine with its NICs. The caller has closed its sockets. */
export function endMachine({ vnet }: Machine, nics: readonly Nic[]): void {
  inPass(() => tcp_shutdownVnet(vnet, 'rst'));
  inPass(() => tcp_shutdownVnet(vnet, 'discard'));
  for (const nic of nics) nic.stop();
  inPass(() => {
    netDetach(vnet);
    inet6_domain_detach(vnet);
    inet_domain_detach(vnet);
  });
  timeoutEnd();
}
