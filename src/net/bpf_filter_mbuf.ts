/**
 * The BPF filter machine on an mbuf chain, after the chain form of bpf_filter in
 * sys/net/bpf_filter.c (m_xword, m_xhalf). Unmapped mbufs are read without mapping them, a few bytes
 * at a time; the reads are counted for the caller's reason. Unlike FreeBSD, a word may lie in more
 * than two mbufs.
 */

import { type BpfPacket, type BpfProgram, bpfRun } from '../sys/bpf_filter.ts';
import { kva } from '../sys/types.ts';
import { countMappedRead, m_unmappedtouio } from '../kern/m_copydata.ts';
import { type Mbuf, M_NOMAP, mtod } from '../kern/mbuf.ts';
import { mem } from '../vm/arena.ts';
import { Uio, UIO_READ, uiomove } from '../vm/uio.ts';

const $uio = new Uio();
const word = new Uint8Array(4);

/** A chain as packet of the filter machine. */
class Chain implements BpfPacket {
  m: Mbuf | null = null;

  load(off: number, size: number): number {
    // As in FreeBSD, an offset that is computed from X wraps at 2^32.
    off %= 2 ** 32;
    let { m } = this;
    for (; m !== null && off >= m.m_len; m = m.m_next) off -= m.m_len;
    if (m === null) return -1;
    if ((m.m_flags & M_NOMAP) === 0 && size <= m.m_len - off) {
      countMappedRead(m, size);
      return wordAt(mem, mtod(m) + off, size);
    }
    $uio.single(word, 0, size, UIO_READ);
    for (; m !== null && $uio.uio_resid > 0; m = m.m_next, off = 0) {
      const n = Math.min(m.m_len - off, $uio.uio_resid);
      if ((m.m_flags & M_NOMAP) !== 0) {
        m_unmappedtouio(m, off, $uio, n);
      } else {
        countMappedRead(m, n);
        uiomove(kva(mtod(m) + off), n, $uio);
      }
    }
    return $uio.uio_resid > 0 ? -1 : wordAt(word, 0, size);
  }
}

function wordAt(p: Uint8Array, at: number, size: number): number {
  let v = 0;
  for (let i = 0; i < size; i++) v = v * 256 + p[at + i]!;
  return v;
}

const $chain = new Chain();

/**
 * Runs a checked program over the chain `m`, a packet of `wirelen` bytes. Returns the number of bytes
 * to keep, 0 to drop the packet. An empty program keeps everything. Does not change `m`.
 * @see bpf(9)
 */
export function bpfFilterMbuf(prog: BpfProgram, m: Mbuf | null, wirelen: number): number {
  $chain.m = m;
  const keep = bpfRun(prog, $chain, wirelen);
  $chain.m = null;
  return keep;
}
