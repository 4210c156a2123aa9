/**
 * Behaviours of node:net: each one is a function that acts on a module and logs what it sees. It runs on
 * node:net over Linux's loopback and on the sockets of a machine over its lo0, and the logs must be equal.
 */

import * as nodeNet from 'node:net';
import { lookup } from 'node:dns';
import { expect } from 'chai';
import { stackNet } from '../../src/api/net.ts';
import { NetHost } from '../../src/api/net_host.ts';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { endMachine } from '../netinet6/plain_nic.ts';
import { argumentBehaviours } from './net/arguments.ts';
import { type Behaviour, Bench, type NetModule } from './net/bench.ts';
import { connectBehaviours } from './net/connections.ts';
import { serverBehaviours } from './net/servers.ts';
import { streamBehaviours } from './net/streams.ts';

const all: Behaviour[] = [
  ...argumentBehaviours,
  ...connectBehaviours,
  ...serverBehaviours,
  ...streamBehaviours,
];

/** The log of a behaviour on `net`. */
async function logOf({ run }: Behaviour, net: NetModule): Promise<unknown> {
  const bench = new Bench(net);
  try {
    await run(bench);
  } finally {
    await bench.done();
  }
  return bench.logs;
}

describe('api: behaviours of node:net', () => {
  let machine: Machine;
  let net: NetModule;

  before(() => {
    machine = bootHostMachine({ memory: 32 * 1024 * 1024 });
    const host = new NetHost(machine.vnet, { lookup });
    net = { ...nodeNet, ...stackNet(host) } as unknown as NetModule;
  });

  after(() => {
    endMachine(machine, []);
    expect(machine.leaked()).to.eql({});
  });

  for (const behaviour of all)
    it(behaviour.title, async () => {
      const node = await logOf(behaviour, nodeNet);
      const ours = await logOf(behaviour, net);
      expect(ours, 'ours, and that of node:net').to.eql(node);
    }).timeout(20_000);
});
