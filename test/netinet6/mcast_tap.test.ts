/**
 * Groups of IPv6 with Linux as the peer: delivery both ways, a bridge that snoops, queries made with
 * Scapy, and tshark as the judge of each report.
 */

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { AF_INET6, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import { Sockopt, SOPT_SET } from '../../src/kern/sockopt.ts';
import { sobind, soclose, socreate, type Socket, soResult } from '../../src/kern/uipc_socket.ts';
import { sosetopt } from '../../src/kern/uipc_sockopt.ts';
import { MCAST_JOIN_SOURCE_GROUP } from '../../src/netinet/in_membership.ts';
import { IPV6_JOIN_GROUP, IPV6_LEAVE_GROUP } from '../../src/netinet6/in6_mcast.ts';
import { IPPROTO_IPV6 } from '../../src/netinet6/ip6.ts';
import { mldstat } from '../../src/netinet6/mld6.ts';
import { DgramSocket } from '../../src/machine/dgram.ts';
import { inPass } from '../../src/sys/pass.ts';
import { needs } from '../support/needs.ts';
import { Site } from '../support/served.ts';
import { ip6 } from '../support/six.ts';
import { tsharkFields } from '../support/tshark.ts';
import { sin6 } from './pair.ts';
import { TapStack } from './tap_stack.ts';

const GROUP = 'ff15::1:3';
const HOST = '2001:db8::1';
const US = '2001:db8::2';
const SCAPY = '/usr/lib/python3/dist-packages/scapy';

/** Linux joins the group, prints what it receives, and answers to the group with hop limit 3. */
const MEMBER = `
import socket, struct
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
i = socket.if_nametoindex('mc6')
s.bind(('${GROUP}', 5000, 0, i))
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, socket.inet_pton(socket.AF_INET6, '${GROUP}') + struct.pack('I', i))
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, i)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
print('ready', flush=True)
d, a = s.recvfrom(100)
print(d.decode(), a[0], flush=True)
s.sendto(b'from linux', ('${GROUP}', 5000))
`;

const QUERIER = `
import logging, sys, time; logging.getLogger('scapy').setLevel(logging.ERROR)
from scapy.all import *
conf.verb = 0
def send(dst, body, mac):
    p = Ether(dst=mac) / IPv6(src='fe80::99', dst=dst, hlim=1)
    p = p / IPv6ExtHdrHopByHop(options=[RouterAlert(value=0), PadN(otype=1)]) / body
    sendp(p, iface='mc6')
    time.sleep(1.5)
G = '${GROUP}'
ALL = '33:33:00:00:00:01'
OWN = '33:33:00:01:00:03'
send('ff02::1', ICMPv6MLQuery2(mladdr='::', mrd=500, QRV=2, QQIC=125), ALL)
send(G, ICMPv6MLQuery2(mladdr=G, mrd=500, QRV=2, QQIC=125), OWN)
send(G, ICMPv6MLQuery2(mladdr=G, mrd=500, QRV=2, QQIC=125, sources=['2001:db8::1', '2001:db8::9']), OWN)
send('ff02::1', ICMPv6MLQuery(mladdr='::', mrd=500), ALL)
`;
import { CaptureFile } from '../../src/machine/capture_file.ts';
import type { Nic } from '../../src/machine/nic.ts';
import { CAPTURE_WIRE } from '../../src/sys/capture.ts';

describe('groups of IPv6 with Linux', function () {
  needs('root', 'tap', 'netns', 'python3', 'tshark');
  this.timeout(120_000);
  let site: Site;
  let stack: TapStack;
  let so: Socket;
  let pcap: string;
  let capture: CaptureFile;

  beforeEach(() => {
    site = new Site();
    pcap = site.path('mc6.pcap');
    const onPlugged = ({ ifp }: Nic): void => {
      capture = new CaptureFile({ places: [{ point: CAPTURE_WIRE, at: null }], file: pcap });
      capture.attach(ifp, [null]);
    };
    stack = new TapStack([{ tap: 'mc6', host: HOST, us: US, onPlugged }]);
    expect(inPass(() => socreate(stack.machine.vnet, AF_INET6, SOCK_DGRAM, 0))).to.equal(0);
    so = soResult.so!;
    expect(inPass(() => sobind(so, sin6('::', 5000)))).to.equal(0);
  });
  let closed = false;
  const close = (): void => {
    if (closed) return;
    closed = true;
    inPass(soclose, so);
    capture.close();
    stack.close();
  };
  beforeEach(() => {
    closed = false;
  });
  afterEach(() => {
    close();
    site[Symbol.dispose]();
  });

  const le32 = (n: number): number[] => [n & 255, n >>> 8, 0, 0];
  const index = (): number[] => le32(stack.nics[0]!.ifp.if_index);
  const set = (name: number, bytes: number[]): void => {
    const sopt = new Sockopt(SOPT_SET, IPPROTO_IPV6, name, Uint8Array.from(bytes));
    expect(inPass(sosetopt, so, sopt)).to.equal(0);
  };
  const join = (): void => set(IPV6_JOIN_GROUP, [...ip6(GROUP), ...index()]);
  const leave = (): void => set(IPV6_LEAVE_GROUP, [...ip6(GROUP), ...index()]);
  async function until(what: () => boolean): Promise<void> {
    for (let i = 0; i < 400 && !what(); i++) await sleep(50);
    expect(what()).to.equal(true);
  }
  /** The MLD messages of the stack that `filter` accepts, as tshark sees them. */
  async function judged(mac: string, filter = ''): Promise<string[]> {
    const rows = await tsharkFields(
      pcap,
      [
        'icmpv6.type',
        'icmpv6.mld.multicast_address',
        'ipv6.dst',
        'eth.dst',
        'ipv6.hlim',
        'ipv6.opt.router_alert',
        'icmpv6.checksum.status',
        '_ws.malformed',
      ],
      `icmpv6.type in {131, 132, 143} && eth.src == ${mac}${filter}`,
    );
    return rows.map((row) => row.join(' ').replace(/ +/g, ' ').trim());
  }

  it('a group has members on both sides, with the methods of node:dgram', async () => {
    const [ns] = stack.spaces;
    const python = ns!.run('python3', ['-c', MEMBER]);
    const { vnet } = stack.machine;
    const socket = new DgramSocket(vnet, { type: 'udp6', reuseAddr: true });
    const got: string[] = [];
    socket.on('message', (data: Buffer, { address }: { address: string }) =>
      got.push(`${data.toString()} ${address}`),
    );
    inPass(soclose, so);
    socket.bind(5000);
    await once(socket, 'listening');
    expect(() => socket.addMembership(GROUP), 'no route').to.throw(/EADDRNOTAVAIL/);
    expect(() => socket.addMembership(HOST, '::%tn0')).to.throw(/EINVAL/);
    expect(() => socket.setMulticastInterface('::%none')).to.throw(/ENXIO/);
    socket.addMembership(GROUP, '::%tn0');
    expect(() => socket.addMembership(GROUP, '::%tn0')).to.throw(/EADDRINUSE/);
    socket.setMulticastInterface('::%tn0');
    socket.setMulticastTTL(5);
    await until(() => ns!.exec('ip', ['-6', 'maddr', 'show', 'dev', 'mc6']).includes(GROUP));
    await until(() => ns!.exec('ss', ['-Hlun']).includes(':5000'));
    socket.send('from tapnic', 5000, GROUP);
    const { stdout, stderr } = await python;
    expect(stdout, stderr).to.equal(`ready\nfrom tapnic ${US}\n`);
    await until(() => got.length === 2);
    expect(got).to.deep.equal([`from tapnic ${US}`, `from linux ${HOST}`]);
    // Only the other source, and no own copies: silence.
    socket.dropMembership(GROUP, '::%tn0');
    socket.addSourceSpecificMembership('2001:db8::77', GROUP, '::%tn0');
    await new Promise((resolve) => socket.send('filtered', 5000, GROUP, resolve));
    socket.dropSourceSpecificMembership('2001:db8::77', GROUP, '::%tn0');
    socket.addSourceSpecificMembership(US, GROUP, '::%tn0');
    await new Promise((resolve) => socket.send('passes', 5000, GROUP, resolve));
    await until(() => got.length === 3);
    socket.setMulticastLoopback(false);
    socket.send('not looped', 5000, GROUP);
    await sleep(200);
    expect(got.slice(2)).to.deep.equal([`passes ${US}`]);
    socket.close();
    expect(inPass(() => socreate(vnet, AF_INET6, SOCK_DGRAM, 0))).to.equal(0);
    so = soResult.so!;
  });

  it('a Linux bridge that snoops MLDv2 learns the membership and its end', async () => {
    const [ns] = stack.spaces;
    const ip = (line: string): string => ns!.exec('ip', line.split(' '));
    ip(
      'link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_mld_version 2 mcast_startup_query_interval 100',
    );
    ip('link set mc6 master br0');
    ip('link set br0 up');
    join();
    const learned = (): boolean =>
      ns!.exec('bridge', ['mdb', 'show', 'dev', 'br0']).includes(`port mc6 grp ${GROUP}`);
    await until(learned);
    leave();
    await until(() => !learned());
  });

  it('answers the queries of Scapy; tshark accepts every report', async function () {
    needs(SCAPY);
    const [ns] = stack.spaces;
    join();
    await sleep(500);
    const run = await ns!.run('/usr/bin/python3', ['-c', QUERIER], { timeoutMs: 60_000 });
    expect(run.stderr).to.equal('');
    leave();
    expect(mldstat(stack.machine.vnet)).to.include({
      rcvV2Queries: 3,
      rcvV1Queries: 1,
      rcvBadQueries: 0,
      rcvBadHlim: 0,
      rcvNoRa: 0,
    });
    const mac = Buffer.from(stack.nics[0]!.ifp.if_lladdr).toString('hex').match(/../g)!.join(':');
    close();
    const all = await judged(mac);
    for (const row of all) expect(row).to.match(/ 33:33:\S+ 1 0 1$/);
    const records = async (type: number): Promise<number> => {
      const record = `icmpv6.mldr.mar.record_type == ${type}`;
      const group = `icmpv6.mldr.mar.multicast_address == ${GROUP}`;
      const rows = await judged(mac, ` && ${record} && ${group}`);
      expect(new Set(rows), `record ${type}`).to.deep.equal(
        new Set(['143 ff02::16 33:33:00:00:00:16 1 0 1']),
      );
      return rows.length;
    };
    // The join; the general and the group query; its sources; then version 1, and done.
    expect(await records(4)).to.be.at.least(1);
    expect(await records(2)).to.be.at.least(1);
    expect(await records(1)).to.equal(1);
    expect(all).to.include(`131 ${GROUP} ${GROUP} 33:33:00:01:00:03 1 0 1`);
    expect(all).to.include(`132 ${GROUP} ff02::2 33:33:00:00:00:02 1 0 1`);
  });

  it('a Linux bridge learns the sources of a membership', async () => {
    const [ns] = stack.spaces;
    const ip = (line: string): string => ns!.exec('ip', line.split(' '));
    ip(
      'link add br0 type bridge mcast_snooping 1 mcast_querier 1 mcast_mld_version 2 mcast_startup_query_interval 100',
    );
    ip('link set mc6 master br0');
    ip('link set br0 up');
    const storage = (a: string): number[] =>
      Array.from({ length: 128 }, (_, i) => [28, AF_INET6, 0, 0, 0, 0, 0, 0, ...ip6(a)][i] ?? 0);
    set(MCAST_JOIN_SOURCE_GROUP, [...index(), 0, 0, 0, 0, ...storage(GROUP), ...storage(HOST)]);
    const show = (): string => ns!.exec('bridge', ['-d', 'mdb', 'show', 'dev', 'br0']);
    await until(() => show().includes(GROUP) && show().includes(HOST));
    expect(show()).to.match(/filter_mode include/);
  });
});
