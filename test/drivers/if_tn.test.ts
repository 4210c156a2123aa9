import { expect } from 'chai';
import { EAGAIN, EINVAL, ENETDOWN, ENOBUFS, ENXIO } from '../../src/sys/errno.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { counted, R_DRV_HW_ERROR } from '../../src/sys/reason.ts';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import {
  CSUM_IP,
  CSUM_IP6_TCP,
  CSUM_IP6_TSO,
  CSUM_IP6_UDP,
  CSUM_IP_TCP,
  CSUM_IP_TSO,
  CSUM_IP_UDP,
} from '../../src/kern/mbuf.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import {
  IFCAP_LRO,
  IFCAP_NOMAP,
  IFCAP_RXCSUM,
  IFCAP_RXCSUM_IPV6,
  IFCAP_TSO4,
  IFCAP_TSO6,
  IFCAP_TXCSUM,
  IFCAP_TXCSUM_IPV6,
  IFCAP_VLAN_HWTAGGING,
  IFCAP_WOL_MAGIC,
  IFF_DRV_RUNNING,
  IFF_PROMISC,
  IFF_UP,
  Ifnet,
  LINK_STATE_DOWN,
  LINK_STATE_UP,
  SIOCADDMULTI,
  SIOCSIFCAP,
  SIOCSIFFLAGS,
  SIOCSIFMTU,
} from '../../src/net/if_var.ts';
import {
  TN_CTRL,
  TN_CTRL_PROMISC,
  TN_CTRL_LRO,
  TN_CTRL_RXCSUM,
  TN_CTRL_RXCSUM6,
  TN_CTRL_VLSTRIP,
  TN_ICR,
  TN_ICS,
  TN_INT_TXERR,
  TN_MAXFRM,
  TN_RXBSZ,
  TN_TDBAH,
  TN_TDBAL,
} from '../../src/dev/tn/tnreg.ts';
import { ifConsole, ifhwioctl } from '../../src/net/if.ts';
import { TN_CAPABILITIES, tn_attach, tn_stop } from '../../drivers/if_tn.ts';
import { makePacket } from '../dev/judge.ts';
import { expectMachineClean } from '../support/machine.ts';
import { TnHost } from './tn_host.ts';

const HW4 = CSUM_IP | CSUM_IP_TCP | CSUM_IP_UDP;
const HW6 = CSUM_IP6_TCP | CSUM_IP6_UDP;
const ALL = HW4 | HW6 | CSUM_IP_TSO | CSUM_IP6_TSO;

