/** A router between two Linux namespaces: a bridge and a veth lead from the TAP of the second NIC to the other one. */

import { expect } from 'chai';
import { Instance } from './instance.ts';
import { Netns } from './netns.ts';

/** The address of the namespace behind the router. */
export const FAR = '198.51.100.1';

interface Way {
  readonly a: Netns;
  readonly b: Netns;
  readonly tapnic: Instance;
}

/** Runs `body` with a router whose NICs are 192.0.2.2 in `a` and 198.51.100.2 in `b`. */
export async function routed(args: string[], body: (way: Way) => Promise<void>): Promise<void> {
  using a = new Netns('fwa');
  using b = new Netns('fwb');
  const tapnic = await Instance.start(a, ['inetd', '--services=echo', ...args]);
  try {
    const ip = (line: string): string => a.exec('ip', line.split(' '));
    ip(`link add v1 type veth peer name far netns ${b.name}`);
    ip('link add br1 type bridge');
    for (const dev of ['nic1', 'v1']) ip(`link set ${dev} master br1`);
    for (const dev of ['nic1', 'v1', 'br1']) ip(`link set ${dev} up`);
    b.exec('ip', 'addr add 198.51.100.1/24 dev far'.split(' '));
    b.exec('ip', ['link', 'set', 'far', 'up']);
    b.exec('ip', ['link', 'set', 'lo', 'up']);
    b.exec('ip', 'route add 192.0.2.0/24 via 198.51.100.2'.split(' '));
    ip('route add 198.51.100.0/24 via 192.0.2.2');
    const { ports } = tapnic.ready;
    for (const line of [
      `ifconfig ${ports[0]!.if} inet 198.51.100.2/24 up`,
      'sysctl net.inet.ip.forwarding=1',
    ]) {
      const { status, stderr } = await tapnic.command(...line.split(' '));
      expect(status, `${line}: ${stderr}`).to.equal(0);
    }
    await body({ a, b, tapnic });
  } finally {
    const end = await tapnic.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  }
}
