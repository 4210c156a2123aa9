/**
 * The four transmit paths of a file, distinguished by their counters: unmapped mbufs to the wire,
 * one mapped mbuf per page, converted in ip_output, converted and summed in software.
 */

import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture } from '../support/tshark.ts';

interface NetstatM {
  ext_pgs: { current: number; total: number };
  sendfile: Record<string, number>;
  emulator: {
    unmapped_mbufs_current: number;
    conversions: number;
    sf_bufs: { current: number; peak: number; total: number };
    payload_bytes_read: Record<string, number>;
  };
}

const BYTES = 5_000_000;

describe('netns: the four transmit paths', function () {
  needs('root', 'tap', 'netns', 'curl', 'tshark');
  this.timeout(60_000);

  async function arm(args: string[], mtu = 1500, captured = false): Promise<NetstatM> {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    const capture = site.path('wire.pcap');
    let m!: NetstatM;
    const all = captured ? [...args, '--capture', `wire=${capture}`] : args;
    await withServed(site, [...all, '--mtu', String(mtu)], async (tapnic) => {
      const out = site.path('out');
      const r = await tapnic.curl('-o', out, tapnic.urlOf('file'));
      expect(r.status, r.stderr).to.equal(0);
      expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
      m = await tapnic.json<NetstatM>('netstat', '-m');
    });
    if (captured) await assertCleanCapture(capture, { mtu });
    return m;
  }

  const cpuReads = (m: NetstatM): number =>
    Object.entries(m.emulator.payload_bytes_read).reduce(
      (sum, [reason, n]) => sum + (reason === 'small' ? 0 : n),
      0,
    );

  it('default: nothing is mapped, converted or read by the CPU', async () => {
    const m = await arm([]);
    expect(m.emulator.conversions).to.equal(0);
    expect(m.emulator.sf_bufs.total).to.equal(0);
    expect(cpuReads(m)).to.equal(0);
    expect(m.sendfile['sf_syscalls']).to.equal(1);
  });

  it('the capture at the wire has only valid frames of at most the MTU', async () => {
    const m = await arm([], 1500, true);
    expect(cpuReads(m)).to.equal(0);
    await arm([], 576, true);
    await arm([], 9000, true);
  });

  it('kern.ipc.mb_use_ext_pgs=0: one EXT_SFBUF mbuf per page', async () => {
    const m = await arm(['--sysctl', 'kern.ipc.mb_use_ext_pgs=0']);
    expect(m.emulator.conversions).to.equal(0);
    expect(m.emulator.sf_bufs.total).to.be.at.least(Math.ceil(BYTES / 4096));
    expect(m.ext_pgs.total).to.equal(0);
    expect(m.emulator.sf_bufs.current).to.equal(0);
  });

  it('-nomap: ip_output converts, and the CPU reads no payload', async () => {
    const m = await arm(['--cap=-nomap'], 1500, true);
    expect(m.emulator.conversions).to.be.greaterThan(0);
    expect(m.emulator.sf_bufs.total).to.be.at.least(Math.ceil(BYTES / 4096));
    expect(cpuReads(m)).to.equal(0);
  });

  it('-txcsum: ip_output converts and the CPU sums every byte', async () => {
    const m = await arm(['--cap=-txcsum'], 1500, true);
    expect(m.emulator.conversions).to.be.greaterThan(0);
    const { checksum, small } = m.emulator.payload_bytes_read;
    expect(checksum! + small!).to.be.at.least(BYTES);
  });

  it('mode vnet carries the same bytes', async () => {
    const m = await arm(['--mode', 'vnet']);
    expect(cpuReads(m)).to.equal(0);
  });
});
