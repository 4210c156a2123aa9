/** A machine with one `tp`, its driver attached, on a wire held by the test. */

import { expect } from 'chai';
import type { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { inPass } from '../../src/sys/pass.ts';
import { deviceSramOff, mem, memView } from '../../src/vm/arena.ts';
import { m_freem, m_getcl } from '../../src/kern/kern_mbuf.ts';
import { type Mbuf, M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { IntrVector } from '../../src/bus/intr.ts';
import { ifhwioctl, if_up } from '../../src/net/if.ts';
import { IFF_UP, Ifnet, SIOCSIFFLAGS } from '../../src/net/if_var.ts';
import { TpDevice } from '../../src/dev/tp/tp.ts';
import { tp_attach, tp_detach } from '../../drivers/if_tp.ts';
import { TpSoftc } from '../../drivers/if_tpvar.ts';
import { FakeWire } from '../dev/fake_wire.ts';
import { chainBytes } from '../kern/chains.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';

export const MAC = [2, 0, 0, 0, 0, 1];

export class TpHost {
  readonly clock: ManualClock;
  readonly wire = new FakeWire();
  readonly dev: TpDevice;
  readonly intr: IntrVector;
  readonly ifp: Ifnet;
  /** Frames passed to if_input. */
  readonly received: Uint8Array[] = [];
  /** Called for each frame after it was freed. */
  onInput: () => void = () => {};

  constructor() {
    this.clock = bootMachine();
    this.intr = new IntrVector(this.clock);
    this.dev = new TpDevice({
      intr: this.intr,
      wire: this.wire,
      clock: this.clock,
      mem,
      view: memView,
      sramOff: deviceSramOff(),
      mac: Uint8Array.from(MAC),
    });
    this.ifp = new Ifnet(vnet_alloc(new SeededPrng(1)), 'tp0');
    expect(tp_attach(this.ifp, this.dev, this.intr)).to.equal(0);
    this.ifp.if_input = (ifp, m): void => {
      expect(m.m_pkthdr.rcvif).to.equal(ifp);
      expect(m.m_pkthdr.len).to.equal(chainBytes(m).length);
      this.received.push(chainBytes(m));
      m_freem(m);
      this.onInput();
    };
  }

  get sc(): TpSoftc {
    return this.ifp.if_softc as TpSoftc;
  }

  up(): this {
    inPass(() => {
      if_up(this.ifp);
      expect(ifhwioctl(this.ifp, SIOCSIFFLAGS, this.ifp.if_flags | IFF_UP)).to.equal(0);
    });
    this.clock.runPosted();
    return this;
  }

  counter(index: number): number {
    return this.ifp.counters[index]!;
  }

  /** Passes frames to the driver in one pass. Interrupts that follow wait for `turn`. */
  send(...chains: Mbuf[]): number[] {
    const errors = inPass(() => chains.map((m) => this.ifp.if_driver!.if_transmit(this.ifp, m)));
    return errors;
  }

  /** Runs the posted turns until none is left. */
  turn(): this {
    this.clock.runPosted();
    return this;
  }

  inject(...frames: Uint8Array[]): void {
    for (const frame of frames) {
      this.wire.inject(frame);
      this.turn();
    }
  }

  /** A packet in one cluster. */
  packet(bytes: Uint8Array): Mbuf {
    const m = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
    mem.set(bytes, m.m_data);
    m.m_len = m.m_pkthdr.len = bytes.length;
    return m;
  }

  /** Detaches the driver, and checks for leaks. */
  down(): void {
    tp_detach(this.ifp);
    this.dev.close();
    this.turn();
    expectMachineClean();
  }
}
