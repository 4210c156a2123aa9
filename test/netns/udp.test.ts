/**
 * UDP with Linux as the peer: the small services, and datagrams longer than a frame, which both
 * sides fragment and reassemble, on each transmit path.
 */

import { expect } from 'chai';
import { chargenPattern } from '../../src/apps/inetd/inetd.ts';
import type { SocketLine } from '../../src/ctl/netstat_an.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';

const ADDR = '192.0.2.2';
const ROUNDS = full ? 200 : 5;
/** Sizes around one frame and around two fragments, a page, and the longest datagram. */
const SIZES = [0, 1, 548, 549, 1472, 1473, 2952, 2953, 4096, 20_000, 65_507];

/**
 * A program for the Linux side: sends datagrams of these sizes to a port, each after the answer to
 * the one before. Prints `same` for an answer equal to what was sent, otherwise the answer.
 */
const CLIENT = `
const dgram = require('node:dgram');
const [port, rounds, ...sizes] = process.argv.slice(1).map(Number);
const socket = dgram.createSocket({ type: 'udp4', recvBufferSize: 1 << 20, sendBufferSize: 1 << 20 });
const wanted = Array.from({ length: rounds }, () => sizes).flat();
const bytes = (n, i) => Buffer.from(Array.from({ length: n }, (_, at) => (at * 31 + i * 7 + (at >> 8)) & 255));
let i = 0;
let timer;
const next = () => {
  if (i === wanted.length) { clearTimeout(timer); socket.close(); return; }
  clearTimeout(timer);
  timer = setTimeout(() => { console.log('no answer to ' + wanted[i]); process.exit(1); }, 3000);
  socket.send(bytes(wanted[i], i));
};
socket.on('message', (data) => {
  console.log(data.equals(bytes(wanted[i], i)) ? 'same' : data.toString('latin1'));
  i++;
  next();
});
socket.on('error', (error) => { console.log(error.code); process.exit(0); });
socket.connect(port, '${ADDR}', next);
`;

async function client(ns: Netns, port: number, rounds: number, sizes: number[]): Promise<string[]> {
  const args = [port, rounds, ...sizes].map(String);
  const run = await ns.run(process.execPath, ['-e', CLIENT, '--', ...args], { timeoutMs: 60_000 });
  expect(run.status, run.stdout.slice(0, 500) + run.stderr).to.equal(0);
  return run.stdout.split('\n').slice(0, -1);
}

interface Arm {
  name: string;
  args: string[];
  mtu: number;
}

// A datagram of 65,507 bytes is 119 fragments of 576.
const FRAGMENTS = ['--sysctl', 'net.inet.ip.maxfragsperpacket=128'];

const ARMS: Arm[] = [
  { name: 'default', args: [], mtu: 1500 },
  { name: '-txcsum', args: ['--cap=-txcsum'], mtu: 1500 },
  { name: '-nomap, MTU 576', args: ['--cap=-nomap', '--mtu', '576', ...FRAGMENTS], mtu: 576 },
  { name: 'vnet, MTU 9000', args: ['--mode', 'vnet', '--mtu', '9000'], mtu: 9000 },
];

