/**
 * The BPF filter machine of bpf(4), after sys/net/bpf_filter.c. It checks a program once and runs it
 * per packet without allocation, on contiguous bytes or on a packet that a `BpfPacket` reads, such as
 * an mbuf chain (src/net/bpf_filter_mbuf.ts). The compiler for expressions is part of libpcap.
 */

// Class, size, mode, operation, source: bpf(4).
const LD = 0x00;
const LDX = 0x01;
const ST = 0x02;
const STX = 0x03;
const ALU = 0x04;
const JMP = 0x05;
const RET = 0x06;
const SRC_X = 0x08;

/** Number of scratch words. */
const BPF_MEMWORDS = 16;
/** The most instructions that a kernel accepts. */
export const BPF_MAXINSNS = 512;

/** Words per instruction in a program: code, jt, jf, k. */
const WORDS = 4;

/** A program: four words per instruction, `code`, `jt`, `jf` and `k`. */
export type BpfProgram = Uint32Array;

/** Creates a program from [code, jt, jf, k] tuples, without checks. */
export function bpfProgram(insns: readonly (readonly number[])[]): BpfProgram {
  return Uint32Array.from(insns.flatMap((i) => [i[0]!, i[1]!, i[2]!, i[3]!]));
}

const CODES = new Set([
  0x00, 0x01, 0x02, 0x03, 0x04, 0x05, 0x06, 0x07, 0x0c, 0x14, 0x15, 0x16, 0x1c, 0x1d, 0x20, 0x24,
  0x25, 0x28, 0x2c, 0x2d, 0x30, 0x34, 0x35, 0x3c, 0x3d, 0x40, 0x44, 0x45, 0x48, 0x4c, 0x4d, 0x50,
  0x54, 0x5c, 0x60, 0x61, 0x64, 0x6c, 0x74, 0x7c, 0x80, 0x81, 0x84, 0x87, 0x94, 0x9c, 0xa4, 0xac,
  0xb1,
]);
/** Codes that use a scratch word, and codes that divide by a constant. */
const SCRATCH = new Set([0x02, 0x03, 0x60, 0x61]);
const DIVIDES = new Set([0x34, 0x94]);

/**
 * Whether a program is valid: known instructions, jumps inside the program, existing scratch words,
 * no division by a constant 0, a return at the end. An empty program is valid.
 * @see bpf(9)
 */
export function bpf_validate(prog: BpfProgram): boolean {
  const len = prog.length / WORDS;
  if (!Number.isInteger(len)) return false;
  for (let i = 0; i < len; i++) {
    const code = prog[WORDS * i]!;
    const jt = prog[WORDS * i + 1]!;
    const jf = prog[WORDS * i + 2]!;
    const k = prog[WORDS * i + 3]!;
    if (!CODES.has(code)) return false;
    if ((code & 7) === JMP) {
      const far = code === JMP ? k : Math.max(jt, jf);
      if (far >= len - i - 1) return false;
    }
    if (SCRATCH.has(code) && k >= BPF_MEMWORDS) return false;
    if (DIVIDES.has(code) && k === 0) return false;
  }
  return len === 0 || (prog[WORDS * (len - 1)]! & 7) === RET;
}

const M = new Uint32Array(BPF_MEMWORDS);

/** A packet that is not in one piece. */
export interface BpfPacket {
  /** Reads a big-endian word of `size` (1, 2 or 4) bytes at offset `off`; -1 if it is out of range. */
  load(off: number, size: number): number;
}

/** A packet in one piece. */
class Contiguous implements BpfPacket {
  p: Uint8Array = new Uint8Array(0);
  base = 0;
  buflen = 0;

  load(off: number, size: number): number {
    if (off > this.buflen || size > this.buflen - off) return -1;
    const { p } = this;
    const at = this.base + off;
    if (size === 1) return p[at]!;
    if (size === 2) return p[at]! * 256 + p[at + 1]!;
    return ((p[at]! * 256 + p[at + 1]!) * 256 + p[at + 2]!) * 256 + p[at + 3]!;
  }
}

const $contiguous = new Contiguous();

