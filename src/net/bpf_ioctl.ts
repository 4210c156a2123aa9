/**
 * The ioctls of bpf(4) by name and number, after bpfioctl in sys/net/bpf.c. Structs have the layout of
 * FreeBSD on amd64. Pointers do not exist here: the argument of BIOCSETF, BIOCSETFNR and BIOCSETWF is
 * the array of struct bpf_insn itself, and the list of BIOCGDLTLIST follows its struct. Left out:
 * shared buffers (BIOCGETZMAX, BIOCROTZBUF, BIOCSETZBUF) and signals (BIOCGRSIG, BIOCSRSIG).
 */

import { bpf_validate, type BpfProgram, bpfProgram } from '../sys/bpf_filter.ts';
import { EBUSY, EINVAL, ENOMEM, ENOTTY, ENXIO, EPERM, type Errno } from '../sys/errno.ts';
import { BPF_D_IN, BPF_D_INOUT, BPF_D_OUT, bpfOf } from './bpf.ts';
import {
  BPF_MINBUFSIZE,
  BPF_T_FAST,
  BPF_T_FORMAT_MASK,
  BPF_T_MONOTONIC,
  type BpfDesc,
  V_bpf,
} from './bpf_desc.ts';
import { ifpromisc, ifunit } from './if.ts';

const NONE = 0x20000000;
const OUT = 0x40000000;
const IN = 0x80000000;
const INOUT = 0xc0000000;

function request(dir: number, nr: number, size: number, group = 'B'): number {
  return dir + size * 0x10000 + group.charCodeAt(0) * 0x100 + nr;
}

/** Requests by name. @see bpf(4), sys/net/bpf.h */
export const bpfIoctls = {
  BIOCGBLEN: request(OUT, 102, 4),
  BIOCSBLEN: request(INOUT, 102, 4),
  BIOCSETF: request(IN, 103, 16),
  BIOCFLUSH: request(NONE, 104, 0),
  BIOCPROMISC: request(NONE, 105, 0),
  BIOCGDLT: request(OUT, 106, 4),
  BIOCGETIF: request(OUT, 107, 32),
  BIOCSETIF: request(IN, 108, 32),
  BIOCSRTIMEOUT: request(IN, 109, 16),
  BIOCGRTIMEOUT: request(OUT, 110, 16),
  BIOCGSTATS: request(OUT, 111, 8),
  BIOCIMMEDIATE: request(IN, 112, 4),
  BIOCVERSION: request(OUT, 113, 4),
  BIOCGHDRCMPLT: request(OUT, 116, 4),
  BIOCSHDRCMPLT: request(IN, 117, 4),
  BIOCGDIRECTION: request(OUT, 118, 4),
  BIOCSDIRECTION: request(IN, 119, 4),
  BIOCGSEESENT: request(OUT, 118, 4),
  BIOCSSEESENT: request(IN, 119, 4),
  BIOCSDLT: request(IN, 120, 4),
  BIOCGDLTLIST: request(INOUT, 121, 16),
  BIOCLOCK: request(NONE, 122, 0),
  BIOCSETWF: request(IN, 123, 16),
  BIOCFEEDBACK: request(IN, 124, 4),
  BIOCGETBUFMODE: request(OUT, 125, 4),
  BIOCSETBUFMODE: request(IN, 126, 4),
  BIOCSETFNR: request(IN, 130, 16),
  BIOCGTSTAMP: request(OUT, 131, 4),
  BIOCSTSTAMP: request(IN, 132, 4),
  FIONREAD: request(OUT, 127, 4, 'f'),
} as const;

type BpfIoctlName = keyof typeof bpfIoctls;

const BPF_BUFMODE_BUFFER = 1;

/** What a locked descriptor accepts. */
const LOCKED: ReadonlySet<BpfIoctlName> = new Set([
  'BIOCGBLEN',
  'BIOCFLUSH',
  'BIOCGDLT',
  'BIOCGDLTLIST',
  'BIOCGETIF',
  'BIOCGRTIMEOUT',
  'BIOCGSTATS',
  'BIOCVERSION',
  'BIOCGHDRCMPLT',
  'BIOCGDIRECTION',
  'BIOCSTSTAMP',
  'BIOCFEEDBACK',
  'BIOCGTSTAMP',
  'BIOCSRTIMEOUT',
  'BIOCIMMEDIATE',
  'BIOCLOCK',
  'FIONREAD',
]);

