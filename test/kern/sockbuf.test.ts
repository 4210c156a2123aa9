import { expect } from 'chai';
import { EINPROGRESS } from '../../src/sys/errno.ts';
import { inPass } from '../../src/sys/pass.ts';
import type { Task } from '../../src/sys/clock.ts';
import { m_free, m_freem, m_getcl, mb_free_notready } from '../../src/kern/kern_mbuf.ts';
import {
  type Mbuf,
  M_BLOCKED,
  M_EOR,
  M_NOMAP,
  M_NOWAIT,
  MT_DATA,
  MT_SONAME,
} from '../../src/kern/mbuf.ts';
import { m_copym, m_length } from '../../src/kern/uipc_mbuf.ts';
import {
  SB_NOCOALESCE,
  SB_STOP,
  sbappend,
  sbappendrecord,
  sbappendstream,
  sbavail,
  sbcheck,
  sbcut,
  sbdrop,
  sbflush,
  sbready,
  sbreserve,
  sbsndOff,
  sbsndmbuf,
  sbsndptr_adv,
  sbsndptr_noadv,
  sbParams,
  Sockbuf,
  sbspace,
  sbused,
  sowakeup,
  taskAdd,
  taskRemove,
} from '../../src/kern/uipc_sockbuf.ts';
import { payloadBytesRead, payloadReasons, READ_COPY, READ_SMALL } from '../../src/vm/payload.ts';
import { vmPageCounts } from '../../src/vm/vm_page.ts';
import { bootEach } from './boot.ts';
import { chainBytes, expectBytes, must, pgsMbuf, sfbufMbuf } from './chains.ts';
import { audit, linked, newSockbuf, pending, plain } from './sockbufs.ts';
import { runUpcalls } from '../support/machine.ts';

describe('uipc_sockbuf: accounting', () => {
  bootEach();

  it('charge of a 19-page mbuf: mbcnt 78,080; mcnt 1; ccnt 1', () => {
    const sb = newSockbuf();
    sbappendstream(sb, pgsMbuf({ npgs: 19 }), false);
    expect([sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt]).to.eql([78_080, 1, 1]);
    expect([sb.sb_acc, sb.sb_ccc]).to.eql([77_824, 77_824]);
    sbflush(sb);
    expect([sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt, sb.sb_acc, sb.sb_ccc]).to.eql([0, 0, 0, 0, 0]);
  });

  it('charge of 19 page mbufs: mbcnt 82,688; mcnt 19', () => {
    const sb = newSockbuf();
    for (let i = 0; i < 19; i++) sbappendstream(sb, sfbufMbuf(0, 4096), false);
    expect([sb.sb_mbcnt, sb.sb_mcnt, sb.sb_ccnt]).to.eql([82_688, 19, 19]);
    sbflush(sb);
  });

  it('sbspace is the smaller of free bytes and free memory; it can be negative, and is 0 with SB_STOP', () => {
    const sb = newSockbuf();
    expect(sb.sb_mbmax).to.equal(65_536 * 8);
    expect(sbspace(sb)).to.equal(65_536);
    sbappendstream(sb, pgsMbuf({ npgs: 19 }), false);
    expect(sbspace(sb)).to.equal(65_536 - 77_824);
    sb.sb_mbmax = 78_080 + 10;
    sb.sb_hiwat = 1 << 20;
    expect(sbspace(sb)).to.equal(10);
    sb.sb_flags |= SB_STOP;
    expect(sbspace(sb)).to.equal(0);
    sbflush(sb);
  });

  it('sbreserve returns false above the limit of kern.ipc.maxsockbuf', () => {
    const sb = new Sockbuf();
    const most = Math.floor((2 * 1024 * 1024 * 2048) / (256 + 2048));
    expect(sbreserve(sb, most + 1)).to.equal(false);
    expect(sb.sb_hiwat).to.equal(0);
    expect(sbreserve(sb, most)).to.equal(true);
    expect(sb.sb_mbmax).to.equal(sbParams.sb_max);
  });

  it('sbdrop trims in place, then frees; panics beyond the end', () => {
    const sb = newSockbuf();
    const m = pgsMbuf({ npgs: 2, first: 96 });
    const bytes = chainBytes(m);
    sbappendstream(sb, m, false);
    sbdrop(sb, 5000);
    audit(sb);
    expectBytes(sb.sb_mb, bytes.slice(5000));
    expect(sb.sb_mbcnt).to.equal(256 + 8192); // whole pages, even if partly used
    sbdrop(sb, bytes.length - 5000);
    audit(sb);
    expect(() => sbdrop(sb, 1)).to.throw('len exceeds the data');
  });

  it('sbcut returns the mbufs it removes whole', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    sbappendstream(sb, linked(plain(100), plain(100), plain(100)), false);
    const bytes = chainBytes(sb.sb_mb);
    const cut = sbcut(sb, 250);
    expectBytes(cut, bytes.slice(0, 200));
    expectBytes(sb.sb_mb, bytes.slice(250));
    audit(sb);
    m_freem(cut);
    sbflush(sb);
  });
});