describe('netns: UDP', function () {
  needs('root', 'tap', 'netns', 'tshark');
  this.timeout(120_000);

  for (const { name, args, mtu } of ARMS)
    it(`echoes datagrams up to the longest, ${name}`, async () => {
      using ns = new Netns();
      using site = new Site();
      const pcap = site.path('wire.pcap');
      const tapnic = await Instance.start(ns, [
        'inetd',
        '--services=echo',
        `--capture=wire=${pcap}`,
        ...args,
      ]);
      let lines: string[];
      let stat: NetstatS;
      try {
        lines = await client(ns, 7, ROUNDS, SIZES);
        stat = await tapnic.json<NetstatS>('netstat', '-s');
        // A datagram that is never complete: its fragments are still queued at the stop.
        await tapnic.command('sysctl', 'net.inet.ip.maxfragsperpacket=4');
        await ns.run('bash', ['-c', `dd if=/dev/zero bs=8000 count=1 >/dev/udp/${ADDR}/7`]);
      } finally {
        const end = await tapnic.stop();
        expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
      }
      const n = ROUNDS * SIZES.length;
      expect(lines).to.deep.equal(Array.from({ length: n }, () => 'same'));
      expect(stat.protocols['udp']).to.include({ udps_ipackets: n, udps_opackets: n });
      const cut = ROUNDS * SIZES.filter((size) => size + 28 > mtu).length;
      expect(stat.protocols['ip']).to.include({ ips_fragmented: cut });
      expect(stat.protocols['ip']!['ips_reassembled']).to.be.at.least(cut);

      // In mode vnet Linux completes the checksum of a datagram in one frame.
      if (args.includes('vnet')) return;
      const counts = await assertCleanCapture(pcap, { mtu });
      expect(counts.frameMax).to.be.at.most(mtu + 14);
      const whole = await tsharkFields(
        pcap,
        ['udp.checksum.status', 'udp.length', 'ip.fragment.error', 'ip.fragment.overlap'],
        `ip.src == ${ADDR} && udp`,
      );
      expect(whole.map(([status]) => status)).to.deep.equal(Array.from({ length: n }, () => '1'));
      expect(whole.map(([, length]) => Number(length) - 8)).to.deep.equal(
        Array.from({ length: ROUNDS }, () => SIZES).flat(),
      );
      expect(whole.every(([, , error, overlap]) => error === '' && overlap === '')).to.equal(true);
      const offsets = await tsharkFields(
        pcap,
        ['ip.frag_offset', 'ip.flags.mf', 'ip.len'],
        `ip.src == ${ADDR} && ip.proto == 17 && (ip.flags.mf == 1 || ip.frag_offset > 0)`,
      );
      let end = 0;
      for (const [off, mf, len] of offsets) {
        // The offset is in units of 8 bytes, or, from a newer tshark, in bytes.
        expect([Number(off), Number(off) * 8]).to.include(end);
        end = ['1', 'True'].includes(mf!) ? end + Number(len) - 20 : 0;
      }
      expect(end, 'the last one has no MF').to.equal(0);
    });

  it('runs daytime, chargen and discard, refuses a closed port, and lists its sockets', async () => {
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['inetd']);
    try {
      const [time] = await client(ns, 13, 1, [5]);
      expect(time).to.match(/^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\r$/);
      const chars = await client(ns, 19, 1, [5, 5]);
      const pattern = chargenPattern().toString('latin1').split('\n');
      expect(chars.filter((line) => line !== '')).to.deep.equal(pattern.slice(0, 2));
      const sent = await ns.run('bash', ['-c', `echo gone >/dev/udp/${ADDR}/9`]);
      expect(sent.status, sent.stderr).to.equal(0);
      // No service on this port: Linux gets an ICMP error.
      expect(await client(ns, 4444, 1, [5])).to.deep.equal(['ECONNREFUSED']);
      const { protocols } = await tapnic.json<NetstatS>('netstat', '-s');
      expect(protocols['udp']).to.include({ udps_ipackets: 5, udps_opackets: 3, udps_noport: 1 });
      const { stdout } = await tapnic.command('netstat', '-an');
      expect(stdout).to.match(/^udp46 {6}0 {6}0 \*\.19 {19}\*\.\*$/m);
      const udp = (await tapnic.json<SocketLine[]>('netstat', '-an')).filter(
        ({ proto }) => proto === 'udp46',
      );
      expect(udp.map(({ local }) => local).toSorted()).to.deep.equal([
        '*.13',
        '*.19',
        '*.7',
        '*.9',
      ]);
      expect((await tapnic.json<NetstatM>('netstat', '-m')).emulator.conversions).to.equal(0);
    } finally {
      const end = await tapnic.stop();
      expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
    }
  });
});
