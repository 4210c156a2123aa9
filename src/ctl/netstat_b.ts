/**
 * `netstat -B`, after usr.bin/netstat/bpf.c: the descriptors of bpf(4), and the captures, which FreeBSD
 * does not have, with one line for each of their points.
 */

import type { Vnet } from '../kern/vnet.ts';
import { BPF_D_IN, BPF_D_OUT } from '../net/bpf.ts';
import { type BpfDesc, V_bpf } from '../net/bpf_desc.ts';
import { openCaptures } from '../net/capture.ts';
import { capturePoints } from '../sys/capture.ts';

/** A peer of bpf(4), or a point of a capture. */
export interface BpfLine {
  pid: number;
  /** The interface; null: the descriptor has none. */
  if: string | null;
  /** The point of a capture; null: a descriptor of bpf(4). */
  point: string | null;
  promiscuous: boolean;
  immediate: boolean;
  header_complete: boolean;
  direction: 'in' | 'out' | 'inout';
  feedback: boolean;
  async: boolean;
  locked: boolean;
  received: number;
  dropped: number;
  matched: number;
  /** Bytes in the store and hold buffers. A capture has none: its packets wait in the capture ring. */
  store_bytes: number;
  hold_bytes: number;
  command: string;
}

const COMMAND = 'tapnic';

function directionOf(direction: number): BpfLine['direction'] {
  if (direction === BPF_D_IN) return 'in';
  return direction === BPF_D_OUT ? 'out' : 'inout';
}

function descLine(d: BpfDesc): BpfLine {
  return {
    pid: process.pid,
    if: d.bd_bif?.bif_ifp.if_xname ?? null,
    point: null,
    promiscuous: d.bd_promisc,
    immediate: d.bd_immediate,
    header_complete: d.bd_hdrcmplt,
    direction: directionOf(d.bd_direction),
    feedback: d.bd_feedback,
    async: false,
    locked: d.bd_locked,
    received: d.bd_rcount,
    dropped: d.bd_dcount,
    matched: d.bd_fcount,
    store_bytes: d.storeLen,
    hold_bytes: d.holdLen,
    command: COMMAND,
  };
}

/** Gathers the descriptors that are attached to an interface, as FreeBSD does, and the captures. */
export function gatherNetstatB(vnet: Vnet): BpfLine[] {
  const lines: BpfLine[] = [];
  for (const d of V_bpf(vnet).descs) if (d.bd_bif !== null) lines.push(descLine(d));
  for (const capture of openCaptures())
    for (const { ifp, point, received, accepted } of capture.places) {
      if (ifp.if_vnet !== vnet) continue;
      lines.push({
        pid: process.pid,
        if: ifp.if_xname,
        point: capturePoints[point]!,
        promiscuous: false,
        immediate: true,
        header_complete: false,
        direction: 'inout',
        feedback: false,
        async: false,
        locked: false,
        received,
        dropped: capture.drops,
        matched: accepted,
        store_bytes: 0,
        hold_bytes: 0,
        command: COMMAND,
      });
    }
  return lines;
}

function flagsOf(line: BpfLine): string {
  return [
    line.promiscuous ? 'p' : '-',
    line.immediate ? 'i' : '-',
    line.header_complete ? '-' : 'f',
    { in: '-', out: 'o', inout: 's' }[line.direction],
    line.feedback ? 'b' : '-',
    line.async ? 'a' : '-',
    line.locked ? 'l' : '-',
  ].join('');
}

const WIDTHS = [5, 6, 7, 9, 9, 9, 5, 5];
const HEAD = ['Pid', 'Netif', 'Flags', 'Recv', 'Drop', 'Match', 'Sblen', 'Hblen', 'Command'];

function row(cells: readonly (string | number)[]): string {
  return `${cells.map((cell, i) => String(cell).padStart(WIDTHS[i] ?? 0)).join(' ')}\n`;
}

/** Formats the lines. @param only lines of this interface; null: all */
export function formatNetstatB(lines: readonly BpfLine[], only: string | null): string {
  let text = row(HEAD);
  for (const line of lines) {
    if (only !== null && line.if !== only) continue;
    const netif = line.point === null ? (line.if ?? '') : `${line.if}@${line.point}`;
    const { pid, received, dropped, matched, store_bytes, hold_bytes, command } = line;
    const counts = [received, dropped, matched, store_bytes, hold_bytes];
    text += row([pid, netif, flagsOf(line), ...counts, command]);
  }
  return text;
}
