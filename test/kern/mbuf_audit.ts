/**
 * Recounts the memory of a set of chains and compares it with every reference count and zone
 * counter. Shares no code with the allocator.
 */

import { expect } from 'chai';
import { mbEmulator, mbufZones } from '../../src/kern/kern_mbuf.ts';
import {
  EXT_CLUSTER,
  EXT_FLAG_EMBREF,
  EXT_JUMBO16,
  EXT_JUMBOP,
  EXT_PGS,
  EXT_SFBUF,
  type Mbuf,
  M_EXT,
  M_NOMAP,
  MT_NOTMBUF,
} from '../../src/kern/mbuf.ts';
import { sfstatBufs } from '../../src/vm/sf_buf.ts';

/** Returns the mbuf that holds the reference count of m's storage. */
function holderOf(m: Mbuf): Mbuf {
  return (m.m_ext.ext_flags & EXT_FLAG_EMBREF) === 0 ? m.m_ext.ext_cnt! : m;
}

/**
 * Fails unless the mbufs in use are exactly those of `chains` and every reference count is right.
 */
export function auditMemory(chains: Iterable<Mbuf | null>): void {
  const live = new Set<Mbuf>();
  let unmapped = 0;
  for (const chain of chains)
    for (let m = chain; m !== null; m = m.m_next) {
      expect(live.has(m), 'an mbuf in two places').to.equal(false);
      expect(m.m_type, 'a freed mbuf in a chain').to.not.equal(MT_NOTMBUF);
      live.add(m);
      if ((m.m_flags & M_NOMAP) !== 0) unmapped++;
    }
  const refs = new Map<Mbuf, number>();
  const refer = (holder: Mbuf): void => {
    const n = refs.get(holder) ?? 0;
    refs.set(holder, n + 1);
    // An EXT_SFBUF storage from a conversion holds one reference to the page list until it is
    // freed.
    if (n === 0 && holder.m_ext.ext_type === EXT_SFBUF && holder.m_ext.ext_arg2 !== null)
      refer(holder.m_ext.ext_arg2 as Mbuf);
  };
  for (const m of live) if ((m.m_flags & M_EXT) !== 0) refer(holderOf(m));
  const byType = new Map<number, number>();
  for (const [holder, n] of refs) {
    const type = holder.m_ext.ext_type;
    byType.set(type, (byType.get(type) ?? 0) + 1);
    expect(holder.m_ext.ext_count, `references of storage of type ${type}`).to.equal(n);
  }
  const { mbuf, clust, jumbop, jumbo16, extpgs } = mbufZones();
  expect({
    mbufs: mbuf.current,
    clusters: clust.current,
    jumbop: jumbop.current,
    jumbo16: jumbo16.current,
    extpgs: extpgs.current,
    sf_bufs: sfstatBufs.current,
    unmapped: mbEmulator.unmappedCurrent,
  }).to.deep.equal({
    mbufs: new Set([...live, ...refs.keys()]).size,
    clusters: byType.get(EXT_CLUSTER) ?? 0,
    jumbop: byType.get(EXT_JUMBOP) ?? 0,
    jumbo16: byType.get(EXT_JUMBO16) ?? 0,
    extpgs: byType.get(EXT_PGS) ?? 0,
    sf_bufs: byType.get(EXT_SFBUF) ?? 0,
    unmapped,
  });
}