const byNumber = new Map<number, BpfIoctlName>();
for (const [name, number] of Object.entries(bpfIoctls))
  if (!byNumber.has(number)) byNumber.set(number, name as BpfIoctlName);

/** The program in an array of struct bpf_insn; null if it has no whole number of instructions. */
function programOf(arg: Uint8Array): BpfProgram | null {
  if (arg.length % 8 !== 0) return null;
  const view = new DataView(arg.buffer, arg.byteOffset, arg.length);
  const insns: number[][] = [];
  for (let at = 0; at < arg.length; at += 8)
    insns.push([
      view.getUint16(at, true),
      view.getUint8(at + 2),
      view.getUint8(at + 3),
      view.getUint32(at + 4, true),
    ]);
  return bpfProgram(insns);
}

/** BIOCSETF, BIOCSETFNR, BIOCSETWF. */
function setFilter(d: BpfDesc, arg: Uint8Array, name: string): Errno {
  if (arg.length / 8 > V_bpf(d.vnet).maxinsns) return EINVAL;
  const program = programOf(arg);
  if (program === null || !bpf_validate(program)) return EINVAL;
  const filter = program.length === 0 ? null : program;
  if (name === 'BIOCSETWF') d.bd_wfilter = filter;
  else d.bd_rfilter = filter;
  if (name === 'BIOCSETF') d.reset();
  return 0;
}

function setIf(d: BpfDesc, arg: Uint8Array): Errno {
  const end = arg.indexOf(0);
  const name = new TextDecoder().decode(arg.subarray(0, end < 0 ? 16 : Math.min(end, 16)));
  const ifp = ifunit(d.vnet, name);
  const bif = ifp === null ? null : bpfOf(ifp);
  if (bif === null) return ENXIO;
  d.attach(bif);
  return 0;
}

/** The smallest argument of a request: that of a filter has any size. */
function argSize(name: BpfIoctlName): number {
  if (name === 'BIOCSETF' || name === 'BIOCSETFNR' || name === 'BIOCSETWF') return 0;
  if (name === 'BIOCSETIF') return 1;
  return Math.floor(bpfIoctls[name] / 0x10000) & 0x1fff;
}

/** Requests that only write their argument. */
function get(d: BpfDesc, name: string, arg: Uint8Array, view: DataView): Errno {
  const int = (n: number): Errno => {
    view.setUint32(0, n, true);
    return 0;
  };
  const { bd_bif: bif } = d;
  switch (name) {
    case 'BIOCGBLEN':
      return int(d.bd_bufsize);
    case 'BIOCGDLT':
      return bif === null ? EINVAL : int(bif.bif_dlt);
    case 'BIOCGDLTLIST': {
      if (bif === null) return EINVAL;
      const room = Math.min(view.getUint32(0, true), Math.floor((arg.length - 16) / 4));
      const counting = arg.length === 16;
      int(1);
      if (counting) return 0;
      if (room < 1) return ENOMEM;
      view.setUint32(16, bif.bif_dlt, true);
      return 0;
    }
    case 'BIOCGETIF':
      if (bif === null) return EINVAL;
      arg.fill(0, 0, 16);
      new TextEncoder().encodeInto(bif.bif_ifp.if_xname, arg.subarray(0, 15));
      return 0;
    case 'BIOCGRTIMEOUT':
      view.setBigInt64(0, BigInt(Math.floor(d.bd_rtout / 1e9)), true);
      view.setBigInt64(8, BigInt(Math.floor((d.bd_rtout % 1e9) / 1000)), true);
      return 0;
    case 'BIOCGSTATS':
      view.setUint32(4, d.bd_dcount, true);
      return int(d.bd_rcount);
    case 'BIOCVERSION':
      view.setUint16(0, 1, true);
      view.setUint16(2, 1, true);
      return 0;
    case 'BIOCGHDRCMPLT':
      return int(d.bd_hdrcmplt ? 1 : 0);
    case 'BIOCGDIRECTION':
      return int(d.bd_direction);
    case 'BIOCGETBUFMODE':
      return int(BPF_BUFMODE_BUFFER);
    case 'BIOCGTSTAMP':
      return int(d.bd_tstamp);
    default:
      return int(d.holdLen + d.storeLen);
  }
}

