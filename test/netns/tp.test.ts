/** The NIC without DMA: it sends the same bytes, and the CPU reads each of them. */

import { expect } from 'chai';
import { readFileSync, statSync } from 'node:fs';
import type { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { sha256, Site, withServed } from '../support/served.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';
import { pinged } from '../support/ping.ts';

interface NetstatM {
  emulator: {
    unmapped_mbufs_current: number;
    conversions: number;
    sf_bufs: { current: number };
    payload_bytes_read: Record<string, number>;
    dma: Record<string, number>;
  };
}

interface Ifconfig {
  flags_names: string[];
  options_names: string[];
  media: string;
  counters: Record<string, number>;
}

const BYTES = 3_000_000;

/**
 * Bytes of the body in the frames that the emulated host sent, retransmissions included: the
 * payload of its TCP segments without the first `headerBytes` of the stream.
 */
async function bodyBytesSent(capture: string, headerBytes: number): Promise<number> {
  const rows = await tsharkFields(
    capture,
    ['tcp.flags.syn', 'tcp.seq_raw', 'tcp.len'],
    'tcp && ip.src == 192.0.2.2',
  );
  const syn = rows.find(([flag]) => flag === '1' || flag === 'True');
  const start = (Number(syn![1]) + 1) >>> 0;
  let sum = 0;
  for (const [, seq, len] of rows) {
    const at = (Number(seq) - start) | 0;
    const end = at + Number(len);
    sum += Math.max(0, end - Math.max(at, headerBytes));
  }
  return sum;
}

describe('netns: tp, programmed I/O', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping', 'tshark');
  this.timeout(60_000);

  /**
   * Fetches a file over `tp`; returns the counters of netstat and the body bytes in the capture.
   */
  async function fetched(
    args: string[],
    more: (tapnic: Instance) => Promise<void> = async () => {},
  ): Promise<{ m: NetstatM; sent: number }> {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    const capture = site.path('wire.pcap');
    const headers = site.path('headers');
    let m!: NetstatM;
    const all = ['--nic', 'tp', '--capture', `wire=${capture}`, ...args];
    await withServed(site, all, async (tapnic) => {
      const out = site.path('out');
      const r = await tapnic.curl('-D', headers, '-o', out, tapnic.urlOf('file'));
      expect(r.status, r.stderr).to.equal(0);
      expect(sha256(readFileSync(out))).to.equal(sha256(bytes));
      m = await tapnic.json<NetstatM>('netstat', '-m');
      await more(tapnic);
    });
    const mtu = args[args.indexOf('--mtu') + 1];
    await assertCleanCapture(capture, { mtu: args.includes('--mtu') ? Number(mtu) : 1500 });
    return { m, sent: await bodyBytesSent(capture, statSync(headers).size) };
  }

  function expectPio({ m, sent }: { m: NetstatM; sent: number }): void {
    const { payload_bytes_read: read, dma, conversions } = m.emulator;
    expect(sent).to.be.at.least(BYTES);
    // A small segment is copied before the driver reads it, even if if_snd then drops it.
    expect(read['pio']!).to.be.within(sent - read['small']!, sent);
    expect(read['small']!).to.be.below(10_000);
    expect(read['checksum']! + read['small']!, 'summed in software').to.be.at.least(BYTES);
    expect([read['copy'], read['bpf'], read['other']]).to.deep.equal([0, 0, 0]);
    expect([dma['loads'], dma['segments'], dma['bounced'], dma['faults']]).to.deep.equal([
      0, 0, 0, 0,
    ]);
    expect(m.emulator.unmapped_mbufs_current).to.equal(0);
    expect(conversions).to.be.greaterThan(0);
  }

  it('the CPU reads each byte sent and writes it to the data port, without DMA', async () => {
    const result = await fetched([], async (tapnic) => {
      expect(tapnic.ready).to.include({ if: 'tp0', engine: 'ts', mode: 'wire' });
      const { addr } = tapnic.ready;
      expect(await pinged(tapnic.ns, addr, 20, 1472)).to.equal(20);
      expect(await pinged(tapnic.ns, addr, 1, 20_000)).to.equal(1);
      const tp0 = await tapnic.json<Ifconfig>('ifconfig', 'tp0');
      expect(tp0.options_names).to.deep.equal(['VLAN_MTU', 'LINKSTATE']);
      expect(tp0.flags_names).to.include('RUNNING').and.not.include('OACTIVE');
      expect(tp0.media).to.contain('10baseT/UTP');
      expect([tp0.counters['oerrors'], tp0.counters['ierrors']]).to.deep.equal([0, 0]);
    });
    expectPio(result);
  });

  it('the same with a small MTU, and without unmapped mbufs in the socket buffer', async () => {
    expectPio(await fetched(['--mtu', '576']));
    const { m, sent } = await fetched(['--sysctl', 'kern.ipc.mb_use_ext_pgs=0']);
    const { pio, small } = m.emulator.payload_bytes_read;
    expect(pio!).to.be.within(sent - small!, sent);
    expect(m.emulator.conversions).to.equal(0);
  });

  it('net.link.ifqmaxlen is set at start, and read-only afterwards', async () => {
    using site = new Site();
    const args = ['--nic', 'tp', '--sysctl', 'net.link.ifqmaxlen=77'];
    await withServed(site, args, async (tapnic) => {
      const value = await tapnic.command('sysctl', '-n', 'net.link.ifqmaxlen');
      expect(value.stdout).to.equal('77\n');
      const set = await tapnic.command('sysctl', 'net.link.ifqmaxlen=50');
      expect(set.status).to.equal(1);
      expect(set.stderr).to.match(/read.only/);
    });
  });
});
