import { execFileSync } from 'node:child_process';
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';
import { compileFilterInsns } from '../../src/host/pcap_filter.ts';
import { needs } from '../support/needs.ts';

/** The message that `expression` is refused with. */
async function refusal(expression: string, signal?: AbortSignal): Promise<string> {
  try {
    await compileFilterInsns(expression, signal);
  } catch (e) {
    return (e as Error).message;
  }
  throw new Error(`compiled: ${expression}`);
}

/** What `tcpdump -ddd` prints for a file of Ethernet frames, or its error. */
function tcpdump(expression: string): string {
  const input = Buffer.alloc(24);
  input.writeUInt32LE(0xa1b2c3d4, 0);
  input.writeUInt32LE(0x40002, 4);
  input.writeUInt32LE(65_535, 16);
  input.writeUInt32LE(1, 20);
  const args = ['-ddd', '-r', '-', '--', expression];
  try {
    return execFileSync('tcpdump', args, { input, encoding: 'utf8', stdio: 'pipe' });
  } catch (e) {
    const { stderr } = e as { stderr: string };
    return stderr.trim().split('\n').at(-1)!;
  }
}

/** The same, by compileFilterInsns. */
async function ours(expression: string): Promise<string> {
  try {
    const insns = await compileFilterInsns(expression);
    return `${[[insns.length], ...insns].map((insn) => insn.join(' ')).join('\n')}\n`;
  } catch (e) {
    return (e as Error).message.replace(`match: ${expression}`, 'tcpdump');
  }
}

const PROGRAMS = [
  '',
  'ip',
  'ip6',
  'arp',
  'rarp',
  'tcp',
  'udp',
  'icmp',
  'icmp6',
  'tcp port 80',
  'port 53',
  'port http',
  'tcp port ssh',
  'udp and not port domain',
  'portrange 6000-6008',
  'portrange ftp-ssh',
  'src port 1 or dst port 2',
  'host 10.0.0.1',
  'src host 10.0.0.1 and dst host 10.0.0.2',
  'host 2001:db8::1',
  'ip6 host ::1',
  'net 10',
  'net 192.168.0.0/16',
  'net 192.168',
  'dst net 172.16.0.0 mask 255.240.0.0',
  'net 2001:db8::/32',
  'ether host 02:00:00:00:00:01',
  'ether src 2-0-0-0-0-1',
  'ether broadcast',
  'ether multicast',
  'ip broadcast',
  'ip multicast',
  'ip6 multicast',
  'broadcast or multicast',
  'less 100',
  'greater 1000',
  'len > 60 and len <= 1514',
  'vlan',
  'vlan 3 and tcp port 80',
  'vlan 1 and vlan 2 and ip',
  'mpls 100 and ip',
  'pppoes and ip',
  'geneve and tcp',
  'ip proto \\tcp',
  'ip proto 17',
  'ip6 proto 58',
  'ip protochain 6',
  'ether proto \\arp',
  'ether proto 0x88cc',
  'tcp[tcpflags] & (tcp-syn|tcp-fin) != 0',
  'tcp[13] & 2 != 0 and not src net 127.0.0.0/8',
  'icmp[icmptype] = icmp-echo or icmp[icmptype] == icmp-echoreply',
  'ip[6:2] & 0x1fff != 0',
  'ip[0] & 0xf != 5',
  'ether[0] & 1 = 0 and ip[16] >= 224',
  'tcp port 80 and (((ip[2:2] - ((ip[0]&0xf)<<2)) - ((tcp[12]&0xf0)>>2)) != 0)',
  'udp[8:4] = 0xdeadbeef',
  'ip[8] * 2 / 3 % 5 ^ 1 = 7',
  'not (tcp or udp) and !icmp && ip || arp',
  'stp',
  'llc',
  'ether[12:2] > 1500',
  Array.from({ length: 100 }, (_, i) => `port ${i}`).join(' or '),
];

const REFUSED = [
  'tcp port',
  'tcp and (',
  'port 99999',
  'host 1.2.3.400',
  'inbound',
  'ether host 10.0.0.1',
  'portrange 5-frob',
  'ip proto \\frob',
  'port frob',
  'vlan 5000',
  'tcp[1:3] = 0',
  'tcp and len',
  '==',
  'ip6[0',
  'ip[0] / 0 = 1',
  'arp and tcp port 80',
];

describe('pcap filters', function () {
  needs('tcpdump');
  this.timeout(20_000);

  it('compile, or are refused with the reason of tcpdump', async () => {
    expect((await compileFilterInsns('icmp')).length).to.be.above(3);
    expect(await compileFilterInsns('')).to.deep.equal([[6, 0, 0, 65_535]]);
    expect(await refusal('frob')).to.match(/^match: frob: /);
  });

  it('are those of tcpdump, instruction by instruction', async () => {
    for (const expression of PROGRAMS) {
      const expected = tcpdump(expression);
      expect(expected, expression).to.match(/^\d+\n/);
      expect(await ours(expression), expression).to.equal(expected);
    }
  });

  it('are refused in the words of libpcap', async () => {
    for (const expression of REFUSED) {
      const expected = tcpdump(expression);
      expect(expected, expression).to.match(/^tcpdump: /);
      expect(await ours(expression), expression).to.equal(expected);
    }
  });

  it('need no tcpdump unless a name server has to be asked', async () => {
    const path = process.env['PATH'];
    process.env['PATH'] = '/nonexistent';
    try {
      expect((await compileFilterInsns('tcp port http')).length).to.equal(20);
      expect(await refusal('tcp port')).to.equal(
        "match: tcp port: can't parse filter expression: syntax error",
      );
      for (const name of ['host example.com', 'host 80-90', 'net \\tcp', 'frob', 'ether host é'])
        expect(await refusal(name)).to.match(/^match: tcpdump is needed to compile it: /);
    } finally {
      process.env['PATH'] = path;
    }
  });

  it('are compiled by tcpdump while the library is busy', async () => {
    const addon = loadAddon();
    const ended = new Promise<void>((resolve) => addon.filterCompile(Buffer.from('ip'), resolve));
    expect(await ours('tcp port 80')).to.equal(tcpdump('tcp port 80'));
    expect(await ours('tcp port')).to.equal(tcpdump('tcp port'));
    await ended;
    addon.filterResult(new Uint32Array(64), new Uint8Array(256));
  });

  it('end after two seconds, or when they are canceled, also in a queue', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-filter-'));
    const path = process.env['PATH'];
    try {
      writeFileSync(join(dir, 'tcpdump'), '#!/bin/sh\nexec sleep 30\n');
      chmodSync(join(dir, 'tcpdump'), 0o755);
      process.env['PATH'] = `${dir}:${path}`;
      let turns = 0;
      const timer = setInterval(() => turns++, 10);
      const stop = new AbortController();
      const first = refusal('host www.example.com');
      const second = refusal('icmp', stop.signal);
      expect(await first).to.equal(
        'match: host www.example.com: tcpdump took too long: use addresses, not names',
      );
      clearInterval(timer);
      expect(turns, 'the event loop turned').to.be.above(20);
      stop.abort();
      expect(await second).to.equal('match: icmp: canceled');
      expect(await refusal('icmp', stop.signal)).to.equal('match: icmp: canceled');
    } finally {
      process.env['PATH'] = path;
      rmSync(dir, { recursive: true });
    }
    expect((await compileFilterInsns('icmp')).length).to.be.above(3);
  });
});