describe('uipc_sockbuf: compression', () => {
  bootEach();

  it('copies up to 512 bytes into a tail with room', () => {
    const sb = newSockbuf();
    const tail = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    tail.m_len = 1000;
    sbappendstream(sb, tail, false);
    const c512 = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    c512.m_len = 512;
    sbappendstream(sb, c512, false);
    expect(sb.sb_mcnt).to.equal(1);
    const c513 = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    c513.m_len = 513;
    sbappendstream(sb, c513, false);
    expect(sb.sb_mcnt).to.equal(2);
    audit(sb);
    sbflush(sb);
  });

  it('does not copy into shared or unmapped mbufs', () => {
    const sb = newSockbuf();
    const tail = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    tail.m_len = 100;
    sbappendstream(sb, tail, false);
    const shared = must(m_copym(tail, 0, 100, M_NOWAIT));
    sbappendstream(sb, plain(10), false);
    expect(sb.sb_mcnt).to.equal(2);
    m_free(shared);
    sbappendstream(sb, pgsMbuf({ npgs: 1, last: 1000 }), false);
    sbappendstream(sb, plain(10), false);
    expect(sb.sb_mcnt).to.equal(4);
    audit(sb);
    sbflush(sb);
  });

  it('does not join mbufs with SB_NOCOALESCE, and frees empty mbufs', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    sbappendstream(sb, linked(plain(1), plain(0), plain(2), plain(0)), false);
    expect([sb.sb_mcnt, sb.sb_ccc]).to.eql([2, 3]);
    audit(sb);
    sbflush(sb);
  });

  it('sbappendstream clears M_EOR', () => {
    const sb = newSockbuf();
    const m = plain(5);
    m.m_flags |= M_EOR;
    sbappendstream(sb, m, false);
    sbappendstream(sb, plain(5), false);
    expect([sb.sb_mcnt, sb.sb_mb!.m_flags]).to.eql([1, 0]);
    sbflush(sb);
  });

  it('224 unmapped bytes become a plain mbuf when appended ready; 225 stay unmapped', () => {
    const sb = newSockbuf();
    const wired = vmPageCounts().wired;
    sbappendstream(sb, pgsMbuf({ npgs: 1, last: 224 }), false);
    expect(sb.sb_mb!.m_flags & M_NOMAP).to.equal(0);
    sbappendstream(sb, pgsMbuf({ npgs: 1, last: 225 }), false);
    expect(sb.sb_mbtail!.m_flags & M_NOMAP).to.equal(M_NOMAP);
    audit(sb);
    expect(vmPageCounts().wired - wired).to.be.below(6);
    sbflush(sb);
  });

  it('counts file bytes copied into the tail as READ_SMALL, on append and in sbready', () => {
    const sb = newSockbuf();
    const tail = must(m_getcl(M_NOWAIT, MT_DATA, 0));
    tail.m_len = 10;
    sbappendstream(sb, tail, false);
    sbappendstream(sb, pgsMbuf({ npgs: 1, last: 300 }), false);
    expect(sb.sb_mcnt).to.equal(1);
    expect(payloadBytesRead(READ_SMALL)).to.equal(300);
    const p = pending({ npgs: 1, last: 100 });
    sbappendstream(sb, p, true);
    const q = pending({ npgs: 1, last: 90 });
    sbappendstream(sb, q, true);
    expect(sbready(sb, p, 1)).to.equal(0);
    expect(sbready(sb, q, 1)).to.equal(0);
    const r = pending({ npgs: 1, last: 50 });
    sbappendstream(sb, linked(r, pending({ npgs: 1, last: 40 })), true);
    expect(sbready(sb, r, 2)).to.equal(0);
    expect(payloadReasons.map((_, i) => payloadBytesRead(i))).to.eql([580, 0, 0, 0, 0, 0]);
    expect(payloadBytesRead(READ_COPY)).to.equal(0);
    audit(sb);
    sbflush(sb);
  });
});

