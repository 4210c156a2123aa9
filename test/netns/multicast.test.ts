/** Multicast with Linux as the peer: delivery both ways, Linux as querier, and reports in tshark. */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { createStack } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';
import { Instance } from '../support/instance.ts';
import { tsharkFields } from '../support/tshark.ts';

const GROUP = '239.1.2.3';

/** Linux joins the group, prints what it receives, and answers to the group. */
const MEMBER = `
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('${GROUP}', 5000))
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton('${GROUP}') + socket.inet_aton('192.0.2.1'))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton('192.0.2.1'))
s.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
print('ready', flush=True)
d, a = s.recvfrom(100)
print(d.decode(), a[0], flush=True)
s.sendto(b'from linux', ('${GROUP}', 5000))
`;

describe('netns: multicast', function () {
  needs('root', 'tap', 'netns', 'python3', 'tshark');
  this.timeout(60_000);

  for (const nic of ['tn', 'tb', 'tl', 'tp'] as const)
    it(`a group has members on both sides: ${nic}`, async () => {
      using ns = new Netns('mc');
      using site = new Site();
      const pcap = site.path('mc.pcap');
      const stack = await createStack({
        netns: ns.name,
        memory: '64M',
        nic,
        capture: { wire: pcap },
      });
      try {
        const python = ns.run('python3', ['-c', MEMBER]);
        const socket = stack.createSocket({ type: 'udp4', reuseAddr: true });
        socket.bind(5000);
        await once(socket, 'listening');
        const got: string[] = [];
        socket.on('message', (data: Buffer, { address }: { address: string }) =>
          got.push(`${data.toString()} ${address}`),
        );
        socket.addMembership(GROUP);
        socket.setMulticastInterface('192.0.2.2');
        expect(socket.setMulticastTTL(3)).to.equal(3);
        for (let i = 0; !ns.exec('ss', ['-Hlun']).includes(':5000 ') && i < 400; i++)
          await sleep(50);
        socket.send('from tapnic', 5000, GROUP);
        const { stdout, stderr } = await python;
        expect(stdout, stderr).to.equal('ready\nfrom tapnic 192.0.2.2\n');
        for (let i = 0; got.length < 2 && i < 400; i++) await sleep(50);
        expect(got).to.deep.equal(['from tapnic 192.0.2.2', 'from linux 192.0.2.1']);
        // A membership that ends before the first report is never reported.
        await sleep(500);
        socket.dropMembership(GROUP);
        expect(() => socket.dropMembership(GROUP)).to.throw(/EADDRNOTAVAIL/);
        expect(() => socket.addMembership('192.0.2.1')).to.throw(/EINVAL/);
        expect(() => socket.addMembership('')).to.throw(/multicastAddress/);
        expect(() => socket.setMulticastTTL(256)).to.throw(/EINVAL/);
        await sleep(500);
        socket.close();
      } finally {
        await stack.close();
      }
      const reports = await tsharkFields(
        pcap,
        ['igmp.record_type', 'igmp.maddr', 'ip.dst', 'ip.ttl', 'igmp.checksum.status', 'eth.dst'],
        'igmp && ip.src == 192.0.2.2',
      );
      const rows = reports.map((row) => row.join(' '));
      const row = (type: number): string => `${type} ${GROUP} 224.0.0.22 1 1 01:00:5e:00:00:16`;
      expect(rows).to.include(row(4));
      expect(rows).to.include(row(3));
    });

  it('a Linux bridge that snoops IGMPv3 learns the membership and its end', async () => {
    using ns = new Netns('mq');
    const stack = await createStack({ netns: ns.name, memory: '64M', hostAddr: null });
    try {
      const ip = (line: string): string => ns.exec('ip', line.split(' '));
      ip(
        'link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_igmp_version 3 mcast_startup_query_interval 100',
      );
      ip('link set nic0 master br0');
      ip('addr add 192.0.2.1/24 dev br0');
      ip('link set br0 up');
      const socket = stack.createSocket('udp4');
      socket.bind(5000);
      await once(socket, 'listening');
      socket.addMembership(GROUP);
      let mdb = '';
      for (let i = 0; i < 400 && !mdb.includes(GROUP); i++) {
        await sleep(50);
        mdb = ns.exec('bridge', ['mdb', 'show', 'dev', 'br0']);
      }
      expect(mdb).to.include(`port nic0 grp ${GROUP}`);
      socket.dropMembership(GROUP);
      for (let i = 0; i < 400 && mdb.includes(GROUP); i++) {
        await sleep(50);
        mdb = ns.exec('bridge', ['mdb', 'show', 'dev', 'br0']);
      }
      expect(mdb).not.to.include(GROUP);
      socket.close();
    } finally {
      await stack.close();
    }
  });

  it('arp sets, shows, publishes and deletes entries', async () => {
    using ns = new Netns('ap');
    const tapnic = await Instance.start(ns, ['inetd']);
    try {
      const run = async (line: string): Promise<string> => {
        const { status, stdout, stderr } = await tapnic.command('arp', ...line.split(' '));
        return `${status} ${stdout}${stderr}`;
      };
      expect(await run('-s 192.0.2.77 02:00:00:00:00:77 pub')).to.equal('0 ');
      expect(await run('192.0.2.77')).to.equal(
        '0 ? (192.0.2.77) at 02:00:00:00:00:77 on tn0 permanent published [ethernet]\n',
      );
      // Linux asks for it and gets the answer.
      await ns.run('ping', ['-c', '1', '-W', '1', '192.0.2.77']);
      expect(ns.exec('ip', ['neigh', 'show', '192.0.2.77'])).to.include('02:00:00:00:00:77');
      expect(await run('-d 192.0.2.77')).to.equal('0 192.0.2.77 (192.0.2.77) deleted\n');
      expect(await run('192.0.2.77')).to.equal('1 192.0.2.77 (192.0.2.77) -- no entry\n');
      expect(await run('-d 192.0.2.77')).to.match(/^1 .*delete: cannot locate 192\.0\.2\.77/);
      expect(await run('-S 192.0.2.78 02:00:00:00:00:78 temp')).to.equal('0 ');
      expect(await run('-d -a')).to.include('192.0.2.78 (192.0.2.78) deleted\n');
      expect(await run('-a')).to.match(
        /^0 \? \(192\.0\.2\.2\) at \S+ on tn0 permanent \[ethernet\]\n$/,
      );
      expect(await run('-s 192.0.2.79')).to.match(/^2 /);
    } finally {
      const end = await tapnic.stop();
      expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
    }
  });
});
