import { expect } from 'chai';
import { TsCksum } from '../../src/host/cksum_ts.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { SimPager } from '../../src/host/sim_pager.ts';
import { handleRequest } from '../../src/ctl/control.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import { ifunit } from '../../src/net/if.ts';
import { Machine } from '../../src/machine/machine.ts';
import { NIC_SLOTS, type NicModel } from '../../src/machine/nic_model.ts';
import { nicModel, nicModels } from '../../src/machine/nic_models.ts';
import { PluggedNic } from '../../src/machine/plugged_nic.ts';
import { TapnicError } from '../../src/sys/errno.ts';
import { arenaBytes } from '../../src/vm/arena.ts';
import { FakeWire } from '../dev/fake_wire.ts';

const MEMORY = 64 << 20;
const MAC = '02:00:5e:00:53:01';

function boot(): Machine {
  const arena = new ArrayBuffer(arenaBytes(MEMORY));
  const clock = new ManualClock();
  return new Machine({
    memory: MEMORY,
    seed: 1,
    clock,
    prng: new SeededPrng(1),
    pager: new SimPager({ arena, clock, prng: new SeededPrng(2) }),
    cksum: new TsCksum(arena),
    arena,
  });
}

/** Returns the `code` of the error that `call` throws. */
function codeOf(call: () => unknown): string {
  try {
    call();
  } catch (e) {
    if (e instanceof TapnicError) return e.code;
    throw e;
  }
  throw new Error('no error');
}

describe('plugged NICs', () => {
  it('are numbered per model, and each has its own device', () => {
    const machine = boot();
    const nics = [...nicModels, ...nicModels].map(
      (model) => new PluggedNic(machine, model, new FakeWire(false), MAC),
    );
    const names = nicModels.map(({ name }) => name);
    expect(nics.map(({ ifp }) => ifp.if_xname)).to.deep.equal([
      ...names.map((name) => `${name}0`),
      ...names.map((name) => `${name}1`),
    ]);
    expect(new Set(nics.map(({ ifp }) => ifp.if_capunit)).size).to.equal(nics.length);
    // A new NIC reuses the number of a removed one.
    nics[0]!.stop();
    nics[0] = new PluggedNic(machine, nicModels[0]!, new FakeWire(false), MAC);
    expect(nics[0].ifp.if_xname).to.equal(`${names[0]}0`);
    for (const nic of nics) nic.stop();
    expect(ifunit(machine.vnet, `${names[0]}0`)).to.equal(null);
    expect(machine.leaked()).to.deep.equal({});
  });

  it('take the interface name from the ifname of the model, not from its name', () => {
    const machine = boot();
    // The identity of Intel's 82540EM as emulators present it.
    const pci = {
      vendor: 0x8086,
      device: 0x100e,
      subvendor: 0x1af4,
      subdevice: 0x1100,
      class: 0x020000,
      revision: 3,
    };
    const e1000: NicModel = { ...nicModel('tn')!, name: 'e1000', ifname: 'em', pci };
    const other: NicModel = { ...nicModel('tb')!, name: 'e1000e', ifname: 'em' };
    const plug = (model: NicModel): PluggedNic =>
      new PluggedNic(machine, model, new FakeWire(false), MAC);
    const nics = [plug(e1000), plug(nicModel('tn')!), plug(other)];
    expect(nics.map(({ ifp }) => ifp.if_xname)).to.deep.equal(['em0', 'tn0', 'em1']);
    expect(ifunit(machine.vnet, 'em0')).to.equal(nics[0]!.ifp);
    const target = { vnet: machine.vnet, info: {} };
    const answer = handleRequest(target, { id: 1, cmd: 'ifconfig', args: { if: 'em0' } });
    if (!answer.ok) throw new Error(answer.err.message);
    expect((answer.data as InterfaceInfo).name).to.equal('em0');
    // The unit number is free after stop, for every model with this ifname.
    nics[0]!.stop();
    expect(ifunit(machine.vnet, 'em0')).to.equal(null);
    nics[0] = plug(other);
    expect(nics[0].ifp.if_xname).to.equal('em0');
    for (const nic of nics) nic.stop();
    expect(machine.leaked()).to.deep.equal({});
  });

  it('have a valid PCI identity that differs between models', () => {
    const words = ({ pci }: NicModel): number[] => [
      pci.vendor,
      pci.device,
      pci.subvendor,
      pci.subdevice,
    ];
    for (const model of nicModels) {
      for (const id of words(model)) expect(id, model.name).to.be.within(0, 0xffff);
      expect(model.pci.class >>> 16, 'a network controller').to.equal(2);
      expect(model.pci.revision).to.be.within(0, 0xff);
    }
    expect(new Set(nicModels.map((model) => words(model).join())).size).to.equal(nicModels.length);
  });

  it('fail with EBUSY when all slots are in use', () => {
    const machine = boot();
    const tn = nicModel('tn')!;
    const plug = (): PluggedNic => new PluggedNic(machine, tn, new FakeWire(false), MAC);
    const nics = Array.from({ length: NIC_SLOTS }, plug);
    expect(codeOf(plug)).to.equal('EBUSY');
    nics.pop()!.stop();
    nics.push(plug());
    for (const nic of nics) nic.stop();
    expect(machine.leaked()).to.deep.equal({});
  });

  it('fail with EINVAL for a build or mode that the model lacks', () => {
    const machine = boot();
    for (const model of nicModels) {
      const wire = new FakeWire(!model.modes.includes('wire'));
      const lacking = (['ts', 'native'] as const).filter((b) => !model.builds.includes(b));
      for (const build of lacking)
        expect(codeOf(() => new PluggedNic(machine, model, wire, MAC, build))).to.equal('EINVAL');
      if (model.modes.includes('vnet')) continue;
      const vnet = new FakeWire(true);
      expect(codeOf(() => new PluggedNic(machine, model, vnet, MAC))).to.equal('EINVAL');
    }
    const wire = new FakeWire(false);
    // A native build needs a descriptor.
    expect(codeOf(() => new PluggedNic(machine, nicModel('tn')!, wire, MAC, 'native'))).to.equal(
      'EINVAL',
    );
    expect(nicModel('nonesuch')).to.equal(null);
    expect(machine.leaked()).to.deep.equal({});
  });
});