describe('uipc_sockbuf: ready and not ready', () => {
  bootEach();

  it('compress at ready: 200-byte one-page mbuf, refcount 1', () => {
    const sb = newSockbuf();
    const m = pending({ npgs: 1, last: 200 });
    sbappendstream(sb, m, true);
    const before = [sb.sb_mbcnt, sb.sb_ccnt];
    expect(sbready(sb, m, 1)).to.equal(0);
    expect([sb.sb_mbcnt - before[0]!, sb.sb_ccnt - before[1]!]).to.eql([-4096, -1]);
    expect(m.m_flags & M_NOMAP).to.equal(0);
    audit(sb);
    sbflush(sb);
  });

  it('224 unmapped bytes become a plain mbuf when they become ready; 225 stay unmapped', () => {
    const sb = newSockbuf();
    const m = pending({ npgs: 1, last: 224 });
    const n = pending({ npgs: 1, last: 225 });
    sbappendstream(sb, linked(m, n), true);
    expect(sbready(sb, m, 2)).to.equal(0);
    expect([m.m_flags & M_NOMAP, n.m_flags & M_NOMAP]).to.eql([0, M_NOMAP]);
    expect([sb.sb_mbcnt, sb.sb_ccnt]).to.eql([2 * 256 + 4096, 1]);
    audit(sb);
    sbflush(sb);
  });

  it('same with a shadow alive (refcount 2): left as is', () => {
    const sb = newSockbuf();
    const m = pending({ npgs: 1, last: 200 });
    const s = must(m_copym(m, 0, 200, M_NOWAIT));
    sbappendstream(sb, m, true);
    const before = sb.sb_mbcnt;
    expect(sbready(sb, m, 1)).to.equal(0);
    expect(sb.sb_mbcnt).to.equal(before);
    expect(m.m_flags & M_NOMAP).to.equal(M_NOMAP);
    expect(sb.sb_acc).to.equal(200);
    m_free(s);
    sbflush(sb);
  });

  it('sbready counts pages, not mbufs; sb_acc rises when the first mbuf is complete', () => {
    const sb = newSockbuf();
    const a = pending({ npgs: 3 });
    const b = pending({ npgs: 2 });
    sbappendstream(sb, linked(a, b), true);
    expect([sb.sb_acc, sb.sb_ccc]).to.eql([0, 5 * 4096]);
    expect(sbready(sb, a, 2)).to.equal(EINPROGRESS);
    expect(sb.sb_acc).to.equal(0);
    expect(sbready(sb, a, 2)).to.equal(0); // a complete, one page of b
    expect(sb.sb_acc).to.equal(3 * 4096);
    expect(sb.sb_fnrdy).to.equal(b);
    audit(sb);
    expect(sbready(sb, b, 1)).to.equal(0);
    expect(sb.sb_acc).to.equal(5 * 4096);
    audit(sb);
    sbflush(sb);
  });

  it('blocks ready mbufs behind a pending one, and releases them together', () => {
    const sb = newSockbuf();
    const a = pending({ npgs: 1 });
    const b = pending({ npgs: 1, last: 1000 });
    sbappendstream(sb, plain(7), false);
    sbappendstream(sb, a, true);
    sbappendstream(sb, plain(9), false);
    sbappendstream(sb, b, true);
    sbappendstream(sb, plain(11), false);
    const bytes = chainBytes(sb.sb_mb);
    audit(sb);
    expect(sbready(sb, b, 1)).to.equal(EINPROGRESS); // out of order
    audit(sb);
    expect([sbavail(sb), sbused(sb)]).to.eql([7, 7 + 4096 + 9 + 1000 + 11]);
    expect(sbready(sb, a, 1)).to.equal(0);
    audit(sb);
    expect(sbavail(sb)).to.equal(sbused(sb));
    expectBytes(sb.sb_mb, bytes);
    sbflush(sb);
  });

  it('stops at the next pending mbuf', () => {
    const sb = newSockbuf();
    const [a, b] = [pending({ npgs: 1 }), pending({ npgs: 1 })];
    sbappendstream(sb, a, true);
    sbappendstream(sb, plain(5), false);
    sbappendstream(sb, b, true);
    expect(sbready(sb, a, 1)).to.equal(0);
    expect(sb.sb_fnrdy).to.equal(b);
    audit(sb);
    expect(sbready(sb, b, 1)).to.equal(0);
    sbflush(sb);
  });

  it('sbflush does not free a pending mbuf; its I/O frees it', () => {
    const sb = newSockbuf();
    const a = pending({ npgs: 2 });
    const b = pending({ npgs: 1 });
    sbappendstream(sb, linked(a, b), true);
    sbappendstream(sb, plain(5), false);
    sbflush(sb);
    audit(sb);
    expect(a.m_next).to.equal(b);
    mb_free_notready(a, 3);
  });

  it('sb_fnrdy moves to the next pending mbuf when the first one is dropped', () => {
    const sb = newSockbuf();
    const a = pending({ npgs: 1, last: 300 });
    const b = pending({ npgs: 1, last: 400 });
    sbappendstream(sb, a, true);
    sbappendstream(sb, plain(5), false);
    sbappendstream(sb, b, true);
    sbappendstream(sb, plain(7), false);
    sbdrop(sb, 300);
    expect([sb.sb_fnrdy, sb.sb_acc, sb.sb_ccc]).to.deep.equal([b, 5, 412]);
    audit(sb);
    expect(sbready(sb, b, 1)).to.equal(0);
    expect([sb.sb_fnrdy, sb.sb_acc]).to.deep.equal([null, 412]);
    mb_free_notready(a, 1);
    sbflush(sb);
  });

  it('panics when a pending mbuf is trimmed', () => {
    const sb = newSockbuf();
    const a = pending({ npgs: 1 });
    sbappendstream(sb, a, true);
    expect(() => sbdrop(sb, 1)).to.throw('not available');
    sbflush(sb);
    mb_free_notready(a, 1);
  });
});

