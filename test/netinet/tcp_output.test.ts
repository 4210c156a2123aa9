import { expect } from 'chai';
import { CSUM_IP, CSUM_IP_TSO, CSUM_TCP, type Mbuf, M_NOTREADY } from '../../src/kern/mbuf.ts';
import { m_freem, mbEmulator } from '../../src/kern/kern_mbuf.ts';
import { PRUS_MORETOCOME, PRUS_NOTREADY } from '../../src/kern/protosw.ts';
import { sbappendstream } from '../../src/kern/uipc_sockbuf.ts';
import { IFCAP_NOMAP, IFCAP_TSO4, IFCAP_TXCSUM } from '../../src/net/if_var.ts';
import { copymLen, tcp_m_copym } from '../../src/netinet/tcp_m_copym.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { ECONNRESET, EINPROGRESS } from '../../src/sys/errno.ts';
import { payloadBytesRead, payloadReasons, READ_SMALL } from '../../src/vm/payload.ts';
import { pgsMbuf } from '../kern/chains.ts';
import { decodeFrame, naiveSum } from '../support/frames.ts';
import { expectMachineClean, machineInUse } from '../support/machine.ts';
import { type Conn, TestHost } from './tcp_host.ts';

const CAPS = IFCAP_TXCSUM | IFCAP_TSO4 | IFCAP_NOMAP;
const ASSIST = CSUM_IP | CSUM_TCP | CSUM_IP_TSO;

/** An unmapped mbuf as sendfile creates it, before its pages are read. */
function pending(npgs: number, last = 4096): Mbuf {
  const m = pgsMbuf({ npgs, last });
  m.m_flags |= M_NOTREADY;
  m.m_ext.ext_pgs!.nrdy = npgs;
  return m;
}

function readsButSmall(): number {
  return payloadReasons.reduce((n, _, i) => n + (i === READ_SMALL ? 0 : payloadBytesRead(i)), 0);
}

