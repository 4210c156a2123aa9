import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import {
  m_free,
  m_freem,
  m_getcl,
  m_gethdr,
  mb_alloc_ext_pgs,
  mb_unmapped_to_ext,
} from '../../src/kern/kern_mbuf.ts';
import { Callout, callout_reset, callout_stop, timeoutInit } from '../../src/kern/kern_timeout.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { m_copydata } from '../../src/kern/m_copydata.ts';
import { m_copym, M_PREPEND } from '../../src/kern/uipc_mbuf.ts';
import {
  sbappendstream,
  sbdrop,
  sbreserve,
  sbsndOff,
  sbsndptr_noadv,
  Sockbuf,
  sowakeup,
} from '../../src/kern/uipc_sockbuf.ts';
import { soDiscard } from '../../src/kern/uipc_move.ts';
import { SO_RCV, soclose, sorwakeup, soupcall_set } from '../../src/kern/uipc_socket.ts';
import { inPass } from '../../src/sys/pass.ts';
import { kva } from '../../src/sys/types.ts';
import { VM_PAGE_TO_PHYS } from '../../src/vm/vm_page.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { bootEach } from './boot.ts';
import { connectedSocket } from './testproto.ts';
import { must, newPage, scratchPages } from './chains.ts';
import { vm_page_unwire } from '../../src/vm/vm_page.ts';

/** Limit in heap bytes per call. It is not 0 because the measurement itself allocates. */
const NONE = 8;

describe('heap allocation per packet', function () {
  this.timeout(30_000);
  bootEach();

  const noFree = (): void => {};

  function unmapped(page: number): Mbuf {
    const m = must(mb_alloc_ext_pgs(M_NOWAIT, false, noFree));
    const p = m.m_ext.ext_pgs!;
    p.pa[p.pa0] = VM_PAGE_TO_PHYS(page);
    p.npgs = 1;
    p.last_pg_len = 4096;
    m.m_len = 4096;
    m.m_ext.ext_size = 4096;
    return m;
  }

  it('a segment of unmapped data through a socket buffer allocates no heap memory', () => {
    const sb = new Sockbuf();
    sbreserve(sb, 65_536);
    const page = newPage();
    const cycle = (): void => {
      sbappendstream(sb, unmapped(page), false);
      const from = sbsndptr_noadv(sb, 1000);
      const payload = must(m_copym(from, sbsndOff.off, 1448, M_NOWAIT));
      const h = must(m_gethdr(M_NOWAIT, MT_DATA));
      h.m_data += 60;
      h.m_len = 52;
      h.m_next = payload;
      const top = must(M_PREPEND(h, 14, M_NOWAIT));
      sbdrop(sb, 4096);
      m_freem(top);
    };
    expect(bytesPerCall(cycle)).to.be.below(NONE);
    vm_page_unwire(page, false);
  }).timeout(60_000);

  it('received clusters that a program discards in the pass allocate no heap memory', () => {
    const so = connectedSocket(65_536);
    let bytes = 0;
    soupcall_set(so, SO_RCV, {
      run: noFree,
      take: () => (bytes += soDiscard(so)) < 0,
    });
    const receive = (): void => {
      for (let i = 0; i < 4; i++) {
        const m = must(m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR));
        m.m_len = m.m_pkthdr.len = 1448;
        sbappendstream(so.so_rcv, m, false);
        sorwakeup(so);
      }
    };
    expect(bytesPerCall(() => inPass(receive))).to.be.below(NONE);
    expect(so.so_rcv.sb_mbcnt).to.equal(0);
    expect(bytes % (4 * 1448)).to.equal(0);
    soclose(so);
  }).timeout(60_000);

  it('conversion to mapped mbufs allocates no heap memory', () => {
    const page = newPage();
    expect(bytesPerCall(() => m_freem(mb_unmapped_to_ext(unmapped(page))))).to.be.below(NONE);
    vm_page_unwire(page, false);
  }).timeout(60_000);

  it('m_copydata from an unmapped mbuf and a cluster allocate no heap memory', () => {
    const page = newPage();
    const m = unmapped(page);
    const to = scratchPages(1);
    const cycle = (): void => {
      m_copydata(m, 100, 2000, kva(to.off));
      m_free(must(m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)));
    };
    expect(bytesPerCall(cycle)).to.be.below(NONE);
    m_free(m);
    to.free();
    vm_page_unwire(page, false);
  }).timeout(60_000);

  it('callouts, passes and wake-ups allocate no heap memory', () => {
    timeoutInit(new ManualClock());
    const c = new Callout({ run: noFree });
    const sb = new Sockbuf();
    sb.sb_upcall = { run: noFree };
    const cycle = (): void => {
      callout_reset(c, 1000);
      inPass(sowakeup, sb);
      callout_stop(c);
    };
    expect(bytesPerCall(cycle)).to.be.below(NONE);
  }).timeout(60_000);
});