describe('uipc_sockbuf: sbsndptr', () => {
  bootEach();

  it('sbsndmbuf finds every offset and does not move sb_sndptr', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    sbappendstream(sb, linked(plain(100), plain(1), plain(200)), false);
    const ms = [sb.sb_mb!, sb.sb_mb!.m_next!, sb.sb_mbtail!];
    for (const off of [0, 99, 100, 101, 300, 50, 0, 100]) {
      const [i, at] = off < 100 ? [0, off] : off < 101 ? [1, 0] : [2, off - 101];
      expect(sbsndmbuf(sb, off)).to.equal(ms[i]);
      expect(sbsndOff.off).to.equal(at);
      expect(sb.sb_sndptr).to.equal(null);
    }
    expect(sbsndmbuf(sb, 301)).to.equal(null);
    sbflush(sb);
    expect(sbsndmbuf(sb, 0)).to.equal(null);
  });

  it('sbsndptr_noadv starts at sb_sndptr, or at the first mbuf for an earlier offset', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    sbappendstream(sb, linked(plain(100), plain(1), plain(200)), false);
    const [a, , c] = [sb.sb_mb!, sb.sb_mb!.m_next!, sb.sb_mbtail!];
    const look = (off: number): [Mbuf, number] => [sbsndptr_noadv(sb, off), sbsndOff.off];
    expect(look(0)).to.eql([a, 0]);
    sbsndptr_adv(sb, a, 99);
    expect(look(99)).to.eql([a, 99]);
    sbsndptr_adv(sb, a, 99 + 2);
    expect([sb.sb_sndptr, sb.sb_sndptroff]).to.eql([c, 101]);
    expect(look(101)).to.eql([c, 0]);
    expect(look(150)).to.eql([c, 49]);
    // A retransmission starts at the first mbuf and does not move sb_sndptr.
    expect(look(100)).to.eql([a, 100]);
    sbsndptr_adv(sb, a, 200);
    expect([sb.sb_sndptr, sb.sb_sndptroff]).to.eql([c, 101]);
    // sb_sndptr stays at the last mbuf, because appended data may be copied into it.
    sbsndptr_adv(sb, c, 200);
    expect(look(301)).to.eql([c, 200]);
    audit(sb);
    sbdrop(sb, 100);
    expect(look(1)).to.eql([c, 0]);
    audit(sb);
    sbdrop(sb, 1 + 50);
    audit(sb);
    expect(look(0)).to.eql([c, 0]);
    sbflush(sb);
    expect(() => sbsndptr_noadv(sb, 0)).to.throw('empty');
  });
});

