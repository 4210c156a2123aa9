/**
 * `ping` from the emulated host: Linux answers, and tshark and Linux's counters check the packets.
 */

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needs } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import { tsharkFields } from '../support/tshark.ts';

const REPLY = /^64 bytes from 192\.0\.2\.1: icmp_seq=(\d+) ttl=64 time=\d+\.\d{3} ms$/;

describe('commands: ping from the emulated host', function () {
  needs('root', 'tap', 'netns', 'tshark');
  this.timeout(60_000);

  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-ping-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  const args = (...more: string[]): string[] => [
    cliMain,
    'ping',
    '--control',
    join(dir, 'c.sock'),
    ...more,
  ];
  const ping = (ns: Netns, ...more: string[]): Promise<Result> =>
    ns.run(process.execPath, args(...more));

  /** Linux's ICMP counters in its namespace. */
  function icmpCounts(ns: Netns): Record<string, number> {
    const [names, values] = ns
      .exec('cat', ['/proc/net/snmp'])
      .split('\n')
      .filter((line) => line.startsWith('Icmp:'))
      .map((line) => line.split(' ').slice(1));
    return Object.fromEntries(names!.map((name, i) => [name, Number(values![i])]));
  }

  it("prints the output of ping, which agrees with Linux's counters and the capture", async () => {
    using ns = new Netns();
    const pcap = join(dir, 'ping.pcap');
    const run = await ping(ns, '192.0.2.1', '-c', '4', '-i', '0.2', '--capture', `wire=${pcap}`);
    expect(run.status, run.stderr).to.equal(0);
    const lines = run.stdout.split('\n');
    expect(lines[0]).to.equal('PING 192.0.2.1 (192.0.2.1): 56 data bytes');
    expect(lines.slice(1, 5).map((line) => REPLY.exec(line)?.[1])).to.deep.equal([
      '0',
      '1',
      '2',
      '3',
    ]);
    expect(lines.slice(5, 8)).to.deep.equal([
      '',
      '--- 192.0.2.1 ping statistics ---',
      '4 packets transmitted, 4 packets received, 0.0% packet loss',
    ]);
    expect(lines[8]).to.match(
      /^round-trip min\/avg\/max\/stddev = \d+\.\d{3}\/\d+\.\d{3}\/\d+\.\d{3}\/\d+\.\d{3} ms$/,
    );
    expect(icmpCounts(ns)).to.include({ InEchos: 4, OutEchoReps: 4, InCsumErrors: 0 });
    const sent = await tsharkFields(
      pcap,
      ['frame.len', 'icmp.seq', 'icmp.checksum.status', 'frame.time_epoch'],
      'icmp.type == 8 && ip.src == 192.0.2.2',
    );
    expect(sent.map(([len, seq, sum]) => [len, seq, sum])).to.deep.equal(
      [0, 1, 2, 3].map((seq) => ['98', String(seq), '1']),
    );
    const seconds = Number(sent[3]![3]) - Number(sent[0]![3]);
    expect(seconds, 'three intervals').to.be.within(0.55, 1.5);
  });

  it('sends fragments, but not with DF', async () => {
    using ns = new Netns();
    // The first request has 45 fragments. ARP holds 16 of them while it resolves
    // (net.link.ether.inet.maxhold).
    const big = await ping(
      ns,
      '192.0.2.1',
      '-c',
      '2',
      '-i',
      '0.2',
      '-s',
      '65507',
      '-q',
      '-W',
      '1500',
    );
    expect(big.stdout, big.stderr).to.match(/^2 packets transmitted, 1 packets received, 50\.0% /m);
    const kept = await ping(ns, '192.0.2.1', '-c', '1', '-s', '1472', '-D', '-q');
    expect(kept.stdout).to.match(/ 1 packets received/);
    const refused = await ping(ns, '192.0.2.1', '-c', '1', '-s', '1473', '-D', '-W', '200');
    expect(refused).to.include({ status: 1, stderr: 'ping: sendto: Message too long\n' });
  });

  it('exits with 1 without a reply, and prints its statistics as JSON', async () => {
    using ns = new Netns();
    const run = await ping(ns, '192.0.2.77', '-c', '2', '-i', '0.1', '-W', '300', '--json');
    expect(run.status).to.equal(1);
    const lines = run.stdout
      .trimEnd()
      .split('\n')
      .map((line) => JSON.parse(line) as object);
    expect(lines[0]).to.include({ event: 'ready' });
    expect(lines.at(-2)).to.deep.equal({
      event: 'statistics',
      transmitted: 2,
      received: 0,
      duplicates: 0,
      late: 0,
      rttMs: null,
      loss_percent: 100,
    });
    expect(lines.at(-1)).to.deep.equal({ event: 'exit', leaked: {} });
  });

  it('prints the ICMP errors of a router', async () => {
    using ns = new Netns();
    ns.exec('sysctl', ['-qw', 'net.ipv4.ip_forward=1']);
    ns.exec('ip', ['route', 'add', 'unreachable', '198.51.100.0/25']);
    ns.exec('ip', ['route', 'add', '198.51.100.128/25', 'dev', 'lo']);
    const unreachable = await ping(ns, '198.51.100.1', '-c', '1', '-W', '300');
    expect(unreachable.status).to.equal(1);
    expect(unreachable.stdout).to.match(
      /^92 bytes from 192\.0\.2\.1: Destination Host Unreachable$/m,
    );
    const expired = await ping(ns, '198.51.100.200', '-c', '1', '-W', '300', '-m', '1');
    expect(expired.stdout).to.match(/^92 bytes from 192\.0\.2\.1: Time to live exceeded$/m);
  });

  it('runs until a signal, then prints its statistics', async () => {
    using ns = new Netns();
    const child = ns.spawn(process.execPath, args('192.0.2.1', '-i', '0.1'), {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    let stdout = '';
    let asked = false;
    child.stdout!.on('data', (chunk: Buffer) => {
      stdout += chunk.toString();
      if (asked || !stdout.includes('icmp_seq=3 ')) return;
      asked = true;
      child.kill('SIGINT');
    });
    const [code] = (await once(child, 'close')) as [number | null];
    expect(code, stdout).to.equal(0);
    expect(stdout).to.match(
      /^[4-9] packets transmitted, [4-9] packets received, 0\.0% packet loss$/m,
    );
    expect(ns.exec('ip', ['-br', 'link'])).not.to.include('nic0');
  });

  for (const [what, more] of [
    ['a host name', ['localhost']],
    ['too much data', ['192.0.2.1', '-s', '65508']],
    ['an interval of 0', ['192.0.2.1', '-i', '0']],
    ['a time to live of 0', ['192.0.2.1', '-m', '0']],
  ] as const)
    it(`refuses ${what}, with status 2`, async () => {
      using ns = new Netns();
      const run = await ping(ns, ...more);
      expect(run).to.include({ status: 2, stdout: '' });
    });
});
