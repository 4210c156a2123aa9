/**
 * Each NIC model with a real kernel as the peer: what the stack must do for it, and the frames it
 * sends.
 */

import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture } from '../support/tshark.ts';

interface NetstatM {
  emulator: {
    conversions: number;
    sf_bufs: { total: number };
    payload_bytes_read: Record<string, number>;
    dma: { loads: number; bounced: number; defrags: number; faults: number };
  };
}

const BYTES = 3_000_000;

describe('netns: NIC models', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(60_000);

  /** Fetches a file, checks bytes and frames, and returns the counters. */
  async function download(args: string[], mtu = 1500): Promise<NetstatM['emulator']> {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    const capture = site.path('wire.pcap');
    let m!: NetstatM;
    const all = [...args, '--mtu', String(mtu), '--capture', `wire=${capture}`];
    await withServed(site, all, async (tapnic) => {
      expect(tapnic.ready.if).to.equal(`${args[1]}0`);
      expect(tapnic.ready.engine).to.equal('ts');
      const out = site.path('out');
      const r = await tapnic.curl('-o', out, tapnic.urlOf('file'));
      expect(r.status, r.stderr).to.equal(0);
      expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
      m = await tapnic.json<NetstatM>('netstat', '-m');
    });
    await assertCleanCapture(capture, { mtu });
    expect(m.emulator.dma.faults).to.equal(0);
    return m.emulator;
  }

  it('tb: without checksum offload everything is converted and summed', async () => {
    for (const mtu of [1500, 9000]) {
      const m = await download(['--nic', 'tb'], mtu);
      expect(m.conversions).to.be.greaterThan(0);
      const { checksum, small } = m.payload_bytes_read;
      expect(checksum! + small!).to.be.at.least(BYTES);
    }
  });

  it('tl: without NOMAP everything is converted, and long chains are defragmented', async () => {
    const m = await download(['--nic', 'tl']);
    expect(m.conversions).to.be.greaterThan(0);
    expect(m.payload_bytes_read['checksum'], 'the NIC sums').to.equal(0);
    expect(m.dma.defrags).to.be.greaterThan(0);
    expect(m.dma.bounced).to.equal(0);
  });

  it('tl: pages above 4 GiB are bounced', async () => {
    // 4 MiB of RAM are below 4 GiB and the rest above: the file's pages do not fit below.
    const m = await download(['--nic', 'tl', '--memory', '64M', '--phys-base', '0xffc00000']);
    expect(m.dma.bounced).to.be.greaterThan(0);
    expect(m.dma.defrags).to.be.greaterThan(0);
  });
});
