/**
 * Changes of the TAP at run time: renamed, deleted, moved to another namespace, also while the
 * process is stopped and its route socket overflows. The instance continues or ends in order.
 */

import { connect } from 'node:net';
import { createInterface } from 'node:readline';
import { expect } from 'chai';
import { type Exit, Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { readPcap } from '../support/pcap.ts';
import { Site } from '../support/served.ts';
import { FakeTuntap2 } from '../support/tuntap2.ts';

/** Far more messages than the receive buffer of a route socket holds. */
const FLOOD = 2000;

/** The end that a lost interface must cause: one line, the exit line, status 1. */
function expectLost(end: Exit, tap: string, why: string): void {
  expect(end, end.stderr).to.deep.include({ code: 1, signal: null, leaked: {} });
  const lines = end.stderr.split('\n').filter((line) => line.includes('"level":50'));
  expect(lines, end.stderr).to.have.lengthOf(1);
  expect(lines[0]).to.include(`${tap}: the interface is gone: ${why}`);
  expect(end.stderr).not.to.match(/ {4}at |Error:/);
}

/** Makes the kernel send `FLOOD` link messages about another interface of the namespace. */
async function flood(ns: Netns): Promise<void> {
  const input = Array.from({ length: FLOOD }, (_, i) => `link set lo alias n${i}\n`).join('');
  const { status, stderr } = await ns.run('ip', ['-batch', '-'], { input });
  expect(status, stderr).to.equal(0);
}

function rename(ns: Netns, from: string, to: string): void {
  ns.exec('ip', ['link', 'set', from, 'down']);
  ns.exec('ip', ['link', 'set', from, 'name', to]);
  ns.exec('ip', ['link', 'set', to, 'up']);
}

async function expectServes(tapnic: Instance): Promise<void> {
  const url = tapnic.urlOf('a.bin');
  const { status, stdout, stderr } = await tapnic.curl(
    '-o',
    '/dev/null',
    '-w',
    '%{size_download}',
    url,
  );
  expect({ status, stdout }, stderr).to.deep.equal({ status: 0, stdout: '5000' });
}

/** The `tap` of the instance's answer to the control request `info`. */
function tapOf({ control }: Instance): Promise<string> {
  return new Promise((resolve, reject) => {
    const socket = connect({ path: control }, () => socket.write('{"id":1,"cmd":"info"}\n'));
    socket.once('error', reject);
    createInterface({ input: socket }).once('line', (line) => {
      socket.destroy();
      const answer: { data: { tap: string } } = JSON.parse(line);
      resolve(answer.data.tap);
    });
  });
}

describe('commands: the TAP changes at run time', function () {
  needs('root', 'tap', 'netns', 'curl', 'ip');
  this.timeout(60_000);

  const fake = new FakeTuntap2();
  after(() => fake[Symbol.dispose]());

  for (const [what, options, tap] of [
    ['ts', ['--engine', 'ts'], 'nic0'],
    ['native', ['--engine', 'native'], 'nic0'],
    // tuntap2 lets the kernel choose the name.
    ['tuntap2', ['--driver', 'tuntap2'], 'tap0'],
  ] as const) {
    const serve = (ns: Netns, site: Site, ...more: string[]): Promise<Instance> =>
      Instance.start(
        ns,
        ['serve', site.dir, ...options, ...more],
        what === 'tuntap2' ? fake.wrapper : [],
      );

    it(`${what}: renamed: it goes on, and output has the new name`, async () => {
      using site = new Site();
      site.file('a.bin', 5000);
      using ns = new Netns();
      const tapnic = await serve(ns, site);
      rename(ns, tap, 'nic9');
      await expectServes(tapnic);
      expect(await tapOf(tapnic)).to.equal('nic9');
      ns.exec('ip', ['link', 'del', 'nic9']);
      expectLost(await tapnic.exited(), 'nic9', 'it was deleted');
    });

    it(`${what}: deleted during a download: the capture is complete`, async () => {
      using site = new Site();
      site.file('big.bin', 30_000_000);
      using ns = new Netns();
      const capture = site.path('c.pcap');
      const tapnic = await serve(ns, site, '--capture', `wire=${capture}`);
      const url = tapnic.urlOf('big.bin');
      const curl = tapnic.curl('--limit-rate', '1M', '--max-time', '2', '-o', '/dev/null', url);
      await new Promise((resolve) => setTimeout(resolve, 500));
      ns.exec('ip', ['link', 'del', tap]);
      expectLost(await tapnic.exited(), tap, 'it was deleted');
      expect((await readPcap(capture)).packets.length).to.be.above(100);
      expect((await curl).status).to.be.above(0);
    });

    it(`${what}: moved to another namespace: it ends in order`, async () => {
      using site = new Site();
      using ns = new Netns();
      using other = new Netns('other');
      const tapnic = await serve(ns, site);
      ns.exec('ip', ['link', 'set', tap, 'netns', other.name]);
      expectLost(await tapnic.exited(), tap, 'it was moved to another network namespace');
      expect(other.exec('ip', ['-br', 'link'])).not.to.include(tap);
    });

    it(`${what}: deleted while stopped, after the route socket overflowed`, async () => {
      using site = new Site();
      using ns = new Netns();
      const tapnic = await serve(ns, site);
      tapnic.kill('SIGSTOP');
      await flood(ns);
      ns.exec('ip', ['link', 'del', tap]);
      tapnic.kill('SIGCONT');
      expectLost(await tapnic.exited(), tap, 'it was deleted');
    });

    it(`${what}: renamed while stopped, after the route socket overflowed`, async () => {
      using site = new Site();
      site.file('a.bin', 5000);
      using ns = new Netns();
      const tapnic = await serve(ns, site);
      tapnic.kill('SIGSTOP');
      await flood(ns);
      rename(ns, tap, 'nic9');
      tapnic.kill('SIGCONT');
      await expectServes(tapnic);
      expect(await tapOf(tapnic)).to.equal('nic9');
      const end = await tapnic.stop();
      expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
    });

    it(`${what}: set down while stopped, after the route socket overflowed`, async () => {
      using site = new Site();
      site.file('a.bin', 5000);
      using ns = new Netns();
      const tapnic = await serve(ns, site);
      tapnic.kill('SIGSTOP');
      await flood(ns);
      ns.exec('ip', ['link', 'set', tap, 'down']);
      tapnic.kill('SIGCONT');
      const linked = async (): Promise<boolean> =>
        (await tapnic.command('ifconfig')).stdout.includes('status: active');
      for (let i = 0; i < 100 && (await linked()); i++);
      expect(await linked()).to.equal(false);
      ns.exec('ip', ['link', 'set', tap, 'up']);
      await expectServes(tapnic);
      expect((await tapnic.stop()).leaked).to.deep.equal({});
    });
  }
});
