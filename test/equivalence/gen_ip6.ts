/** Every kind of IPv6 extension header, and chains around the limits of the device. Not random. */

import {
  DSTOPTS,
  type ExtHeader,
  extLen,
  FRAGMENT,
  HOPOPTS,
  makePacket,
  ROUTING,
} from '../dev/judge.ts';
import type { Setup, Step } from './bench.ts';
import { bringUp, sendOf } from './gen.ts';

/** Frames of one script: fewer than the buffers posted. */
const FRAMES = 60;

function chains(): ExtHeader[][] {
  const out: ExtHeader[][] = [[]];
  for (let type = 0; type < 256; type++) out.push([{ type }]);
  for (let units = 0; units < 32; units++)
    for (const type of [HOPOPTS, DSTOPTS, ROUTING]) out.push([{ type, units }]);
  for (let n = 0; n < 11; n++)
    for (const type of [HOPOPTS, DSTOPTS, ROUTING])
      out.push(Array.from({ length: n }, () => ({ type })));
  for (const first of [HOPOPTS, DSTOPTS, ROUTING, FRAGMENT])
    for (const second of [HOPOPTS, DSTOPTS, ROUTING, FRAGMENT])
      for (const left of [0, 1, 2])
        out.push([
          { type: first, left },
          { type: second, left },
        ]);
  return out;
}

function frames(): { bytes: Uint8Array; l4: number; udp: boolean }[] {
  return chains().flatMap((exts, i) => {
    const udp = i % 2 === 1;
    const l4 = 54 + extLen(exts);
    const made = makePacket({
      v6: true,
      udp,
      exts,
      payload: 33,
      cksum: i % 3 === 2 ? 'pseudo' : 'full',
    });
    // Also cut somewhere inside the headers.
    const cut = made.slice(0, 14 + ((i * 13) % (l4 - 6)));
    return [made, cut].map((bytes) => ({ bytes, l4, udp }));
  });
}

/** Scripts that inject all frames, in both modes and with the checksums of either family. */
export function chainScripts(): { setup: Setup; steps: Step[] }[] {
  const all = frames();
  const scripts: { setup: Setup; steps: Step[] }[] = [];
  for (const vnet of [false, true])
    for (const ctrl of [0x40, 0x100, 0x1c0])
      for (let at = 0; at < all.length; at += FRAMES) {
        const steps = bringUp({
          ntx: 8,
          nrx: 64,
          ctrl,
          bufSize: 2048,
          frameMax: 1518,
          mask: 0,
          itr: 0,
          snaplen: 0,
          points: 0,
          meta: false,
        });
        for (const { bytes, l4, udp } of all.slice(at, at + FRAMES)) {
          const hdr = [1, 0, 0, 0, 0, 0, l4 & 0xff, l4 >> 8, udp ? 6 : 16, 0, 0, 0];
          steps.push(sendOf(vnet, { bytes, hdr }));
        }
        steps.push({ do: 'poll' }, { do: 'turn' });
        scripts.push({ setup: { vnet, timer: false, room: 0 }, steps });
      }
  return scripts;
}
