/** Our capture at `wire` against tcpdump on the TAP, and against Linux's counters. */

import { once } from 'node:events';
import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { captureItems } from '../../src/cli/capture_input.ts';
import type { Verdict } from '../../src/explain/verify.ts';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { cliMain, packageRoot } from '../support/root.ts';
import { Site, withServed } from '../support/served.ts';

const BYTES = 300_000;
const VLAN_US = '198.51.100.2';
const VLAN_PEER = '198.51.100.1';

/** What Linux counted on the TAP as received, which is what we sent. */
interface Received {
  packets: number;
  bytes: number;
}

/** Starts a program and resolves when it has written to stderr. */
async function begun(child: ChildProcess): Promise<ChildProcess> {
  await once(child.stderr!, 'data');
  child.stderr!.resume();
  return child;
}

async function interrupted(child: ChildProcess): Promise<void> {
  const gone = once(child, 'close');
  child.kill('SIGINT');
  await gone;
}

function received({ ns }: Instance): Received {
  const [link] = JSON.parse(ns.exec('ip', ['-j', '-s', 'link', 'show', 'nic0'])) as [
    { stats64: { rx: Received } },
  ];
  return link.stats64.rx;
}

describe('netns: captures agree with tcpdump', function () {
  needs('root', 'tap', 'netns', 'curl', 'tcpdump', 'python3');
  this.timeout(60_000);

  let site: Site;
  let ours: string;
  let theirs: string;
  beforeEach(() => {
    site = new Site();
    site.file('file', BYTES);
    ours = site.path('ours.pcapng');
    theirs = site.path('theirs.pcap');
  });
  afterEach(() => site[Symbol.dispose]());

  /** Captures what `traffic` causes; resolves with what Linux counted. */
  async function captured(tapnic: Instance, traffic: () => Promise<void>): Promise<Received> {
    const dump = '-i nic0 -n -U -s 0 -B 16384 --immediate-mode -w'.split(' ');
    const { ns, control } = tapnic;
    const capture = [cliMain, 'capture', 'ip,if,ring,wire', '-w', ours, '--control', control];
    const stdio: ['ignore', 'ignore', 'pipe'] = ['ignore', 'ignore', 'pipe'];
    const before = received(tapnic);
    const running = await Promise.all([
      begun(ns.spawn('tcpdump', [...dump, theirs], { stdio })),
      begun(ns.spawn(process.execPath, capture, { stdio })),
    ]);
    await traffic();
    // The last ACKs of both sides.
    await sleep(150);
    const { packets, bytes } = received(tapnic);
    await Promise.all(running.map(interrupted));
    return { packets: packets - before.packets, bytes: bytes - before.bytes };
  }

  const fetch = async (tapnic: Instance, families: (4 | 6)[] = [4, 6]): Promise<void> => {
    for (const family of families) {
      const { status, stderr } = await tapnic.curl('-o', '/dev/null', tapnic.urlOf('file', family));
      expect(status, stderr).to.equal(0);
    }
    await tapnic.ns.execAsync('ping', ['-q', '-c', '2', '-i', '0.01', '192.0.2.2']);
  };

  async function verify(tapnic: Instance, ...args: string[]): Promise<Verdict> {
    const command = ['capture', '--verify', ours, ...args, '--json'];
    const { status, stdout, stderr } = await tapnic.ns.run(process.execPath, [cliMain, ...command]);
    expect(status, `${stderr}${stdout}`).to.equal(0);
    return JSON.parse(stdout) as Verdict;
  }

  /** The number of frames of a direction in which both files agree. */
  const agreed = ({ checks }: Verdict, direction: string): number =>
    checks.find(({ name }) => name.endsWith(`@wire ${direction}: frames as in the other file`))!
      .found;

  const cells: Record<string, string[]> = {
    vnet: ['--mode', 'vnet'],
    tl: ['--nic', 'tl'],
    ...(full ? { 'tn, ts': ['--engine', 'ts'] } : {}),
  };
  for (const [name, args] of Object.entries(cells))
    it(`${name}: both families, frame by frame`, async () => {
      await withServed(site, args, async (tapnic) => {
        await captured(tapnic, () => fetch(tapnic));
        const verdict = await verify(tapnic, '--with', theirs);
        // vnet: super-frames.
        expect(agreed(verdict, 'out')).to.be.above(name === 'vnet' ? 20 : (2 * BYTES) / 1448);
        expect(agreed(verdict, 'in')).to.be.above(15);
      });
    });

  it('tn, native: both families, and a VLAN with tags', async () => {
    await withServed(site, [], async (tapnic) => {
      const words = `vlan100 create vlan 100 vlandev tn0 inet ${VLAN_US}/24 up`.split(' ');
      expect((await tapnic.command('ifconfig', ...words)).status).to.equal(0);
      const script = join(packageRoot(), 'test', 'support', 'vlan_peer.py');
      await captured(tapnic, async () => {
        await fetch(tapnic);
        await tapnic.ns.execAsync('python3', [script, 'nic0', '100', VLAN_PEER, VLAN_US, 'file']);
      });
      const verdict = await verify(tapnic, '--with', theirs);
      expect(agreed(verdict, 'out')).to.be.above((3 * BYTES) / 1460);
    });
  });

  it('threaded NAPI: the same frames and bytes as Linux counts', async () => {
    // Without IPv6 nothing is sent but what the traffic causes.
    await withServed(site, ['--napi', 'thread', '--addr6', 'none'], async (tapnic) => {
      const rx = await captured(tapnic, () => fetch(tapnic, [4]));
      await verify(tapnic);
      const sent = { packets: 0, bytes: 0 };
      let wire = -1;
      for await (const item of captureItems(ours)) {
        if (item.kind === 'interface' && item.name === 'tn0@wire') wire = item.index;
        if (item.kind !== 'packet' || item.iface !== wire || (item.flags & 3) !== 2) continue;
        sent.packets++;
        sent.bytes += item.wirelen;
      }
      expect(sent).to.deep.equal(rx);
      expect(sent.packets).to.be.above(BYTES / 1448);
    });
  });
});
