/** The emulated host over IPv6 with peers that test it: ping, curl over a router, nmap, Scapy, thc-ipv6. */

import { join } from 'node:path';
import { expect } from 'chai';
import { request } from '../../src/cli/control_client.ts';
import type { NdpLine, NdpPrefix, NdpRouter } from '../../src/ctl/ndp.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { Instance } from '../support/instance.ts';
import { full, needs, needsHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { packageRoot } from '../support/root.ts';
import { sha256, sha256File, Site, withServed } from '../support/served.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';

const US = '2001:db8::2';
const LINUX = '2001:db8::1';
/** Debian's Scapy belongs to Debian's Python. */
const PYTHON = '/usr/bin/python3';
const SCAPY = '/usr/bin/scapy';
const PACKETS = full ? 10_000 : 300;
const script = (name: string): string => join(packageRoot(), 'test/netns', name);

/** Runs `body` with the small services; they must still answer afterwards, and nothing may leak. */
async function withEcho(
  args: string[],
  body: (tapnic: Instance, ns: Netns) => Promise<void>,
): Promise<void> {
  using ns = new Netns();
  const services = ['inetd', '--services', 'echo,discard', ...args];
  const tapnic = await Instance.start(ns, services);
  try {
    await body(tapnic, ns);
    await answers(ns);
  } catch (e) {
    tapnic.kill('SIGKILL');
    const { signal, stderr } = await tapnic.exited();
    if (signal !== 'SIGKILL' && e instanceof Error) e.message += `; tapnic had ended: ${stderr}`;
    throw e;
  }
  const end = await tapnic.stop();
  expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
}

/** Expects an echo of TCP and of ICMPv6. */
async function answers(ns: Netns): Promise<void> {
  const line = `exec 3<>/dev/tcp/${US}/7; echo alive >&3; head -n 1 <&3`;
  expect(await ns.execAsync('bash', ['-c', line])).to.equal('alive\n');
  const ping = await ns.run('ping', ['-6', '-n', '-c', '1', '-W', '5', US]);
  expect(ping.status, ping.stdout).to.equal(0);
}

/** The sizes of ping's data at whose edges a packet of `mtu` bytes is full, and the two limits. */
function edges(mtu: number): number[] {
  const each = (mtu - 48) & ~7;
  const counts = Array.from({ length: Math.floor(65_515 / each) }, (_, i) => i + 1);
  const some = full ? counts : [1, 2, counts.at(-1)!];
  const cuts = some.map((n) => each * n - 8);
  const all = [0, 56, mtu - 48, ...cuts].flatMap((n) => [n - 1, n, n + 1]);
  return [...all.filter((n) => n >= 0 && n <= 65_507), 65_506, 65_507];
}

describe('netns: IPv6, ping at every edge', function () {
  needs('root', 'tap', 'netns', 'ping', 'tshark');
  this.timeout(full ? 600_000 : 120_000);

  const arms: [args: string, mtu: number][] = [
    ['--cap=-nomap', 1500],
    ['--cap=-txcsum6', 1500],
    ['--mode vnet', 1500],
    ['', 1280],
    ['', 9000],
  ];
  for (const [args, mtu] of arms)
    it(`${args} MTU ${mtu}: answers, and gets an answer, at every size`.trim(), async () => {
      using site = new Site();
      const capture = site.path('wire.pcap');
      const wire = args === '--mode vnet' ? [] : ['--capture', `wire=${capture}`];
      const all = [...args.split(' ').filter(Boolean), '--mtu', `${mtu}`, ...wire];
      await withServed(site, all, async (tapnic) => {
        for (const size of edges(mtu)) {
          const ping = ['-6', '-n', '-c', '1', '-W', '5', '-s', `${size}`, US];
          const got = await tapnic.ns.run('ping', ping);
          expect(got.status, `${size}: ${got.stdout}`).to.equal(0);
          const more = ['-c', '1', '-W', '5000', '-s', `${size}`, LINUX];
          const own = await tapnic.command('ping', '-6', ...more);
          expect(own.status, `${size}: ${own.stdout}${own.stderr}`).to.equal(0);
        }
      });
      if (wire.length > 0) await assertCleanCapture(capture, { mtu });
    });
});

describe('netns: IPv6 over a router with a smaller MTU', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping');
  this.timeout(120_000);

  const BYTES = full ? 100_000_000 : 5_000_000;
  const arms: [name: string, args: string[], converts: boolean, reads: boolean][] = [
    ['default', [], false, false],
    ['kern.ipc.mb_use_ext_pgs=0', ['--sysctl', 'kern.ipc.mb_use_ext_pgs=0'], false, false],
    ['-nomap', ['--cap=-nomap'], true, false],
    ['-txcsum6', ['--cap=-txcsum6'], true, true],
  ];
  for (const [name, args, converts, reads] of arms)
    it(`${name}: curl -6 gets the file, and the CPU reads ${reads ? 'every byte' : 'nothing'}`, async () => {
      using site = new Site();
      const sum = sha256(site.file('file', BYTES));
      using far = new Netns('far');
      await withServed(site, args, async (tapnic) => {
        const { ns } = tapnic;
        const ip = (at: Netns, line: string): string => at.exec('ip', line.split(' '));
        ns.exec('sysctl', ['-qw', 'net.ipv6.conf.all.forwarding=1']);
        ip(ns, `link add v0 mtu 1280 type veth peer name v1 mtu 1280 netns ${far.name}`);
        ip(ns, '-6 addr add 2001:db8:b::1/64 dev v0 nodad');
        ip(ns, 'link set v0 up');
        ip(far, '-6 addr add 2001:db8:b::2/64 dev v1 nodad');
        ip(far, 'link set v1 up');
        // The client announces segments of 1440 bytes, so that only the router limits the path.
        ip(far, '-6 route add default via 2001:db8:b::1 advmss 1440');
        const out = site.path('out');
        const url = tapnic.urlOf('file', 6);
        const got = await far.run('curl', ['-6', '-gsS', '-m', '60', '-o', out, url], {
          timeoutMs: 70_000,
        });
        expect(got.status, got.stderr).to.equal(0);
        expect(await sha256File(out)).to.equal(sum);
        for (const size of ['1452', '20000']) {
          const ping = ['-6', '-n', '-c', '3', '-i', '0.2', '-W', '2', '-s', size, US];
          expect((await far.run('ping', ping)).stdout, size).to.match(/[23] received/);
        }
        const { emulator } = await tapnic.json<NetstatM>('netstat', '-m');
        expect(emulator.conversions > 0).to.equal(converts);
        const read = emulator.payload_bytes_read as Record<string, number>;
        if (reads) expect(read['checksum']! + read['small']!).to.be.at.least(BYTES);
        else
          for (const reason of ['checksum', 'copy', 'bpf', 'pio', 'other'])
            expect(read[reason], reason).to.equal(0);
        const { icmp6 } = (await tapnic.json<NetstatS>('netstat', '-s')).protocols;
        expect(icmp6!['icp6s_pmtuchg']).to.equal(1);
      });
    });
});

