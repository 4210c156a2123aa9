/** tshark's TCP analysis finds no loss, no retransmission and no reordering on a clean wire. */

import { expect } from 'chai';
import { readFileSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { full, needs } from '../support/needs.ts';
import type { Netns } from '../support/netns.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture, tcpRemarks } from '../support/tshark.ts';
import { withRig } from './rig.ts';
import { streamSum } from './streams.ts';

/** Hardly more than the wide window below, so that Linux does not fill it before the program reads. */
const ONE_WINDOW = 2_000_000;
const BYTES = full ? 50_000_000 : ONE_WINDOW;

/** An ACK that only updates the window. */
const UPDATE = /^\d+ [\d.]+: TCP window update$/;
/**
 * Flow control: the sender has filled the window, and the receiver advertises a zero window until
 * its program reads. Linux sends a whole window at once, and FreeBSD's receive buffer grows by half
 * per round trip.
 */
const FLOW_CONTROL =
  /^\d+ [\d.]+: TCP (window update|Zero Window segment|window specified by the receiver is now completely full)$/;

/** As in FreeBSD, an ACK that we send repeats our FIN until the FIN is acknowledged. */
const FIN_REPEATED =
  /^\d+ 192\.0\.2\.2: Connection finish \(FIN\);.*This frame is a \(suspected\) retransmission$/;

describe('tcpreal: tshark analysis of a clean wire', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark', 'capinfos');
  this.timeout(full ? 300_000 : 60_000);

  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-clean-'))));
  after(() => rmSync(dir, { recursive: true, force: true }));

  /**
   * Makes Linux's receive window large enough for everything that is sent, even if its program
   * reads late.
   */
  function roomy(ns: Netns): void {
    ns.exec('sysctl', ['-qw', 'net.ipv4.tcp_rmem=4096 134217728 134217728']);
  }

  async function judge(file: string, mtu: number, allowed: RegExp): Promise<void> {
    await assertCleanCapture(file, { mtu });
    const remarks = await tcpRemarks(file);
    const bad = remarks.filter((remark) => !allowed.test(remark) && !FIN_REPEATED.test(remark));
    expect(bad.slice(0, 10), `${bad.length} remarks`).to.deep.equal([]);
  }

  for (const mtu of [1500, 9000]) {
    it(`MTU ${mtu}: finds nothing in downloads by sendfile`, async () => {
      using site = new Site();
      const file = join(dir, `serve${mtu}.pcap`);
      const sums = [1, 1000, 70_000, BYTES].map((size) => sha256(site.file(`f${size}`, size)));
      await withServed(
        site,
        ['--mtu', String(mtu), '--capture', `wire=${file}`],
        async (tapnic) => {
          roomy(tapnic.ns);
          const names = [1, 1000, 70_000, BYTES].map((size) => `f${size}`);
          const out = names.flatMap((name) => ['-o', site.path(`${name}.out`), tapnic.urlOf(name)]);
          expect((await tapnic.curl('--parallel', ...out)).status).to.equal(0);
          expect((await tapnic.curl(...out)).status).to.equal(0);
          for (const [i, name] of names.entries())
            expect(sha256(readFileSync(site.path(`${name}.out`)))).to.equal(sums[i]);
        },
      );
      await judge(file, mtu, UPDATE);
    });

    for (const { windows, allowed, bytes, sysctl } of [
      { windows: 'growing windows', allowed: FLOW_CONTROL, bytes: BYTES, sysctl: {} },
      {
        windows: 'wide windows',
        allowed: UPDATE,
        bytes: ONE_WINDOW,
        sysctl: { 'net.inet.tcp.recvspace': 1_800_000 },
      },
    ])
      it(`MTU ${mtu}: finds nothing in either direction, as server and as client, ${windows}`, async () => {
        const file = join(dir, 'rig.pcap');
        await withRig({ mtu, sysctl, capture: { wire: file } }, async ({ ns, host, peer }) => {
          roomy(ns);
          // Linux sends a tail loss probe when an ACK is 8 ms late, which happens on a busy
          // machine.
          ns.exec('sysctl', ['-qw', 'net.ipv4.tcp_early_retrans=0']);
          const programs = { host, peer };
          for (const [server, at, client, to] of [
            ['host', 'receiveAt', 'peer', 'sendTo'],
            ['host', 'sendAt', 'peer', 'receiveFrom'],
            ['peer', 'sendAt', 'host', 'receiveFrom'],
            ['peer', 'receiveAt', 'host', 'sendTo'],
          ] as const) {
            const args = { port: 5000, bytes };
            await programs[server].ask(at, args);
            const answers = await Promise.all([
              programs[server].ask('result', args),
              programs[client].ask(to, args),
            ]);
            expect(answers).to.deep.include({ bytes, sum: streamSum(bytes) });
          }
        });
        await judge(file, mtu, allowed);
      });
  }
});
