import { expect } from 'chai';
import * as fc from 'fast-check';
import { EINVAL, EIO, ENOBUFS, ENXIO } from '../../src/sys/errno.ts';
import {
  counted,
  R_DEV_RX_OVERFLOW,
  R_DRV_HW_ERROR,
  R_DRV_IFQ_FULL,
  R_DRV_RX_ERROR,
  R_DRV_RX_NOBUF,
} from '../../src/sys/reason.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { m_getcl } from '../../src/kern/kern_mbuf.ts';
import {
  EXT_SFBUF,
  M_EXT,
  type Mbuf,
  M_MCAST,
  M_NOMAP,
  M_NOWAIT,
  M_PKTHDR,
  MT_DATA,
} from '../../src/kern/mbuf.ts';
import { m_adj } from '../../src/kern/uipc_mbuf.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { bpfOf } from '../../src/net/bpf.ts';
import { if_addmulti, if_down, ifConsole, ifhwioctl } from '../../src/net/if.ts';
import {
  IFCAP_NOMAP,
  IFCAP_VLAN_MTU,
  IFCOUNTER_IERRORS,
  IFCOUNTER_IPACKETS,
  IFCOUNTER_IQDROPS,
  IFCOUNTER_OBYTES,
  IFCOUNTER_OERRORS,
  IFCOUNTER_OMCASTS,
  IFCOUNTER_OPACKETS,
  IFCOUNTER_OQDROPS,
  IFF_DRV_OACTIVE,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  IFF_UP,
  Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import { IFQ_MAXLEN } from '../../src/net/ifq.ts';
import { payloadBytesRead, payloadReasons, READ_PIO } from '../../src/vm/payload.ts';
import {
  TP_BNRY,
  TP_CR,
  TP_CR_RST,
  TP_CURR,
  TP_IMR,
  TP_MEM_SIZE,
  TP_ST_BAD_PIO,
  TP_ST_BAD_REG,
  TP_ST_RX_OVERFLOWS,
} from '../../src/dev/tp/tpreg.ts';
import { TP_CAPABILITIES, tp_attach } from '../../drivers/if_tp.ts';
import { TP_TXBUFS } from '../../drivers/if_tpvar.ts';
import { frameOf, padded } from '../dev/tp_rig.ts';
import { Chain, chainArb, chainBytes } from '../kern/chains.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { eachFailure } from '../support/fail.ts';
import { TpHost } from './tp_host.ts';

const NHELD = TP_TXBUFS + IFQ_MAXLEN;

describe('if_tp', () => {
  let host: TpHost;
  beforeEach(() => (host = new TpHost()));
  afterEach(() => {
    // The device counted no bad access to a register or the data port.
    expect([host.dev.stats[TP_ST_BAD_REG], host.dev.stats[TP_ST_BAD_PIO]]).to.deep.equal([0, 0]);
    host.down();
  });
  const oactive = (): boolean => (host.ifp.if_drv_flags & IFF_DRV_OACTIVE) !== 0;
  const running = (): boolean => (host.ifp.if_drv_flags & IFF_DRV_RUNNING) !== 0;

  it('attaches without NOMAP and checksum capabilities', () => {
    const { ifp } = host;
    expect([...ifp.if_lladdr]).to.deep.equal([2, 0, 0, 0, 0, 1]);
    expect(TP_CAPABILITIES & IFCAP_NOMAP).to.equal(0);
    expect([ifp.if_capabilities, ifp.if_capenable, ifp.if_hwassist]).to.deep.equal([
      TP_CAPABILITIES,
      TP_CAPABILITIES,
      0,
    ]);
    expect(ifp.if_link_state).to.equal(LINK_STATE_UP);
    expect(ifp.if_snd.ifq_maxlen).to.equal(50);
    expect(ifhwioctl(ifp, SIOCSIFCAP, TP_CAPABILITIES | IFCAP_NOMAP)).to.equal(EINVAL);
    expect(ifhwioctl(ifp, SIOCSIFCAP, 0)).to.equal(0);
    expect(ifhwioctl(ifp, SIOCSIFCAP, IFCAP_VLAN_MTU)).to.equal(0);
    for (const [mtu, error] of [
      [72, 0],
      [1500, 0],
      [1501, EINVAL],
    ] as const)
      expect(ifhwioctl(ifp, SIOCSIFMTU, mtu)).to.equal(error);
  });

  it('returns ENXIO where there is no tp', () => {
    const ifp = new Ifnet(vnet_alloc(new SeededPrng(1)), 'tp1');
    const nothing = { size: 0, read32: () => 0xffffffff, write32: () => {} };
    expect(tp_attach(ifp, nothing, new IntrVector(new ManualClock()))).to.equal(ENXIO);
  });

  describe('transmit', () => {
    it('sends chains of every kind of mbuf, cut anywhere, unchanged', () => {
      host.up();
      fc.assert(
        fc.property(chainArb(), (segs) => {
          const chain = new Chain(segs, 14);
          const { m } = chain;
          if (m.m_pkthdr.len > 1518) m_adj(m, 1518 - m.m_pkthdr.len);
          const bytes = chainBytes(m);
          const files = filePageBytes(m);
          const before = payloadBytesRead(READ_PIO);
          host.wire.sent.length = 0;
          expect(host.send(m)).to.deep.equal([0]);
          host.turn();
          chain.done();
          expect(host.wire.sent.length).to.equal(1);
          expect(Buffer.from(host.wire.sent[0]!).equals(padded(bytes))).to.equal(true);
          expect(payloadBytesRead(READ_PIO) - before, 'file bytes read').to.equal(files);
        }),
        { numRuns: 300 },
      );
      for (const [reason, name] of payloadReasons.entries())
        if (reason !== READ_PIO) expect(payloadBytesRead(reason), name).to.equal(0);
    });

    it('sends any sequence of sizes in order, intact', () => {
      host.up();
      const sizes = fc.array(fc.integer({ min: 14, max: 1514 }), { minLength: 1, maxLength: 40 });
      fc.assert(
        fc.property(sizes, fc.nat(3), (lens, room) => {
          host.wire.sent.length = 0;
          host.wire.room = room;
          const frames = lens.map((len, i) => frameOf(len, i));
          expect(host.send(...frames.map((f) => host.packet(f)))).to.deep.equal(lens.map(() => 0));
          host.turn();
          for (let i = 0; i < 100 && host.wire.sent.length < frames.length; i++) {
            host.wire.drain(1 + (i % 3));
            host.turn();
          }
          host.wire.room = Infinity;
          expect(host.wire.sent.length).to.equal(frames.length);
          for (const [i, f] of frames.entries())
            expect(Buffer.from(host.wire.sent[i]!).equals(padded(f)), `frame ${i}`).to.equal(true);
        }),
        { numRuns: 40 },
      );
    });

    it('fills its buffers, sets OACTIVE and fills if_snd, returns ENOBUFS; then drains again', () => {
      host.up();
      host.wire.room = 0;
      const frames = Array.from({ length: NHELD + 3 }, (_, i) => frameOf(100, i));
      const errors = host.send(...frames.map((f) => host.packet(f)));
      expect(errors.slice(0, NHELD).every((e) => e === 0)).to.equal(true);
      expect(errors.slice(NHELD)).to.deep.equal([ENOBUFS, ENOBUFS, ENOBUFS]);
      expect([oactive(), host.ifp.if_snd.ifq_len]).to.deep.equal([true, IFQ_MAXLEN]);
      expect([host.counter(IFCOUNTER_OQDROPS), counted(R_DRV_IFQ_FULL)]).to.deep.equal([3, 3]);
      expect(host.counter(IFCOUNTER_OBYTES)).to.equal(NHELD * 100);
      expect(host.counter(IFCOUNTER_OPACKETS)).to.equal(0);
      host.wire.drain(1);
      host.turn();
      // One frame has left. The driver refilled its buffer, and the next frame waits for the wire.
      expect([host.wire.nsent, oactive(), host.ifp.if_snd.ifq_len]).to.deep.equal([1, true, 49]);
      host.wire.drain(Infinity);
      host.turn();
      expect([host.wire.nsent, oactive(), host.ifp.if_snd.ifq_len]).to.deep.equal([
        NHELD,
        false,
        0,
      ]);
      expect(host.counter(IFCOUNTER_OPACKETS)).to.equal(NHELD);
      expect(host.wire.sent.map((f) => f[20])).to.deep.equal(
        frames.slice(0, NHELD).map((f) => f[20]),
      );
    });

    it('counts multicast frames, and passes sent frames to bpf', () => {
      host.up();
      const seen: number[] = [];
      bpfOf(host.ifp)!.attach({
        bd_direction: 1,
        bpfPacket: (_ifp, _m, len) => void seen.push(len),
      });
      const m = host.packet(frameOf(70, 0, [1, 0, 0x5e, 0, 0, 1]));
      m.m_flags |= M_MCAST;
      host.send(m, host.packet(frameOf(80)));
      host.turn();
      expect(host.counter(IFCOUNTER_OMCASTS)).to.equal(1);
      expect(seen).to.deep.equal([70, 80]);
    });

    it('continues after wire errors, and drops frames that are too long', () => {
      host.up();
      host.wire.error = -EIO;
      host.send(host.packet(frameOf(100)), host.packet(frameOf(1519)), host.packet(frameOf(101)));
      host.turn();
      expect(host.counter(IFCOUNTER_OERRORS)).to.equal(3);
      host.wire.error = 0;
      host.send(host.packet(frameOf(102)));
      host.turn();
      expect([host.wire.nsent, host.counter(IFCOUNTER_OPACKETS), oactive()]).to.deep.equal([
        1,
        1,
        false,
      ]);
    });

    it('keeps the queue while not running, and drops it when the interface goes down', () => {
      host.send(host.packet(frameOf(60)));
      expect(host.ifp.if_snd.ifq_len, 'not running: waits').to.equal(1);
      host.up();
      expect([host.wire.nsent, host.ifp.if_snd.ifq_len]).to.deep.equal([1, 0]);
      host.wire.room = 0;
      host.send(...Array.from({ length: 20 }, (_, i) => host.packet(frameOf(60, i))));
      if_down(host.ifp);
      expect(host.ifp.if_snd.ifq_len).to.equal(0);
      expect(ifhwioctl(host.ifp, SIOCSIFFLAGS, host.ifp.if_flags & ~IFF_UP)).to.equal(0);
      expect(running()).to.equal(false);
      host.wire.drain(Infinity);
      host.up();
      host.send(host.packet(frameOf(60, 99)));
      host.turn();
      expect(host.wire.nsent, 'frames in the buffers are dropped').to.equal(2);
    });

    it('detaches with frames in every buffer and queue', () => {
      host.up();
      host.wire.room = 0;
      host.send(...Array.from({ length: 30 }, () => host.packet(frameOf(1514))));
      host.wire.inject(frameOf(300));
      // afterEach detaches the driver and checks for leaks.
    });

    it('leaves no garbage', () => {
      host.up();
      host.wire.keep = false;
      const per = bytesPerCall(() => {
        const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
        m.m_len = m.m_pkthdr.len = 401;
        host.sc.if_transmit(host.ifp, m);
        host.clock.runPosted();
      });
      expect(per).to.be.below(8);
    }).timeout(60_000);
  });

  describe('receive', () => {
    it('delivers any sequence of frame sizes intact', () => {
      host.up();
      const sizes = fc.array(fc.integer({ min: 14, max: 1518 }), { minLength: 1, maxLength: 50 });
      fc.assert(
        fc.property(sizes, fc.boolean(), (lens, burst) => {
          host.received.length = 0;
          const frames = lens.map((len, i) => frameOf(len, i));
          if (burst) {
            // All frames are on the wire at once. The device reads eight per turn, and the driver
            // keeps up.
            const { listener } = host.wire;
            host.wire.listener = null;
            host.wire.inject(...frames);
            host.wire.listener = listener;
            host.wire.notify();
            host.turn();
          } else {
            host.inject(...frames);
          }
          expect(host.received.length).to.equal(frames.length);
          for (const [i, f] of frames.entries())
            expect(Buffer.from(host.received[i]!).equals(f), `frame ${i}`).to.equal(true);
        }),
        { numRuns: 60 },
      );
      expect(host.counter(IFCOUNTER_IERRORS)).to.equal(0);
      expect(host.dev.stats[TP_ST_RX_OVERFLOWS]).to.equal(0);
    });

    it('recovers from an overflow, and keeps a frame that waits for transmission', () => {
      host.up();
      host.wire.room = 0;
      host.send(host.packet(frameOf(200, 77)));
      // The interrupt handler runs only when all frames are in.
      for (let i = 0; i < 40; i++) host.wire.inject(frameOf(1514, i));
      expect(host.dev.stats[TP_ST_RX_OVERFLOWS]).to.equal(1);
      host.turn();
      const n = Math.floor(115 / 6);
      expect(host.received.map((f) => f[20])).to.deep.equal(
        Array.from({ length: n }, (_, i) => frameOf(1514, i)[20]),
      );
      expect(counted(R_DEV_RX_OVERFLOW)).to.equal(40 - n);
      expect(host.counter(IFCOUNTER_IERRORS)).to.equal(1);
      host.inject(frameOf(600, 5));
      expect([...host.received.at(-1)!]).to.deep.equal([...frameOf(600, 5)]);
      host.wire.drain(1);
      expect([...host.wire.sent[0]!]).to.deep.equal([...frameOf(200, 77)]);
      host.turn();
      expect(host.counter(IFCOUNTER_OPACKETS)).to.equal(1);
    });

    it('survives repeated overflows while the stack answers each frame', () => {
      host.up();
      host.onInput = () => void host.ifp.if_driver!.if_transmit(host.ifp, host.packet(frameOf(64)));
      for (let round = 0; round < 30; round++) {
        host.wire.room = round % 3 === 0 ? 0 : Infinity;
        for (let i = 0; i < 60; i++) host.wire.inject(frameOf(100 + 23 * i, i));
        host.turn();
        host.wire.drain(Infinity);
        host.turn();
      }
      host.onInput = () => {};
      expect(host.dev.stats[TP_ST_RX_OVERFLOWS]).to.be.above(5);
      expect(host.counter(IFCOUNTER_OPACKETS)).to.equal(host.wire.nsent);
      expect([oactive(), host.ifp.if_snd.ifq_len]).to.deep.equal([false, 0]);
      const before = host.received.length;
      host.inject(frameOf(60));
      expect(host.received.length).to.equal(before + 1);
    });

    for (const pool of ['mbuf', 'mbuf_cluster'])
      it(`drops exactly one frame when an allocation from ${pool} fails`, () => {
        host.up();
        const frames = [60, 100, 166, 1514, 170, 64].map((len, i) => frameOf(len, i));
        const setup = (): void => {
          host.received.length = 0;
        };
        const end = eachFailure(pool, setup, (_none, fired) => {
          host.inject(...frames);
          expect(host.received.length).to.equal(fired() ? 5 : 6);
        });
        expect(end).to.be.above(2);
        expect(counted(R_DRV_RX_NOBUF)).to.equal(end - 1);
        expect(host.counter(IFCOUNTER_IQDROPS)).to.equal(end - 1);
      });

    it('resets the card when its ring is inconsistent', () => {
      host.up();
      host.wire.inject(frameOf(300, 1));
      // Move the boundary away from the page that the device wrote.
      host.dev.write32(TP_BNRY, 40);
      host.sc.nextPage = 40;
      host.turn();
      expect([counted(R_DRV_RX_ERROR), counted(R_DRV_HW_ERROR)]).to.deep.equal([1, 1]);
      expect(running()).to.equal(true);
      host.inject(frameOf(300, 2));
      expect(host.received.map((f) => [...f])).to.deep.equal([[...frameOf(300, 2)]]);
    });

    it('survives a stop and start by the stack during receive', () => {
      host.up();
      let n = 0;
      host.onInput = () => {
        if (++n !== 3) return;
        ifhwioctl(host.ifp, SIOCSIFFLAGS, host.ifp.if_flags & ~IFF_UP);
        expect(running()).to.equal(false);
        ifhwioctl(host.ifp, SIOCSIFFLAGS, host.ifp.if_flags | IFF_UP);
      };
      for (let i = 0; i < 6; i++) host.wire.inject(frameOf(300, i));
      host.turn();
      host.inject(frameOf(300, 9));
      expect(host.received.length).to.equal(4);
      expect([...host.received.at(-1)!]).to.deep.equal([...frameOf(300, 9)]);
      expect(host.dev.read32(TP_CURR)).to.equal(host.sc.nextPage);
      expect(counted(R_DRV_HW_ERROR)).to.equal(0);
    });
  });

  it('does not hang when register reads return all ones, as from a NIC that was removed', () => {
    host.up();
    const { dev } = host;
    const read = dev.read32.bind(dev);
    dev.read32 = () => 0xffffffff;
    host.send(...Array.from({ length: 60 }, () => host.packet(frameOf(100))));
    host.intr.raise();
    for (let i = 0; i < 5; i++) host.turn();
    dev.read32 = read;
    dev.write32(TP_CR, TP_CR_RST);
    expect(host.counter(IFCOUNTER_IPACKETS)).to.equal(0);
    dev.stats[TP_ST_BAD_REG] = 0;
    dev.stats[TP_ST_BAD_PIO] = 0;
  });

  it('drops the frame and resets the card when a data port transfer does not complete', () => {
    host.up();
    const { dev } = host;
    const write = dev.write32.bind(dev);
    let swallowed = false;
    dev.write32 = (off, value): void => {
      if (off === 0x38) {
        swallowed = true;
        write(off, TP_MEM_SIZE / 2);
      } else write(off, value);
    };
    host.send(host.packet(frameOf(100)));
    dev.write32 = write;
    expect(swallowed).to.equal(true);
    expect([counted(R_DRV_HW_ERROR), host.counter(IFCOUNTER_OERRORS)]).to.deep.equal([1, 1]);
    host.send(host.packet(frameOf(101)));
    host.turn();
    expect(host.wire.sent.map((f) => f.length)).to.deep.equal([101]);
  });

  it('sets promiscuous mode and the multicast filter, and reports link state changes', () => {
    host.up();
    const lines: string[] = [];
    ifConsole.log = (line): void => void lines.push(line);
    const group = [1, 0, 0x5e, 0, 0, 1];
    const other = frameOf(60, 0, [2, 0, 0, 0, 0, 9]);
    host.inject(other, frameOf(60, 0, group));
    expect(host.received.length).to.equal(0);
    if_addmulti(host.ifp, Uint8Array.from(group));
    host.inject(other, frameOf(60, 0, group));
    expect(host.received.length).to.equal(1);
    host.ifp.if_flags |= IFF_PROMISC;
    host.ifp.if_driver!.if_ioctl(host.ifp, SIOCSIFFLAGS, host.ifp.if_flags);
    host.inject(other);
    expect(host.received.length).to.equal(2);
    host.wire.listener!.wireState(false, 0);
    host.turn();
    expect(host.ifp.if_link_state).to.equal(LINK_STATE_DOWN);
    host.wire.listener!.wireState(true, 0);
    host.turn();
    ifConsole.log = null;
    expect(lines).to.deep.equal([
      'tp0: link state changed to DOWN',
      'tp0: link state changed to UP',
    ]);
    expect(host.dev.read32(TP_IMR)).to.be.above(0);
  });
});

/**
 * Bytes of file pages in a chain: those between header and trailer of unmapped mbufs, and sf_bufs.
 */
function filePageBytes(top: Mbuf): number {
  let sum = 0;
  for (let m: Mbuf | null = top; m !== null; m = m.m_next) {
    if ((m.m_flags & M_NOMAP) !== 0) {
      const p = m.m_ext.ext_pgs!;
      const pages =
        p.npgs === 1 ? p.last_pg_len : 4096 - p.first_pg_off + (p.npgs - 2) * 4096 + p.last_pg_len;
      const end = Math.min(m.m_data + m.m_len, p.hdr_len + pages);
      sum += Math.max(0, end - Math.max(m.m_data, p.hdr_len));
    } else if ((m.m_flags & M_EXT) !== 0 && m.m_ext.ext_type === EXT_SFBUF) sum += m.m_len;
  }
  return sum;
}