describe('netns: IPv6 and hostile peers', function () {
  needs('root', 'tap', 'netns', 'ping', PYTHON);
  this.timeout(full ? 1_500_000 : 120_000);

  it(`Scapy: builds ${PACKETS} packets, parses the answers; ${PACKETS} of fuzz() change nothing`, async function () {
    needsHere(this, SCAPY, 'tshark');
    using site = new Site();
    const capture = site.path('wire.pcap');
    let wrong = (): Promise<string[][]> => Promise.reject(new Error('not run'));
    const args = ['--sysctl', 'net.inet6.icmp6.errppslimit=-1', '--capture', `wire=${capture}`];
    await withEcho(args, async ({ ready }, ns) => {
      const words = [ready.tap, ready.mac, US, '7', '11', `${PACKETS}`, '6'];
      const { status, stdout, stderr } = await ns.run(PYTHON, [script('scapy6.py'), ...words], {
        timeoutMs: full ? 500_000 : 100_000,
      });
      expect(status, stderr).to.equal(0);
      const said = JSON.parse(stdout) as Record<'asked' | 'parsed', Record<string, number>> &
        Record<'fuzzed' | 'unbuilt' | 'after', number>;
      const asked = Object.values(said.asked).reduce((sum, n) => sum + n, 0);
      expect(asked).to.equal(PACKETS + 1);
      expect(said.fuzzed).to.be.above(PACKETS * 0.9);
      expect(said.after, 'seconds until an answer').to.be.below(5);
      const bad = ['icmpv6', 'tcp', 'udp'].map((name) => `${name}.checksum.status == "Bad"`);
      const filter = `eth.src == ${ready.mac} && (_ws.malformed || ${bad.join(' || ')})`;
      // The capture's last frames are written at the end.
      wrong = (): Promise<string[][]> =>
        tsharkFields(capture, ['frame.number', 'frame.protocols'], filter);
    });
    expect(await wrong()).to.deep.equal([]);
  });

  it('fragments without end: bounded memory, and whole packets get their answers', async () => {
    await withEcho([], async (tapnic, ns) => {
      const { tap, mac } = tapnic.ready;
      const words = [script('fragments6.py'), tap, mac, US, full ? '200000' : '6000'];
      await ns.execAsync(PYTHON, words, { timeoutMs: 100_000 });
      await answers(ns);
      const { clusters } = await tapnic.json<NetstatM>('netstat', '-m');
      // 256 clusters are in the receive ring; net.inet6.ip6.maxfrags is 512.
      expect(clusters.current).to.be.below(256 + 512 + 64);
      const { ip6 } = (await tapnic.json<NetstatS>('netstat', '-s')).protocols;
      for (const name of ['ip6s_fragments', 'ip6s_fragdropped', 'ip6s_atomicfrags'])
        expect(ip6![name], name).to.be.above(0);
    });
  });

  it('nmap -6: reports the state of each port, and gets nothing for bad checksums', async function () {
    needsHere(this, 'nmap');
    await withEcho([], async (_tapnic, ns) => {
      const scan = async (...how: string[]): Promise<string> => {
        const all = ['-6', '-n', '-Pn', '-T4', ...how, '-oX', '-', US];
        const xml = await ns.execAsync('nmap', all, { timeoutMs: 60_000 });
        const seen = xml.matchAll(/portid="(\d+)"><state state="([^"]+)" reason="([^"]+)"/g);
        return [...seen].map(([, port, state, why]) => `${port} ${state} ${why}`).join(', ');
      };
      const [syn, udp, badSyn, badUdp] = await Promise.all([
        scan('-sS', '-p7-10'),
        scan('-sU', '-p7,9,10'),
        scan('-sS', '--badsum', '-p7,8'),
        scan('-sU', '--badsum', '-p7,10'),
      ]);
      expect(syn).to.equal('7 open syn-ack, 8 closed reset, 9 open syn-ack, 10 closed reset');
      expect(udp).to.equal(
        '7 open udp-response, 9 open|filtered no-response, 10 closed port-unreach',
      );
      expect(badSyn).to.not.match(/open|closed/);
      expect(badUdp).to.not.match(/ open |closed/);
      // nmap knows no FreeBSD 14 by its IPv6 answers; it must get an answer to its probes.
      const os = await ns.execAsync('nmap', ['-6', '-n', '-Pn', '-O', '-p7,8', US], {
        timeoutMs: 60_000,
      });
      expect(os).to.match(/^OS (details|:SCAN|guesses)|^Aggressive OS|^No OS matches/m);
    });
  });

  const TOOLS: [tool: string, ...args: string[]][] = [
    ['fragmentation6', 'IF', US],
    ['fuzz_ip6', '-x', 'IF', US],
    ['fuzz_ip6', '-IFSDHRJ', '-p', '60', 'IF', US],
    ['toobig6', 'IF', US, LINUX, '1280'],
    ['toobig6', 'IF', US, LINUX, '68'],
    ['ndpexhaust26', '-c', 'IF', US],
    ['fake_advertise6', 'IF', US],
    ['flood_router26', 'IF'],
    ['flood_solicitate6', 'IF', US],
    ['flood_redir6', 'IF', US],
    ['implementation6', 'IF', US],
  ];
  it('thc-ipv6: no tool stops the host, and its tables stay bounded', async function () {
    needsHere(this, 'atk6-implementation6');
    await withEcho([], async (tapnic, ns) => {
      const seconds = full ? 60 : 2;
      for (const [tool, ...args] of TOOLS) {
        const words = args.map((word) => (word === 'IF' ? tapnic.ready.tap : word));
        await ns.run('timeout', ['-s', 'KILL', `${seconds}`, `atk6-${tool}`, ...words], {
          timeoutMs: (seconds + 10) * 1000,
        });
        const begin = performance.now();
        await answers(ns);
        expect(performance.now() - begin, `${tool}: until the answers`).to.be.below(5000);
        // The table has at most 16384 unused entries.
        for (const [word, most] of [
          ['-a', 16_499],
          ['-r', 100],
          ['-p', 100],
        ] as const) {
          const listed = await request(tapnic.control, 'ndp', { words: [word] });
          expect((listed as { lines: unknown[] }).lines.length, `${tool} ${word}`).to.be.at.most(
            most,
          );
        }
        const m = (await request(tapnic.control, 'netstat', { report: 'm' })) as NetstatM;
        expect(m.clusters.current, tool).to.be.below(1024);
        expect(m.mbufs.current, tool).to.be.below(4096);
      }
      expect(await tapnic.json<NdpLine[]>('ndp', '-a')).to.have.lengthOf.below(16_500);
      expect(await tapnic.json<NdpRouter[]>('ndp', '-r')).to.have.lengthOf.below(101);
      expect(await tapnic.json<NdpPrefix[]>('ndp', '-p')).to.have.lengthOf.below(101);
    });
  });
});