describe('if_tn', () => {
  let host: TnHost;

  beforeEach(() => {
    host = new TnHost();
  });

  afterEach(() => host.down());

  it('attaches with all capabilities of the model enabled', () => {
    const { ifp } = host;
    expect([...ifp.if_lladdr]).to.deep.equal([2, 0, 0, 0, 0, 1]);
    expect(ifp.if_capabilities).to.equal(TN_CAPABILITIES);
    expect(ifp.if_capenable).to.equal(TN_CAPABILITIES);
    // The capabilities of a NIC of that class, plus VLAN_HWTAGGING, VLAN_HWCSUM, VLAN_HWTSO and
    // LRO.
    const besides = 0x10 | 0x80 | 0x40000 | 0x400;
    expect(TN_CAPABILITIES.toString(16)).to.equal((0x468032b | besides).toString(16));
    expect(ifp.if_hwassist).to.equal(ALL);
    expect(ifp.if_link_state).to.equal(LINK_STATE_UP);
    expect([ifp.if_hw_tsomax, ifp.if_hw_tsomaxsegcount]).to.deep.equal([65518, 62]);
  });

  it('returns ENXIO where there is no tn', () => {
    const ifp = new Ifnet(vnet_alloc(new SeededPrng(1)), 'tn1');
    const nothing = { size: 0, read32: () => 0xffffffff, write32: () => {} };
    const error = tn_attach(ifp, nothing, null, new IntrVector(new ManualClock()));
    expect(error).to.equal(ENXIO);
  });

  it('goes up and down, and up again', () => {
    host.up();
    expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(IFF_DRV_RUNNING);
    host.send(host.mapped(makePacket({ payload: 10, cksum: 'full' })));
    host.ifp.if_flags &= ~IFF_UP;
    expect(host.ioctl(SIOCSIFFLAGS, 0)).to.equal(0);
    expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
    expect(host.send(host.mapped(new Uint8Array(60)))).to.deep.equal([ENETDOWN]);
    host.up();
    host.send(host.mapped(makePacket({ payload: 10, cksum: 'full' })));
    host.wire.inject(makePacket({ payload: 10, cksum: 'full' }));
    host.clock.runPosted();
    expect([host.wire.nsent, host.received.length]).to.deep.equal([2, 1]);
  });

  it('discards a full ring and queue when it goes down, and starts empty', () => {
    host.up();
    host.wire.room = 0;
    host.send(...Array.from({ length: 600 }, () => host.mapped(new Uint8Array(60))));
    expect(host.sc.br.used).to.be.above(0);
    host.ifp.if_flags &= ~IFF_UP;
    host.ioctl(SIOCSIFFLAGS, 0);
    expect(host.sc.br.used).to.equal(0);
    host.wire.drain(Infinity);
    host.up();
    host.send(host.mapped(makePacket({ payload: 10, cksum: 'full' })));
    expect(host.wire.nsent).to.equal(1);
  });

  it('stays down when clusters run out, and frees those it has', () => {
    mbufZones().jumbo16.max = 20;
    mbufZones().clust.max = 20;
    host.ifp.if_flags |= IFF_UP;
    expect(host.ioctl(SIOCSIFFLAGS, 0)).to.equal(ENOBUFS);
    expect([mbufZones().jumbo16.current, mbufZones().clust.current]).to.deep.equal([0, 0]);
    mbufZones().clust.max = 10_000;
    host.up();
  });

  describe('SIOCSIFCAP', () => {
    const set = (on: number, off: number): number =>
      ifhwioctl(host.ifp, SIOCSIFCAP, (host.ifp.if_capenable | on) & ~off);
    const has = (cap: number): boolean => (host.ifp.if_capenable & cap) === cap;

    it('disables TSO together with the transmit checksums of the same family', () => {
      expect(set(0, IFCAP_TXCSUM)).to.equal(0);
      expect([has(IFCAP_TXCSUM), has(IFCAP_TSO4), has(IFCAP_TSO6)]).to.deep.equal([
        false,
        false,
        true,
      ]);
      expect(host.ifp.if_hwassist).to.equal(HW6 | CSUM_IP6_TSO);
      expect(set(0, IFCAP_TXCSUM_IPV6)).to.equal(0);
      expect(has(IFCAP_TSO6)).to.equal(false);
      expect(host.ifp.if_hwassist).to.equal(0);
    });

    it('logs on the console when it disables or refuses TSO', () => {
      const console: string[] = [];
      ifConsole.log = (line): void => void console.push(line);
      try {
        set(0, IFCAP_TXCSUM);
        expect(set(IFCAP_TSO4, 0)).to.equal(EAGAIN);
        set(0, IFCAP_TXCSUM_IPV6);
        expect(set(IFCAP_TSO6, 0)).to.equal(EAGAIN);
        // TSO turned off explicitly: no message.
        set(IFCAP_TXCSUM | IFCAP_TSO4, 0);
        set(0, IFCAP_TSO4);
        set(0, IFCAP_TXCSUM);
      } finally {
        ifConsole.log = null;
      }
      expect(console).to.deep.equal([
        'tn0: tso4 disabled due to -txcsum.',
        'tn0: enable txcsum first.',
        'tn0: tso6 disabled due to -txcsum6.',
        'tn0: enable txcsum6 first.',
      ]);
    });

    it('refuses TSO without transmit checksums', () => {
      set(0, IFCAP_TXCSUM);
      expect(set(IFCAP_TSO4, 0)).to.equal(EAGAIN);
      expect(has(IFCAP_TSO4)).to.equal(false);
      expect(set(IFCAP_TSO4 | IFCAP_TXCSUM, 0)).to.equal(0);
      expect(host.ifp.if_hwassist).to.equal(ALL);
    });

    it('turns TSO off and on without changing transmit checksums', () => {
      expect(set(0, IFCAP_TSO4 | IFCAP_TSO6)).to.equal(0);
      expect(host.ifp.if_hwassist).to.equal(HW4 | HW6);
      expect(set(IFCAP_TSO6, 0)).to.equal(0);
      expect(host.ifp.if_hwassist).to.equal(HW4 | HW6 | CSUM_IP6_TSO);
    });

    it('toggles NOMAP without a restart and without other changes', () => {
      host.up();
      const before = host.ifp.if_hwassist;
      expect(set(0, IFCAP_NOMAP)).to.equal(0);
      expect(has(IFCAP_NOMAP)).to.equal(false);
      expect(host.ifp.if_hwassist).to.equal(before);
      expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(IFF_DRV_RUNNING);
      expect(set(IFCAP_NOMAP, 0)).to.equal(0);
      expect(host.ifp.if_capenable).to.equal(TN_CAPABILITIES);
    });

    it('refuses capabilities that the model lacks', () => {
      expect(set(IFCAP_WOL_MAGIC, 0)).to.equal(EINVAL);
      expect(host.ifp.if_capenable).to.equal(TN_CAPABILITIES);
    });

    it('turns LRO on and off in mode wire, and refuses it in mode vnet', () => {
      host.up();
      const lro = (): number => host.dev.read32(TN_CTRL) & TN_CTRL_LRO;
      expect(lro()).to.equal(TN_CTRL_LRO);
      expect(set(0, IFCAP_LRO)).to.equal(0);
      expect(lro()).to.equal(0);
      expect(set(IFCAP_LRO, 0)).to.equal(0);
      expect(lro()).to.equal(TN_CTRL_LRO);
      host.down();
      host = new TnHost('vnet').up();
      expect(host.ifp.if_capabilities).to.equal(TN_CAPABILITIES & ~IFCAP_LRO);
      expect(set(IFCAP_LRO, 0)).to.equal(EINVAL);
      expect(lro()).to.equal(0);
    });

    it('sets VLSTRIP, and RXCSUM of each family, in the NIC', () => {
      host.up();
      const bits = TN_CTRL_VLSTRIP | TN_CTRL_RXCSUM | TN_CTRL_RXCSUM6;
      const modes = (): number => host.dev.read32(TN_CTRL) & bits;
      expect(modes()).to.equal(bits);
      set(0, IFCAP_VLAN_HWTAGGING);
      expect(modes()).to.equal(TN_CTRL_RXCSUM | TN_CTRL_RXCSUM6);
      set(0, IFCAP_RXCSUM);
      expect(modes()).to.equal(TN_CTRL_RXCSUM6);
      set(IFCAP_RXCSUM, IFCAP_RXCSUM_IPV6);
      expect(modes()).to.equal(TN_CTRL_RXCSUM);
      set(0, IFCAP_RXCSUM);
      expect(modes()).to.equal(0);
    });
  });

  it('posts 16 KB buffers, whatever the MTU', () => {
    host.up();
    for (const mtu of [68, 1500, 9000]) {
      expect(host.ioctl(SIOCSIFMTU, mtu)).to.equal(0);
      expect(host.dev.read32(TN_MAXFRM)).to.equal(mtu + 18);
      expect(host.dev.read32(TN_RXBSZ)).to.equal(16384);
      host.wire.inject(makePacket({ payload: mtu - 40, cksum: 'full' }));
      host.clock.runPosted();
      const m = host.received.at(-1)!;
      expect([m.m_pkthdr.len, m.m_len]).to.deep.equal([mtu + 14, mtu + 14]);
    }
  });

  it('SIOCSIFMTU accepts 68 to 9000, and sets the size of smaller buffers to match', () => {
    mbufZones().jumbo16.max = 0;
    host.up();
    for (const bad of [0, 67, 9001, 1500.5, -1])
      expect(host.ioctl(SIOCSIFMTU, bad), `${bad}`).to.equal(EINVAL);
    expect(host.ifp.if_mtu).to.equal(1500);
    for (const [mtu, size] of [
      [68, 2048],
      [2029, 2048],
      [2030, 4096],
      [9000, 4096],
      [1500, 2048],
    ] as const) {
      expect(host.ioctl(SIOCSIFMTU, mtu)).to.equal(0);
      expect(host.dev.read32(TN_MAXFRM)).to.equal(mtu + 18);
      expect(host.dev.read32(TN_RXBSZ)).to.equal(size);
      host.wire.inject(makePacket({ payload: mtu - 40, cksum: 'full' }));
      host.clock.runPosted();
      expect(host.received.at(-1)!.m_pkthdr.len).to.equal(mtu + 14);
    }
  });

  it('sets promiscuous mode and the multicast filter', () => {
    host.up();
    const other = makePacket({ payload: 10, cksum: 'full', dst: [2, 0, 0, 0, 0, 9] });
    const multi = makePacket({ payload: 10, cksum: 'full', dst: [1, 0, 0x5e, 0, 0, 1] });
    host.wire.inject(other, multi);
    host.clock.runPosted();
    expect(host.received.length).to.equal(0);
    host.ifp.if_multiaddrs.push({
      ifma_lladdr: Uint8Array.from([1, 0, 0x5e, 0, 0, 1]),
      ifma_refcount: 1,
    });
    expect(host.ioctl(SIOCADDMULTI, 0)).to.equal(0);
    host.wire.inject(other, multi);
    host.clock.runPosted();
    expect(host.received.length).to.equal(1);
    host.ifp.if_flags |= IFF_PROMISC;
    host.ioctl(SIOCSIFFLAGS, 0);
    expect(host.dev.read32(TN_CTRL) & TN_CTRL_PROMISC).to.equal(TN_CTRL_PROMISC);
    host.wire.inject(other);
    host.clock.runPosted();
    expect(host.received.length).to.equal(2);
  });

  it('reports link state changes', () => {
    host.up();
    host.wire.listener!.wireState(false, 0);
    host.clock.runPosted();
    expect(host.ifp.if_link_state).to.equal(LINK_STATE_DOWN);
    host.wire.listener!.wireState(true, 0);
    host.clock.runPosted();
    expect(host.ifp.if_link_state).to.equal(LINK_STATE_UP);
  });

  it('stops and counts a hardware error when the NIC cannot read its ring', () => {
    host.up();
    tn_stop(host.sc);
    host.up();
    // Foreign writes give the NIC a ring address outside RAM.
    const { dev } = host;
    dev.write32(TN_CTRL, 0);
    dev.write32(TN_TDBAL, 0);
    dev.write32(TN_TDBAH, 0);
    dev.write32(TN_CTRL, 6);
    host.send(host.mapped(makePacket({ payload: 10, cksum: 'full' })));
    expect(counted(R_DRV_HW_ERROR)).to.equal(1);
    expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(0);
  });

  it('acknowledges and ignores TXERR if the engine has not stopped', () => {
    host.up();
    host.dev.write32(TN_ICS, TN_INT_TXERR);
    host.clock.runPosted();
    expect(host.dev.read32(TN_ICR)).to.equal(0);
    expect(host.ifp.if_drv_flags & IFF_DRV_RUNNING).to.equal(IFF_DRV_RUNNING);
  });
});

describe('if_tn, detached', () => {
  it('frees everything, with a full ring, a queue and a received frame pending', () => {
    const host = new TnHost().up();
    host.wire.room = 0;
    host.send(...Array.from({ length: 700 }, () => host.mapped(new Uint8Array(60))));
    host.wire.inject(makePacket({ payload: 10, cksum: 'full' }));
    host.down();
    expectMachineClean();
  });
});
