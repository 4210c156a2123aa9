/**
 * Hostile frames against every NIC model in every mode and build, and through vlan(4) and lagg(4):
 * nothing throws, a connection that was open before still works, and nothing leaks. A failure
 * prints its seed; FRAME_SEED replays it.
 */

import { expect } from 'chai';
import type { NetstatS } from '../../src/ctl/netstat_s.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { nicModels } from '../../src/machine/nic_models.ts';
import { if_clone_create, ifCloned } from '../../src/net/if_clone.ts';
import { lagg_port_create } from '../../src/net/if_lagg.ts';
import { inPass } from '../../src/sys/pass.ts';
import { full } from '../support/needs.ts';
import { inWorld, type World, type WorldOptions } from '../support/world.ts';
import { HostileFrames } from './hostile_frames.ts';

const FRAMES = full ? 200_000 : 1500;
const SEED = Number(process.env['FRAME_SEED'] ?? (full ? Date.now() % 2 ** 31 : 20_261_130));
const VLAN = 7;

/** What lies between the NIC and the address. */
type Top = 'none' | 'vlan' | 'lagg';

function putOn(w: World, top: Top): void {
  if (top === 'none') return;
  inPass(() => {
    const args = top === 'vlan' ? { vlr_parent: w.ifp.if_xname, vlr_tag: VLAN } : null;
    expect(if_clone_create(w.vnet, top === 'vlan' ? `vlan${VLAN}` : 'lagg0', args)).to.equal(0);
    if (top === 'lagg') expect(lagg_port_create(ifCloned.ifp!, w.ifp)).to.equal(0);
  });
  w.address(ifCloned.ifp!);
  if (top === 'vlan') w.port.vlan = VLAN;
}

function attack(options: WorldOptions, top: Top): void {
  const addr = top === 'none' ? {} : { addr: '198.51.100.2/24' };
  inWorld({ ...options, ...addr }, (w) => {
    putOn(w, top);
    const conn = w.connect();
    const file = w.file(20_000);
    const vnet = options.mode === 'vnet';
    const frames = new HostileFrames(new SeededPrng(SEED), vnet, top === 'vlan' ? VLAN : null);
    for (let i = 0; i < FRAMES; i++) {
      w.inject(frames.next());
      if (i % 32 === 31) w.pass(1);
    }
    w.settle();
    // The frames reached the checks of these layers.
    const { reasons } = w.ask('netstat', { report: 's' }) as NetstatS;
    const reached = new Set(reasons.filter((r) => r.count > 0).map((r) => r.layer));
    expect([...reached]).to.include.members(['ether', 'arp', 'ip', 'tcp', 'udp']);
    expect(Buffer.compare(w.transfer(conn, file), file.bytes), `seed ${SEED}`).to.equal(0);
    // Entries for spoofed neighbours, fragments and half-open connections time out.
    w.pass(120_000);
  });
}

describe('matrix: hostile frames', function () {
  this.timeout(full ? 1_800_000 : 60_000);

  for (const model of nicModels)
    for (const mode of model.modes)
      for (const build of model.builds)
        for (const top of ['none', 'vlan', 'lagg'] as const)
          it(`${model.name} ${mode} ${build}, on top: ${top}: ${FRAMES} frames, seed ${SEED}`, () => {
            attack({ model, mode, build }, top);
          });
});
