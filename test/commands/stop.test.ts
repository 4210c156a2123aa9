/** The stop of an instance: in time, without leaks, with FIN or RST on every connection. */

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';
import { tsharkFields } from '../support/tshark.ts';

/**
 * RST follows FIN after a second; the clocks of a capture and of this process may differ a little.
 */
const FIN_MS = 950;
/** The two seconds that the contract allows for a stop, and slack for a loaded machine. */
const STOP_MS = 2000;
const SLACK_MS = 500;

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));

/** Waits until `n` bodies are being sent. */
async function allSending(tapnic: Instance, n: number): Promise<void> {
  for (let tries = 0; tries < 200; tries++) {
    const { sendfile } = await tapnic.json<{ sendfile: { sf_syscalls: number } }>('netstat', '-m');
    if (sendfile.sf_syscalls >= n) return;
    await sleep(100);
  }
  throw new Error(`${n} downloads did not all begin`);
}

describe('commands: stop', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(60_000);

  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-stop-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  const links = (ns: Netns): string => ns.exec('ip', ['-br', 'link']);

  for (const [signal, downloads] of [
    ['SIGTERM', 50],
    ['SIGINT', 5],
  ] as const)
    it(`stops within two seconds during ${downloads} downloads, on ${signal}`, async () => {
      using site = new Site();
      site.file('big.bin', 30_000_000);
      using ns = new Netns();
      const capture = join(dir, `${signal}.pcap`);
      const tapnic = await Instance.start(ns, ['serve', site.dir, '--capture', `wire=${capture}`]);
      // The second half reads so slowly that the FIN cannot be sent within a second.
      const rate = (i: number): string => (i < downloads / 2 ? '1M' : '20K');
      const curls = Array.from({ length: downloads }, (_none, i) =>
        tapnic.curl(
          '--limit-rate',
          rate(i),
          '-o',
          '/dev/null',
          '-w',
          '%{size_download}',
          tapnic.urlOf('big.bin'),
        ),
      );
      await allSending(tapnic, downloads);
      await sleep(500);
      const begin = Date.now();
      tapnic.kill(signal);
      const end = await tapnic.exited();
      const ms = Date.now() - begin;

      expect(end, end.stderr).to.deep.include({ code: 0, signal: null, leaked: {} });
      expect(ms).to.be.below(STOP_MS + SLACK_MS);
      expect(links(ns)).not.to.include('nic0');
      expect(existsSync(tapnic.control)).to.equal(false);
      for (const { status, stdout } of await Promise.all(curls)) {
        // 18: the transfer was shorter than promised; 56: the connection was reset.
        expect(status).to.be.oneOf([18, 56]);
        expect(Number(stdout)).to.be.above(0);
      }

      // Every connection gets FIN or RST, but no RST in the first second.
      const told = await tsharkFields(
        capture,
        ['tcp.dstport', 'frame.time_epoch', 'tcp.flags.reset'],
        'ip.src == 192.0.2.2 && (tcp.flags.fin == 1 || tcp.flags.reset == 1)',
      );
      expect(new Set(told.map(([port]) => port)).size).to.equal(downloads);
      const resets = told.filter(([, , reset]) => reset === '1' || reset === 'True');
      expect(resets, 'some were too slow for their FIN').not.to.have.lengthOf(0);
      for (const [, at] of resets) expect(Number(at) * 1000 - begin).to.be.above(FIN_MS);
    });

  it('sends FIN to idle connections and discards TIME_WAIT immediately', async () => {
    using site = new Site();
    site.file('a.bin', 1000);
    using ns = new Netns();
    const capture = join(dir, 'idle.pcap');
    const tapnic = await Instance.start(ns, ['serve', site.dir, '--capture', `wire=${capture}`]);
    // bash keeps the connection until the other side closes it, then exits.
    const script = `exec 3<>/dev/tcp/${tapnic.ready.addr}/80; printf 'GET /a.bin HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3 | wc -c`;
    const idle = Array.from({ length: 5 }, () => ns.run('bash', ['-c', script]));
    await sleep(1000);
    const begin = performance.now();
    const { code, leaked, stderr } = await tapnic.stop();
    const ms = performance.now() - begin;

    expect(code, stderr).to.equal(0);
    expect(leaked).to.deep.equal({});
    expect(ms, 'nothing to wait for').to.be.below(1000);
    for (const { status, stdout } of await Promise.all(idle)) {
      expect(status).to.equal(0);
      expect(Number(stdout)).to.be.above(1000);
    }
    const sent = async (flag: string): Promise<number> =>
      (await tsharkFields(capture, ['tcp.dstport'], `ip.src == 192.0.2.2 && ${flag}`)).length;
    expect(await sent('tcp.flags.fin == 1')).to.be.least(5);
    expect(await sent('tcp.flags.reset == 1')).to.equal(0);
  });

  it('exits immediately with 1 on a second signal', async () => {
    using site = new Site();
    site.file('big.bin', 30_000_000);
    using ns = new Netns();
    const tapnic = await Instance.start(ns, ['serve', site.dir]);
    const slow = ['--limit-rate', '20K', '--max-time', '3', '-o', '/dev/null'];
    const curl = tapnic.curl(...slow, tapnic.urlOf('big.bin'));
    await sleep(800);
    tapnic.kill('SIGTERM');
    await sleep(200);
    const begin = performance.now();
    tapnic.kill('SIGTERM');
    const { code, leaked } = await tapnic.exited();
    expect(performance.now() - begin).to.be.below(SLACK_MS);
    expect({ code, leaked }).to.deep.equal({ code: 1, leaked: null });
    expect(existsSync(tapnic.control)).to.equal(false);
    await curl;
  });

  it('can be started again after SIGKILL', async () => {
    using site = new Site();
    using ns = new Netns();
    const args = ['serve', site.dir, '--control', join(dir, 'dead.sock')];
    const first = await Instance.start(ns, args);
    first.kill('SIGKILL');
    await first.exited();
    expect(links(ns)).not.to.include('nic0');
    expect(existsSync(first.control), 'the stale socket').to.equal(true);
    const second = await Instance.start(ns, args);
    expect(second.ready.created).to.equal(true);
    expect(await second.stop()).to.deep.include({ code: 0, leaked: {} });
  });

  it('keeps a persistent interface and its settings', async () => {
    using site = new Site();
    using ns = new Netns();
    ns.exec('ip', ['tuntap', 'add', 'dev', 'keep0', 'mode', 'tap']);
    ns.exec('ip', ['addr', 'add', '192.0.2.1/24', 'dev', 'keep0']);
    ns.exec('ip', ['link', 'set', 'keep0', 'up', 'mtu', '1400']);
    const before = ns.exec('ip', ['-j', 'addr', 'show', 'keep0']);
    const tapnic = await Instance.start(ns, ['serve', site.dir, '--tap', 'keep0']);
    expect(tapnic.ready.created).to.equal(false);
    expect((await tapnic.curl('-o', '/dev/null', tapnic.url)).status).to.equal(0);
    expect(await tapnic.stop()).to.deep.include({ code: 0, leaked: {} });
    const plain = (text: string): unknown => {
      const [{ address, mtu, addr_info: addrs }] = JSON.parse(text) as [
        { address: string; mtu: number; addr_info: { local: string; family: string }[] },
      ];
      const v4 = addrs.filter(({ family }) => family === 'inet').map(({ local }) => local);
      return { address, mtu, v4 };
    };
    expect(plain(ns.exec('ip', ['-j', 'addr', 'show', 'keep0']))).to.deep.equal(plain(before));
  });
});