function setBufferSize(d: BpfDesc, size: number, view: DataView): Errno {
  if (d.hasBuffers || d.bd_bif !== null) return EINVAL;
  d.bd_bufsize = Math.max(BPF_MINBUFSIZE, Math.min(size, V_bpf(d.vnet).maxbufsize));
  view.setUint32(0, d.bd_bufsize, true);
  return 0;
}

function setReadTimeout(d: BpfDesc, view: DataView): Errno {
  const sec = Number(view.getBigInt64(0, true));
  const usec = Number(view.getBigInt64(8, true));
  if (sec < 0 || usec < 0 || usec >= 1e6 || sec > 0x7fffffff) return EINVAL;
  d.bd_rtout = sec * 1e9 + usec * 1000;
  return 0;
}

function promisc(d: BpfDesc): Errno {
  if (d.bd_bif === null) return EINVAL;
  if (d.bd_promisc) return 0;
  const error = ifpromisc(d.bd_bif.bif_ifp, true);
  d.bd_promisc = error === 0;
  return error;
}

/** Requests with an int as argument. */
function setInt(d: BpfDesc, name: string, value: number): Errno {
  switch (name) {
    case 'BIOCIMMEDIATE':
      d.bd_immediate = value !== 0;
      return 0;
    case 'BIOCSHDRCMPLT':
      d.bd_hdrcmplt = value !== 0;
      return 0;
    case 'BIOCSDIRECTION':
      if (value !== BPF_D_IN && value !== BPF_D_INOUT && value !== BPF_D_OUT) return EINVAL;
      d.bd_direction = value;
      return 0;
    case 'BIOCSDLT':
      if (d.bd_bif === null || d.bd_bif.bif_dlt !== value) return EINVAL;
      d.reset();
      return 0;
    case 'BIOCFEEDBACK':
      d.bd_feedback = value !== 0;
      return 0;
    case 'BIOCSETBUFMODE':
      if (value !== BPF_BUFMODE_BUFFER) return EINVAL;
      return d.hasBuffers || d.bd_bif !== null ? EBUSY : 0;
    default:
      // BIOCSTSTAMP
      if ((value & ~(BPF_T_FORMAT_MASK | BPF_T_FAST | BPF_T_MONOTONIC)) !== 0) return EINVAL;
      d.bd_tstamp = value;
      return 0;
  }
}

/**
 * A request, by name or number. `arg` is the struct, which some requests write. ENOTTY: unknown
 * request. EPERM: the descriptor is locked. EINVAL: the argument is too short or not valid.
 * @see bpf(4), ioctl(2)
 */
export function bpfioctl(d: BpfDesc, what: string | number, arg: Uint8Array): Errno {
  const number = typeof what === 'number' ? what : (bpfIoctls as Record<string, number>)[what];
  const name = number === undefined ? undefined : byNumber.get(number >>> 0);
  if (name === undefined) return ENOTTY;
  if (d.bd_locked && !LOCKED.has(name)) return EPERM;
  if (arg.length < argSize(name)) return EINVAL;
  const view = new DataView(arg.buffer, arg.byteOffset, arg.length);
  switch (name as string) {
    case 'BIOCSETF':
    case 'BIOCSETFNR':
    case 'BIOCSETWF':
      return setFilter(d, arg, name);
    case 'BIOCFLUSH':
      d.reset();
      return 0;
    case 'BIOCLOCK':
      d.bd_locked = true;
      return 0;
    case 'BIOCPROMISC':
      return promisc(d);
    case 'BIOCSETIF':
      return setIf(d, arg);
    case 'BIOCSBLEN':
      return setBufferSize(d, view.getUint32(0, true), view);
    case 'BIOCSRTIMEOUT':
      return setReadTimeout(d, view);
    default:
      return bpfIoctls[name] >= IN && bpfIoctls[name] < INOUT
        ? setInt(d, name, view.getUint32(0, true))
        : get(d, name, arg, view);
  }
}