describe('uipc_sockbuf: records', () => {
  bootEach();

  /** Lengths of the mbufs of each record. */
  function shape(sb: Sockbuf): number[][] {
    const out: number[][] = [];
    for (let r = sb.sb_mb; r !== null; r = r.m_nextpkt) {
      out.push([]);
      for (let m: Mbuf | null = r; m !== null; m = m.m_next) out.at(-1)!.push(m.m_len);
    }
    return out;
  }
  function ended(len: number): Mbuf {
    const m = plain(len);
    m.m_flags |= M_EOR;
    return m;
  }

  it('sbappend appends to the last record until M_EOR, then starts a new record', () => {
    const sb = newSockbuf();
    sbappend(sb, plain(10), false);
    sbappend(sb, ended(20), false); // copied into the tail, and M_EOR with it
    expect(shape(sb)).to.eql([[30]]);
    expect(sb.sb_mb!.m_flags & M_EOR).to.equal(M_EOR);
    sbappend(sb, plain(40), false);
    sbappend(sb, plain(200), false);
    expect(shape(sb)).to.eql([[30], [40, 200]]);
    sbcheck(sb);
    sbflush(sb);
    expect([sb.sb_mb, sb.sb_lastrecord, sb.sb_mbtail]).to.eql([null, null, null]);
  });

  it('sbappendrecord starts a new record and moves M_EOR to its last mbuf', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    sbappendrecord(sb, linked(ended(5), plain(6)));
    sbappendrecord(sb, plain(7));
    expect(shape(sb)).to.eql([[5, 6], [7]]);
    expect([sb.sb_mb!.m_flags & M_EOR, sb.sb_mb!.m_next!.m_flags & M_EOR]).to.eql([0, M_EOR]);
    sbcheck(sb);
    sbflush(sb);
  });

  it('sbdrop and sbcut cross record boundaries', () => {
    const sb = newSockbuf();
    sb.sb_flags |= SB_NOCOALESCE;
    for (const m of [linked(plain(5), plain(6)), plain(7), plain(8)]) sbappendrecord(sb, m);
    sbdrop(sb, 6);
    expect(shape(sb)).to.eql([[5], [7], [8]]);
    sbcheck(sb);
    const cut = must(sbcut(sb, 13));
    expect(m_length(cut)).to.equal(12);
    for (let m: Mbuf | null = cut; m !== null; m = m.m_next) expect(m.m_nextpkt).to.equal(null);
    m_freem(cut);
    expect(shape(sb)).to.eql([[7]]);
    sbcheck(sb);
    sbdrop(sb, 7);
    expect([sb.sb_mb, sb.sb_lastrecord, sb.sb_mbtail]).to.eql([null, null, null]);
    sbappendstream(sb, plain(1), false);
    sbcheck(sb);
    sbflush(sb);
  });

  it('sb_ctl counts the bytes of mbufs that are not data', () => {
    const sb = newSockbuf();
    const name = plain(16);
    name.m_type = MT_SONAME;
    name.m_next = plain(50);
    sbappendrecord(sb, name);
    expect([sb.sb_ccc, sb.sb_ctl]).to.eql([66, 16]);
    sbcheck(sb);
    sbdrop(sb, 4);
    expect(sb.sb_ctl).to.equal(12);
    sbcheck(sb);
    sbflush(sb);
    expect(sb.sb_ctl).to.equal(0);
  });

  it('sbappendstream panics when the buffer holds more than one record', () => {
    const sb = newSockbuf();
    sbappendrecord(sb, plain(1));
    sbappendrecord(sb, plain(1));
    const m = plain(1);
    expect(() => sbappendstream(sb, m, false)).to.throw('records');
    m_freem(m);
    sbflush(sb);
  });
});

