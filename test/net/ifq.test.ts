import { expect } from 'chai';
import * as fc from 'fast-check';
import { SeededPrng } from '../../src/host/prng.ts';
import { m_freem, m_gethdr } from '../../src/kern/kern_mbuf.ts';
import { machineSysctl, SysctlTree } from '../../src/kern/kern_sysctl.ts';
import { type Mbuf, M_MCAST, M_NOWAIT, MT_DATA } from '../../src/kern/mbuf.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import {
  IFCOUNTER_OBYTES,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  IFF_DRV_OACTIVE,
  Ifnet,
} from '../../src/net/if_var.ts';
import {
  IFQ_DRV_DEQUEUE,
  IFQ_DRV_IS_EMPTY,
  IFQ_DRV_PREPEND,
  IFQ_ENQUEUE,
  ifqDefaultMaxlen,
  ifqInit,
  IFQ_MAXLEN,
  IFQ_PURGE,
  IFQ_SET_MAXLEN,
  Ifqueue,
} from '../../src/net/ifq.ts';
import { IfStartDriver } from '../../src/net/ifq_start.ts';
import { EINVAL, ENOBUFS, EPERM, type Errno } from '../../src/sys/errno.ts';
import { counted, R_DRV_IFQ_FLUSHED, R_DRV_IFQ_FULL } from '../../src/sys/reason.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

const packet = (len = 60): Mbuf => {
  const m = m_gethdr(M_NOWAIT, MT_DATA)!;
  m.m_len = m.m_pkthdr.len = len;
  return m;
};

/** A driver with only if_start; the card accepts `room` frames. */
class StartNic extends IfStartDriver {
  room = 0;
  starts = 0;
  readonly lens: number[] = [];
  if_init(): void {}
  if_ioctl(): Errno {
    return 0;
  }
  if_start(ifp: Ifnet): void {
    this.starts++;
    ifp.if_drv_flags &= ~IFF_DRV_OACTIVE;
    for (;;) {
      if (this.room === 0) {
        ifp.if_drv_flags |= IFF_DRV_OACTIVE;
        return;
      }
      const m = IFQ_DRV_DEQUEUE(ifp.if_snd);
      if (m === null) return;
      this.room--;
      this.lens.push(m.m_pkthdr.len);
      m_freem(m);
    }
  }
}

describe('if_snd', () => {
  beforeEach(() => void bootMachine());
  afterEach(() => expectMachineClean());

  it('behaves like a bounded array', () => {
    const ops = fc.array(fc.constantFrom('put', 'put', 'take', 'back'), { maxLength: 60 });
    fc.assert(
      fc.property(ops, fc.integer({ min: 1, max: 8 }), (list, maxlen) => {
        const q = new Ifqueue();
        IFQ_SET_MAXLEN(q, maxlen);
        const want: Mbuf[] = [];
        for (const op of list) {
          if (op === 'put') {
            const m = packet();
            const error = IFQ_ENQUEUE(q, m);
            expect(error).to.equal(want.length >= maxlen ? ENOBUFS : 0);
            if (error === 0) want.push(m);
          } else {
            const m = IFQ_DRV_DEQUEUE(q);
            expect(m).to.equal(want[0] ?? null);
            if (m !== null && op === 'back') IFQ_DRV_PREPEND(q, m);
            else if (m !== null) m_freem(want.shift()!);
          }
          expect([q.ifq_len, IFQ_DRV_IS_EMPTY(q)]).to.deep.equal([want.length, want.length === 0]);
          expect([q.ifq_head, q.ifq_tail]).to.deep.equal([want[0] ?? null, want.at(-1) ?? null]);
        }
        IFQ_PURGE(q);
        expect([q.ifq_len, q.ifq_head, q.ifq_tail]).to.deep.equal([0, null, null]);
      }),
    );
  });

  it('if_transmit: queues, counts, calls if_start unless OACTIVE; a full queue returns ENOBUFS', () => {
    const ifp = new Ifnet(vnet_alloc(new SeededPrng(1)), 'st0');
    const nic = new StartNic();
    ifp.if_driver = nic;
    const send = (m: Mbuf): Errno => ifp.if_driver!.if_transmit(ifp, m);
    nic.room = 2;
    const multicast = packet(100);
    multicast.m_flags |= M_MCAST;
    expect([send(packet(60)), send(multicast), send(packet(61))]).to.deep.equal([0, 0, 0]);
    expect([nic.lens, nic.starts, ifp.if_snd.ifq_len]).to.deep.equal([[60, 100], 2, 1]);
    // OACTIVE is set: packets are only queued from now on.
    for (let i = 1; i < IFQ_MAXLEN; i++) expect(send(packet())).to.equal(0);
    expect([nic.starts, send(packet()), send(packet())]).to.deep.equal([2, ENOBUFS, ENOBUFS]);
    expect([ifp.counters[IFCOUNTER_OQDROPS], counted(R_DRV_IFQ_FULL)]).to.deep.equal([2, 2]);
    expect(ifp.counters[IFCOUNTER_OBYTES]).to.equal(60 + 100 + 61 + 49 * 60);
    expect(ifp.counters[IFCOUNTER_OMCASTS]).to.equal(1);
    expect(ifp.counters[IFCOUNTER_OPACKETS], 'OPACKETS, which the driver counts').to.equal(0);
    // A transmit completion: the driver calls if_start again.
    nic.room = 3;
    nic.if_start(ifp);
    expect([nic.lens, ifp.if_snd.ifq_len]).to.deep.equal([[60, 100, 61, 60, 60], 47]);
    ifp.if_driver.if_qflush(ifp);
    expect([ifp.if_snd.ifq_len, counted(R_DRV_IFQ_FLUSHED)]).to.deep.equal([0, 47]);
  });

  it('net.link.ifqmaxlen: is 50, and is writable until a driver reads it', () => {
    machineSysctl.tree = new SysctlTree();
    ifqInit();
    const { tree } = machineSysctl;
    const name = 'net.link.ifqmaxlen';
    expect(tree.find(name)!.get()).to.equal(50);
    for (const bad of ['0', '-1', '65537', 'x']) expect(tree.write(name, bad)).to.equal(EINVAL);
    expect(tree.write(name, '7')).to.equal(0);
    expect(ifqDefaultMaxlen()).to.equal(7);
    expect(tree.write(name, '8')).to.equal(EPERM);
    expect(ifqDefaultMaxlen()).to.equal(7);
    machineSysctl.tree = new SysctlTree();
    ifqInit();
    expect(ifqDefaultMaxlen()).to.equal(50);
  });
});
