/**
 * Makes socket buffers and mbufs for tests, and recounts a buffer without using code of sbcheck.
 */

import { expect } from 'chai';
import { m_get } from '../../src/kern/kern_mbuf.ts';
import {
  type Mbuf,
  M_BLOCKED,
  M_EXT,
  M_NOTAVAIL,
  M_NOTREADY,
  M_NOWAIT,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { m_last } from '../../src/kern/uipc_mbuf.ts';
import { sbreserve, Sockbuf } from '../../src/kern/uipc_sockbuf.ts';
import { fillPattern, must, type PgsShape, pgsMbuf } from './chains.ts';

/** A send buffer of 64 KiB. */
export function newSockbuf(): Sockbuf {
  const sb = new Sockbuf();
  expect(sbreserve(sb, 65_536)).to.equal(true);
  return sb;
}

export function plain(len: number): Mbuf {
  const m = must(m_get(M_NOWAIT, MT_DATA));
  m.m_len = len;
  fillPattern(m.m_data, len);
  return m;
}

/** A pending unmapped mbuf: all its pages are being read. */
export function pending(shape: PgsShape): Mbuf {
  const m = pgsMbuf(shape);
  m.m_ext.ext_pgs!.nrdy = m.m_ext.ext_pgs!.npgs;
  m.m_flags |= M_NOTREADY;
  return m;
}

export function linked(...ms: Mbuf[]): Mbuf {
  for (let i = 1; i < ms.length; i++) m_last(ms[i - 1]!).m_next = ms[i]!;
  return ms[0]!;
}

/** Recounts the buffer and compares the result with its counters and pointers. */
export function audit(sb: Sockbuf): void {
  let [acc, ccc, mbcnt, mcnt, ccnt] = [0, 0, 0, 0, 0];
  let fnrdy: Mbuf | null = null;
  let tail: Mbuf | null = null;
  let sndptrAt = -1;
  for (let m = sb.sb_mb; m !== null; m = m.m_next) {
    if (m === sb.sb_sndptr) sndptrAt = ccc;
    ccc += m.m_len;
    mcnt++;
    mbcnt += 256;
    if ((m.m_flags & M_EXT) !== 0) {
      ccnt++;
      mbcnt += m.m_ext.ext_size;
    }
    if (fnrdy === null && (m.m_flags & M_NOTREADY) !== 0) fnrdy = m;
    if (fnrdy === null) {
      acc += m.m_len;
      expect(m.m_flags & M_NOTAVAIL, 'flags before the first pending mbuf').to.equal(0);
    } else if ((m.m_flags & M_NOTREADY) === 0) {
      expect(m.m_flags & M_BLOCKED, 'M_BLOCKED after the first pending mbuf').to.equal(M_BLOCKED);
    }
    tail = m;
  }
  const { sb_acc, sb_ccc, sb_mbcnt, sb_mcnt, sb_ccnt } = sb;
  expect({ sb_acc, sb_ccc, sb_mbcnt, sb_mcnt, sb_ccnt }).to.deep.equal({
    sb_acc: acc,
    sb_ccc: ccc,
    sb_mbcnt: mbcnt,
    sb_mcnt: mcnt,
    sb_ccnt: ccnt,
  });
  expect(sb.sb_fnrdy === fnrdy, 'sb_fnrdy').to.equal(true);
  expect(sb.sb_mbtail === tail, 'sb_mbtail').to.equal(true);
  if (sb.sb_sndptr !== null) expect(sb.sb_sndptroff, 'sb_sndptroff').to.equal(sndptrAt);
}