describe('uipc_sockbuf: sbcheck', () => {
  bootEach();

  it('panics for each wrong counter, pointer and flag', () => {
    const sb = newSockbuf();
    sbappendstream(sb, plain(10), false);
    const p = pending({ npgs: 2 });
    sbappendstream(sb, p, true);
    sbappendstream(sb, plain(10), false);
    sbcheck(sb);
    for (const count of ['sb_acc', 'sb_ccc', 'sb_mbcnt', 'sb_mcnt', 'sb_ccnt', 'sb_ctl'] as const) {
      sb[count]++;
      expect(() => sbcheck(sb), count).to.throw(count);
      sb[count]--;
    }
    for (const place of ['sb_fnrdy', 'sb_lastrecord'] as const) {
      const was = sb[place];
      sb[place] = null;
      expect(() => sbcheck(sb), place).to.throw(place);
      sb[place] = was;
    }
    sb.sb_mbtail!.m_flags &= ~M_BLOCKED;
    expect(() => sbcheck(sb)).to.throw('M_BLOCKED missing');
    sb.sb_mbtail!.m_flags |= M_BLOCKED;
    sb.sb_mb!.m_flags |= M_BLOCKED;
    expect(() => sbcheck(sb)).to.throw('in front');
    sb.sb_mb!.m_flags &= ~M_BLOCKED;
    sb.sb_sndptr = p;
    expect(() => sbcheck(sb)).to.throw('sb_sndptroff');
    sb.sb_sndptr = null;
    sbcheck(sb);
    sbflush(sb);
    mb_free_notready(p, 2);
  });
});

describe('uipc_sockbuf: wake-ups', () => {
  bootEach();

  it('run once per pass: the waiters in order at its end, then the upcall in its turn', () => {
    const sb = newSockbuf();
    const seen: string[] = [];
    const task = (name: string): Task => ({ run: () => void seen.push(name) });
    sb.sb_upcall = task('upcall');
    sb.sb_waiters = taskAdd(taskAdd(sb.sb_waiters, task('a')), task('b'));
    inPass(() => {
      sowakeup(sb);
      sowakeup(sb);
      expect(seen).to.eql([]);
    });
    expect(seen).to.eql(['a', 'b']);
    runUpcalls();
    expect(seen).to.eql(['a', 'b', 'upcall']);
    inPass(sowakeup, sb);
    runUpcalls();
    expect(seen).to.eql(['a', 'b', 'upcall', 'upcall']);
  });

  it('leave a task that waits again for the next wake-up', () => {
    const sb = newSockbuf();
    let runs = 0;
    const again: Task = {
      run: () => {
        runs++;
        sb.sb_waiters = taskAdd(sb.sb_waiters, again);
      },
    };
    sb.sb_waiters = taskAdd(sb.sb_waiters, again);
    inPass(sowakeup, sb);
    expect(runs).to.equal(1);
  });

  it('skip a waiter that another waiter has removed', () => {
    const sb = newSockbuf();
    const seen: string[] = [];
    const withdrawn: Task = { run: () => void seen.push('withdrawn') };
    sb.sb_waiters = taskAdd(sb.sb_waiters, {
      run: () => void taskRemove(sb.sb_waiters, withdrawn),
    });
    sb.sb_waiters = taskAdd(sb.sb_waiters, withdrawn);
    sb.sb_upcall = { run: () => void seen.push('upcall') };
    inPass(sowakeup, sb);
    runUpcalls();
    expect(seen).to.eql(['upcall']);
  });
});
