/** `serve --workers`: traffic between the real kernel and several stacks with one address. */

import { expect } from 'chai';
import { setTimeout as sleep } from 'node:timers/promises';
import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { needs } from '../support/needs.ts';
import { sha256, Site } from '../support/served.ts';
import { curls, handover, python, reasonCount, statistics } from '../support/workers.ts';

const BIG = 3_000_000;

describe('netns: serve --workers', function () {
  needs('root', 'tap', 'netns', 'curl', 'tcpdump', '/usr/lib/python3/dist-packages/scapy');
  this.timeout(120_000);

  const site = new Site();
  let big = '';
  let small = '';
  let ns: Netns;
  let tapnic: Instance;

  before(async () => {
    big = sha256(site.file('big', BIG));
    small = sha256(site.file('small', 1000));
    ns = new Netns();
    tapnic = await Instance.start(ns, ['serve', site.dir, '--workers', '3', '--memory', '96M']);
  });

  after(async () => {
    const exit = await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
    expect(exit.stderr).not.to.match(/"level":[456]0/);
  });

  it('says the number of workers, and has a queue for each', () => {
    expect(tapnic.ready).to.include({ workers: 3 });
    expect(ns.exec('ip', ['-d', 'link', 'show', tapnic.ready.tap])).to.match(
      /multi_queue numqueues 3 /,
    );
  });

  for (const family of [4, 6] as const)
    it(`serves 64 connections at once over IPv${family}, each byte right`, async () => {
      const before = await statistics(tapnic);
      expect(await curls(ns, tapnic.urlOf('big', family), 64)).to.deep.equal({ [big]: 64 });
      const after = await statistics(tapnic);
      const accepted = (s: typeof after): number => s.protocols['tcp']!['tcps_accepts'] as number;
      expect(accepted(after) - accepted(before)).to.equal(64);
      // Linux does not know the owner of a new connection.
      const { handedOver, handoverFull, received } = await handover(tapnic);
      expect(handedOver).to.be.above(0);
      expect(handoverFull).to.equal(0);
      expect(received).to.equal(handedOver);
    });

  it('continues connections that Linux has forgotten after ten idle seconds', async () => {
    const script = `
import json, socket, sys, time
def get(c):
    c.sendall(b'GET /small HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n')
    data = b''
    while data.count(b'\\r\\n\\r\\n') == 0 or len(data.split(b'\\r\\n\\r\\n', 1)[1]) < 1000:
        more = c.recv(65536)
        if not more: return 'closed'
        data += more
    return data.split(b'\\r\\n\\r\\n', 1)[1].hex()
cs = [socket.create_connection((host, 80), 20) for host in ('192.0.2.2', '2001:db8::2') for i in range(16)]
first = [get(c) for c in cs]
time.sleep(10)
print(json.dumps([first, [get(c) for c in cs]]))`;
    const before = await handover(tapnic);
    const [first, second] = await python<[string[], string[]]>(ns, script);
    for (const bodies of [first, second])
      expect(bodies.map((hex) => sha256(Buffer.from(hex, 'hex')))).to.deep.equal(
        Array.from({ length: 32 }, () => small),
      );
    const after = await handover(tapnic);
    expect(after.handedOver - before.handedOver).to.be.above(10);
    expect(after.handoverFull).to.equal(0);
  });

  it('lists each connection once and each listener once', async () => {
    const script = `
import json, socket, sys
cs = [socket.create_connection((host, 80), 20) for host in ('192.0.2.2', '2001:db8::2') for i in range(16)]
print(json.dumps([c.getsockname()[1] for c in cs]), flush=True)
sys.stdin.read()`;
    const child = ns.spawn('/usr/bin/python3', ['-c', script], {
      stdio: ['pipe', 'pipe', 'inherit'],
    });
    const line = await new Promise<Buffer>((resolve) => child.stdout!.once('data', resolve));
    const ports: number[] = JSON.parse(line.toString());
    const lines = await tapnic.json<{ state: string; foreign: string; local: string }[]>(
      'netstat',
      '-an',
    );
    const { protocols } = await statistics(tapnic);
    child.stdin!.end();
    const open = lines.filter(({ state }) => state === 'ESTABLISHED');
    const numbers = open.map(({ foreign }) => Number(foreign.slice(foreign.lastIndexOf('.') + 1)));
    expect(numbers.filter((n) => ports.includes(n))).to.have.members(ports);
    const listening = lines.filter(({ state }) => state === 'LISTEN').map(({ local }) => local);
    expect(new Set(listening).size).to.equal(listening.length);
    const states = protocols['tcp']!['states'] as number[];
    expect(states[1]).to.equal(listening.length);
    expect(states[4]).to.be.at.least(32);
  });

  it('answers pings, also in fragments, once', async () => {
    for (const host of ['192.0.2.2', '2001:db8::2'])
      for (const size of ['56', '30000']) {
        const out = ns.exec('ping', ['-c', '4', '-i', '0.2', '-W', '5', '-s', size, host]);
        expect(out).to.match(/4 packets transmitted, 4 received, 0% packet loss/);
        expect(out).not.to.contain('DUP!');
      }
  });

  it('refuses a datagram in fragments with one ICMP error', async () => {
    const script = `
import json, socket
errors = 0
for family, host in ((socket.AF_INET, '192.0.2.2'), (socket.AF_INET6, '2001:db8::2')):
    for i in range(4):
        c = socket.socket(family, socket.SOCK_DGRAM)
        c.settimeout(10)
        c.connect((host, 9999))
        c.send(b'x' * 20000)
        try: c.recv(1)
        except ConnectionRefusedError: errors += 1
print(errors)`;
    expect(await python<number>(ns, script)).to.equal(8);
  });

  it('accepts a connection whose segments arrive in fragments, once', async () => {
    const script = `
import json, logging
logging.getLogger('scapy').setLevel(logging.ERROR)
from scapy.all import *
conf.verb = 0
me, them = get_if_hwaddr('nic0'), sys.argv[1]
sniffer = AsyncSniffer(iface='nic0', filter='tcp and src port 80', store=True)
sniffer.start()
time.sleep(0.5)
for port in range(50000, 50032):
    syn = IP(src='192.0.2.1', dst='192.0.2.2', id=port) / TCP(sport=port, dport=80, flags='S', seq=1)
    for f in fragment(syn, fragsize=16):
        sendp(Ether(src=me, dst=them) / f, iface='nic0')
    syn6 = IPv6(src='2001:db8::1', dst='2001:db8::2') / IPv6ExtHdrFragment(id=port) / TCP(sport=port, dport=80, flags='S', seq=1)
    raw6 = bytes(syn6[TCP])
    import struct
    full = IPv6(bytes(IPv6(src='2001:db8::1', dst='2001:db8::2') / TCP(sport=port, dport=80, flags='S', seq=1)))
    raw6 = bytes(full[TCP])
    head = IPv6(src='2001:db8::1', dst='2001:db8::2')
    sendp(Ether(src=me, dst=them) / head / IPv6ExtHdrFragment(id=port, nh=6, m=1, offset=0) / Raw(raw6[:16]), iface='nic0')
    sendp(Ether(src=me, dst=them) / head / IPv6ExtHdrFragment(id=port, nh=6, m=0, offset=2) / Raw(raw6[16:]), iface='nic0')
time.sleep(2)
got = sniffer.stop()
count = lambda layer, flags: len([p for p in got if layer in p and str(p[TCP].flags) == flags])
ports = lambda layer: len({p[TCP].dport for p in got if layer in p and str(p[TCP].flags) == 'SA'})
print(json.dumps([ports(IP), ports(IPv6), count(IP, 'SA'), count(IPv6, 'SA'),
  len([p for p in got if 'R' in str(p[TCP].flags)])]))`;
    const [four, six, packets4, packets6, resets] = await python<number[]>(
      ns,
      script,
      tapnic.ready.mac,
    );
    expect([four, six]).to.deep.equal([32, 32]);
    // Linux answers each SYN ACK with RST at once, so none is sent again.
    expect([packets4, packets6]).to.deep.equal([32, 32]);
    expect(resets).to.equal(0);
    // Every worker reassembles, two of three drop.
    expect(await reasonCount(tapnic, 'other_worker')).to.be.at.least(128);
  });

  it('serves while Linux forgets its neighbour again and again', async () => {
    const done = new AbortController();
    // Only neighbours that it has found: the end of an unanswered search is EHOSTUNREACH for connect(2).
    const found = ['reachable', 'stale', 'delay', 'probe'].flatMap((state) => ['nud', state]);
    const flush = (async () => {
      while (!done.signal.aborted) {
        ns.exec('ip', ['neigh', 'flush', 'dev', tapnic.ready.tap, ...found]);
        await sleep(30);
      }
    })();
    for (const family of [4, 6] as const)
      expect(await curls(ns, tapnic.urlOf('big', family), 24)).to.deep.equal({ [big]: 24 });
    done.abort();
    await flush;
  });

  it('serves after its own neighbour entries are deleted on all workers', async () => {
    for (const command of [
      ['arp', '-d', '192.0.2.1'],
      ['ndp', '-c'],
    ]) {
      const { status, stderr } = await tapnic.command(...command);
      expect(status, stderr).to.equal(0);
    }
    expect(await curls(ns, tapnic.urlOf('small', 4), 16)).to.deep.equal({ [small]: 16 });
    expect(await curls(ns, tapnic.urlOf('small', 6), 16)).to.deep.equal({ [small]: 16 });
    const lines = await tapnic.json<{ addr: string; ether: string | null }[]>('arp', '-a');
    expect(lines.filter(({ addr }) => addr === '192.0.2.1')).to.have.lengthOf(1);
  });

  it('answers each ARP request and each solicitation once', async () => {
    const script = `
import json, logging
logging.getLogger('scapy').setLevel(logging.ERROR)
from scapy.all import *
conf.verb = 0
me = get_if_hwaddr('nic0')
sniffer = AsyncSniffer(iface='nic0', store=True)
sniffer.start()
time.sleep(0.5)
for i in range(20):
    sendp(Ether(src=me, dst='ff:ff:ff:ff:ff:ff') / ARP(hwsrc=me, psrc='192.0.2.1', pdst='192.0.2.2'), iface='nic0')
    sendp(Ether(src=me, dst='33:33:ff:00:00:02') / IPv6(src='2001:db8::1', dst='ff02::1:ff00:2', hlim=255)
      / ICMPv6ND_NS(tgt='2001:db8::2') / ICMPv6NDOptSrcLLAddr(lladdr=me), iface='nic0')
    time.sleep(0.02)
time.sleep(1)
got = sniffer.stop()
print(json.dumps([len([p for p in got if ARP in p and p[ARP].op == 2 and p.src == sys.argv[1]]),
  len([p for p in got if ICMPv6ND_NA in p and p.src == sys.argv[1] and p[ICMPv6ND_NA].tgt == '2001:db8::2'])]))`;
    const [replies, adverts] = await python<number[]>(ns, script, tapnic.ready.mac);
    expect(replies).to.equal(20);
    // Linux itself may solicit once more.
    expect(adverts).to.be.within(20, 22);
  });

  it('loses its link and gets it back, with all workers', async () => {
    ns.exec('ip', ['link', 'set', tapnic.ready.tap, 'down']);
    await sleep(200);
    const [info] = await tapnic
      .json<{ status: string }[]>('ifconfig', 'tn0')
      .then((i) => [i].flat());
    expect(info!.status).to.equal('no carrier');
    ns.exec('ip', ['link', 'set', tapnic.ready.tap, 'up']);
    expect(await curls(ns, tapnic.urlOf('small', 4), 24)).to.deep.equal({ [small]: 24 });
  });

  it('fetches and pings from the emulated host', async () => {
    const ping = await tapnic.command('ping', '-c', '2', '192.0.2.1');
    expect(ping.status, ping.stderr).to.equal(0);
    const server = ns.spawn('/usr/bin/python3', ['-m', 'http.server', '8000', '-d', site.dir], {
      stdio: 'ignore',
    });
    await sleep(1500);
    for (let i = 0; i < 6; i++) {
      const { status, stdout, stderr } = await tapnic.command(
        'fetch',
        'http://192.0.2.1:8000/small',
      );
      expect(status, stderr).to.equal(0);
      expect(stdout).to.have.length.above(0);
    }
    server.kill();
  });
});