describe('tcp_output: data of sendfile', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost({ capabilities: CAPS, hwassist: ASSIST });
    c = h.establish({ ts: { val: 1, ecr: 0 }, wscale: 8 });
    h.chains.length = 0;
  });
  afterEach(() => h.close());

  const send = (m: Mbuf, flags = 0): number => c.so.so_proto.pr_send(c.so, flags, m, null);
  const ready = (m: Mbuf, n: number): number => c.so.so_proto.pr_ready(c.so, m, n);

  it('sends no data before all its pages are ready, and then all of it', () => {
    const m = pending(3, 1000);
    expect(send(m, PRUS_NOTREADY)).to.equal(0);
    h.write(c.so, 'behind');
    expect(h.sent).to.have.length(0);
    expect(c.so.so_snd.sb_acc).to.equal(0);
    expect(ready(m, 1)).to.equal(EINPROGRESS);
    expect(h.sent).to.have.length(0);
    expect(ready(m, 2)).to.equal(0);
    expect(h.sent.reduce((n, f) => n + f.length - 66, 0)).to.equal(2 * 4096 + 1000 + 6);
    expect(h.chains[0]!.unmapped).to.equal(1);
    // The CPU read nothing but the headers.
    expect(readsButSmall()).to.equal(0);
    expect(mbEmulator.conversions).to.equal(0);
  });

  it('sends no FIN before data that is not ready', () => {
    const m = pending(1, 200);
    send(m, PRUS_NOTREADY);
    h.closeSocket(c.so);
    expect(h.sent).to.have.length(0);
    const { so } = c;
    expect(so.so_proto.pr_ready(so, m, 1)).to.equal(0);
    const f = decodeFrame(h.sent[0]!, { l4: 'none', l3: 'none' }).ip!.tcp!;
    expect(f.payload.length).to.equal(200);
    expect(f.flags).to.equal('FP.');
  });

  it('leaves data that is not ready to pr_ready when the connection ends', () => {
    const m = pending(2);
    send(m, PRUS_NOTREADY);
    c.seg({ flags: 'R' });
    expect(c.so.so_snd.sb_ccc).to.equal(0);
    const use = machineInUse();
    expect(ready(m, 2)).to.equal(ECONNRESET);
    expect(machineInUse()['unmapped_mbufs']).to.equal(use['unmapped_mbufs']! - 1);
    // A failing send does not free it either.
    const again = pending(1);
    expect(send(again, PRUS_NOTREADY)).to.equal(ECONNRESET);
    expect(ready(again, 1)).to.equal(ECONNRESET);
    expectMachineClean({ ...machineInUse(), unmapped_mbufs: 0, mbuf_extpgs: 0 });
  });

  it('passes one TSO packet to the NIC, with a pseudo-header sum without length', () => {
    V_tcp(h.vnet).params.initcwnd_segments = 40;
    const w = h.establish({ dport: 81, ts: { val: 1, ecr: 0 }, wscale: 8 });
    h.chains.length = 0;
    const m = pgsMbuf({ npgs: 10 });
    expect(w.so.so_proto.pr_send(w.so, 0, m, null)).to.equal(0);
    // 40960 bytes are 28 segments and a rest. The rest empties the buffer, so it goes in the same
    // packet.
    expect(h.sent).to.have.length(1);
    const [chain] = h.chains;
    expect(chain).to.include({ unmapped: 1, mbufs: 2, csum_data: 16, tso_segsz: 1448 });
    expect(chain!.csum_flags & (CSUM_TCP | CSUM_IP_TSO)).to.equal(CSUM_TCP | CSUM_IP_TSO);
    const [frame] = h.sent;
    expect(frame!.length).to.equal(14 + 20 + 32 + 40960);
    const pseudo = [...frame!.subarray(26, 34), 0, 6];
    expect(frame![50]! * 256 + frame![51]!).to.equal(naiveSum(pseudo));
    expect(readsButSmall()).to.equal(0);
  });

  it('uses only checksum offload for a packet of one segment', () => {
    send(pgsMbuf({ npgs: 1, last: 1448 }));
    expect(h.chains[0]).to.include({ csum_data: 16, tso_segsz: 0, unmapped: 1 });
    expect(h.chains[0]!.csum_flags & CSUM_IP_TSO).to.equal(0);
    decodeFrame(h.sent[0]!, { l4: 'pseudo', l3: 'none' });
  });

  // MHLEN - 52 - max_linkhdr: 168 - 52 - 16.
  it('copies 100 bytes into the header mbuf, but not 101', () => {
    const before = payloadBytesRead(READ_SMALL);
    send(pgsMbuf({ npgs: 1, last: 300 }), PRUS_MORETOCOME);
    h.write(c.so, '');
    const tp = h.tp(c.so);
    // The window splits the 300 bytes: 100, then 101.
    expect(h.chains).to.have.length(0);
    tp.snd_wnd = 100;
    tp.max_sndwnd = 100;
    tp.t_fb.tfb_tcp_output(tp);
    expect(h.chains[0]).to.include({ unmapped: 0, mbufs: 1 });
    expect(payloadBytesRead(READ_SMALL) - before).to.equal(100);
    tp.snd_wnd = 201;
    tp.t_fb.tfb_tcp_output(tp);
    expect(h.chains[1]).to.include({ unmapped: 1, mbufs: 2 });
    expect(payloadBytesRead(READ_SMALL) - before).to.equal(100);
  });

  it('keeps TSO packets within if_hw_tsomax', () => {
    h.ifp.if_hw_tsomax = 20_000;
    h.ifp.if_hw_tsomaxsegcount = 35;
    h.ifp.if_hw_tsomaxsegsize = 4096;
    V_tcp(h.vnet).params.initcwnd_segments = 40;
    const w = h.establish({ dport: 81, ts: { val: 1, ecr: 0 }, wscale: 8 });
    w.so.so_proto.pr_send(w.so, 0, pgsMbuf({ npgs: 10 }), null);
    // (20000 - 72 - 16) / 1448 is 13 segments.
    const lens = h.sent.map((f) => f.length - 66);
    expect(lens).to.deep.equal([13 * 1448, 13 * 1448, 40960 - 26 * 1448]);
  });

  it('stops at if_hw_tsomaxsegcount, in whole segments', () => {
    h.ifp.if_hw_tsomax = 65518;
    h.ifp.if_hw_tsomaxsegcount = 16;
    h.ifp.if_hw_tsomaxsegsize = 4096;
    V_tcp(h.vnet).params.initcwnd_segments = 40;
    const w = h.establish({ dport: 81, ts: { val: 1, ecr: 0 }, wscale: 8 });
    for (let i = 0; i < 3; i++) sbappendstream(w.so.so_snd, pgsMbuf({ npgs: 4 }), false);
    const tp = h.tp(w.so);
    tp.t_fb.tfb_tcp_output(tp);
    const lens = h.sent.map((f) => f.length - 66);
    expect(lens.reduce((a, b) => a + b)).to.equal(12 * 4096);
    for (const len of lens.slice(0, -1)) expect(len % 1448).to.equal(0);
    // A mbuf of four pages counts 4 + 3 DMA segments: two such mbufs fit 16, three do not.
    for (const chain of h.chains) expect(chain.unmapped).to.be.at.most(2);
  });

  it('estimates DMA segments with a page crossing, a header and a trailer', () => {
    const a = pgsMbuf({ npgs: 2 });
    const b = pgsMbuf({ npgs: 2 });
    a.m_next = b;
    // 8192 / min(4096, 4096) + 3 = 5 for each mbuf.
    const cases: [number, number, number][] = [
      [0, 4096, 16384],
      [11, 4096, 16384],
      [10, 4096, 8192],
      [6, 4096, 8192],
      [5, 4096, 8192], // the first mbuf is always taken
      [11, 2048, 8192], // 4 + 3 for each mbuf
    ];
    for (const [segcount, segsize, want] of cases) {
      const n = tcp_m_copym(a, 0, 16384, segcount, segsize);
      expect(copymLen.len, `${segcount} of ${segsize}`).to.equal(want);
      m_freem(n);
    }
    m_freem(a);
  });

  it('stops TSO when the interface loses the capability', () => {
    h.ifp.if_hwassist = CSUM_IP | CSUM_TCP;
    h.ifp.if_capenable &= ~IFCAP_TSO4;
    send(pgsMbuf({ npgs: 3 }));
    expect(h.sent.length).to.be.at.least(8);
    for (const f of h.sent) expect(f.length).to.be.at.most(1514);
  });

  it('maps the payload for an interface without IFCAP_NOMAP', () => {
    h.ifp.if_capenable &= ~IFCAP_NOMAP;
    send(pgsMbuf({ npgs: 1, last: 1000 }));
    expect(h.chains[0]!.unmapped).to.equal(0);
    expect(mbEmulator.conversions).to.equal(1);
  });
});