/** The result of an arithmetic instruction; -1 for a division by 0. */
function alu(op: number, a: number, v: number): number {
  switch (op) {
    case 0x00:
      return (a + v) >>> 0;
    case 0x10:
      return (a - v) >>> 0;
    case 0x20:
      return Math.imul(a, v) >>> 0;
    case 0x30:
      return v === 0 ? -1 : Math.floor(a / v);
    case 0x40:
      return (a | v) >>> 0;
    case 0x50:
      return (a & v) >>> 0;
    case 0x60:
      return v > 31 ? 0 : (a << v) >>> 0;
    case 0x70:
      return v > 31 ? 0 : a >>> v;
    case 0x80:
      return -a >>> 0;
    case 0x90:
      return v === 0 ? -1 : a % v;
    case 0xa0:
      return (a ^ v) >>> 0;
    default:
      return -1;
  }
}

function holds(op: number, a: number, v: number): boolean {
  switch (op) {
    case 0x10:
      return a === v;
    case 0x20:
      return a > v;
    case 0x30:
      return a >= v;
    default:
      return (a & v) !== 0;
  }
}

const SIZES = [4, 2, 1] as const;

/**
 * Runs a checked program over `buflen` bytes of `p` from `base`. The packet has `wirelen` bytes.
 * Returns the number of bytes to keep, 0 to drop the packet. An empty program keeps everything.
 * @see bpf(9)
 */
export function bpf_filter(
  prog: BpfProgram,
  p: Uint8Array,
  base: number,
  wirelen: number,
  buflen: number,
): number {
  $contiguous.p = p;
  $contiguous.base = base;
  $contiguous.buflen = buflen;
  return bpfRun(prog, $contiguous, wirelen);
}

/** Like `bpf_filter`, over any packet. */
export function bpfRun(prog: BpfProgram, packet: BpfPacket, wirelen: number): number {
  if (prog.length === 0) return 0xffffffff;
  M.fill(0);
  let A = 0;
  let X = 0;
  for (let pc = 0; pc < prog.length; pc += WORDS) {
    const code = prog[pc]!;
    const k = prog[pc + 3]!;
    let v: number;
    switch (code & 7) {
      case LD:
      case LDX: {
        const mode = code & 0xe0;
        if (mode === 0x00) v = k;
        else if (mode === 0x60) v = M[k]!;
        else if (mode === 0x80) v = wirelen >>> 0;
        else if (mode === 0xa0) {
          v = packet.load(k, 1);
          if (v >= 0) v = (v & 0xf) << 2;
        } else {
          const off = mode === 0x40 ? X + k : k;
          v = packet.load(off, SIZES[(code & 0x18) >> 3]!);
        }
        if (v < 0) return 0;
        if ((code & 7) === LD) A = v;
        else X = v;
        break;
      }
      case ST:
        M[k] = A;
        break;
      case STX:
        M[k] = X;
        break;
      case ALU:
        v = alu(code & 0xf0, A, (code & SRC_X) !== 0 ? X : k);
        if (v < 0) return 0;
        A = v;
        break;
      case JMP:
        if (code === JMP) pc += WORDS * k;
        else
          pc += WORDS * prog[pc + (holds(code & 0xf0, A, (code & SRC_X) !== 0 ? X : k) ? 1 : 2)]!;
        break;
      case RET:
        return (code & 0x10) !== 0 ? A : k;
      default:
        if ((code & 0x80) !== 0) A = X;
        else X = A;
    }
  }
  return 0;
}

/**
 * Number of leading bytes of a packet that a checked program can read; Infinity if it computes
 * offsets from packet contents other than an IPv4 header length.
 */
export function bpfReach(prog: BpfProgram): number {
  let reach = 0;
  let computed = false;
  let indirect = 0;
  for (let pc = 0; pc < prog.length; pc += WORDS) {
    const code = prog[pc]!;
    const k = prog[pc + 3]!;
    const kind = code & 7;
    const mode = code & 0xe0;
    if (kind !== LD && kind !== LDX) {
      // TAX, after arithmetic on what was loaded.
      if (kind === 7 && (code & 0x80) === 0) computed = true;
    } else if (mode === 0xa0) reach = Math.max(reach, k + 1);
    else if (mode === 0x20) reach = Math.max(reach, k + SIZES[(code & 0x18) >> 3]!);
    else if (mode === 0x40) indirect = Math.max(indirect, k + SIZES[(code & 0x18) >> 3]!);
    else if (kind === LDX && mode === 0x60) computed = true;
  }
  if (indirect === 0) return reach;
  // X is the length of an IPv4 header, at most 60.
  return computed ? Infinity : Math.max(reach, indirect + 60);
}