describe('netns: serve --workers behind a router', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(120_000);

  it('obeys ICMP errors about the path MTU in the worker of each connection', async () => {
    using site = new Site();
    const big = sha256(site.file('big', BIG));
    using router = new Netns('router');
    using client = new Netns('client');
    const ip = (ns: Netns, ...args: string[]): string => ns.exec('ip', args);
    ip(
      router,
      'link',
      'add',
      'v0',
      'mtu',
      '1300',
      'type',
      'veth',
      'peer',
      'name',
      'v1',
      'netns',
      client.name,
    );
    ip(client, 'link', 'set', 'v1', 'mtu', '1300', 'up');
    ip(router, 'link', 'set', 'v0', 'up');
    for (const [ns, dev, host] of [
      [router, 'v0', '1'],
      [client, 'v1', '2'],
    ] as const) {
      ip(ns, 'addr', 'add', `198.51.100.${host}/24`, 'dev', dev);
      ip(ns, 'addr', 'add', `2001:db8:1::${host}/64`, 'dev', dev, 'nodad');
    }
    ip(client, 'route', 'add', 'default', 'via', '198.51.100.1');
    ip(client, 'route', 'add', 'default', 'via', '2001:db8:1::1');
    // The client announces a larger segment than the path allows.
    ip(client, 'route', 'replace', '192.0.2.0/24', 'via', '198.51.100.1', 'advmss', '1460');
    ip(client, 'route', 'replace', '2001:db8::/64', 'via', '2001:db8:1::1', 'advmss', '1440');
    router.exec('sh', [
      '-c',
      'echo 1 > /proc/sys/net/ipv4/ip_forward; echo 1 > /proc/sys/net/ipv6/conf/all/forwarding',
    ]);
    const tapnic = await Instance.start(router, [
      'serve',
      site.dir,
      '--workers',
      '3',
      '--memory',
      '96M',
    ]);
    try {
      for (const family of [4, 6] as const)
        expect(await curls(client, tapnic.urlOf('big', family), 12)).to.deep.equal({ [big]: 12 });
      const { protocols } = await statistics(tapnic);
      const errors = (protocols['icmp']!['icps_inhist'] as number[])[3]!;
      const tooBig = (protocols['icmp6']!['icp6s_inhist'] as number[])[2]!;
      // At least one of each family for each of the three workers, which have no memory in common.
      expect(errors).to.be.at.least(3);
      expect(tooBig).to.be.at.least(3);
      expect(protocols['tcp']!['tcps_mturesent']).to.be.at.least(6);
    } finally {
      const exit = await tapnic.stop();
      expect(exit.code, exit.stderr).to.equal(0);
    }
  });
});
