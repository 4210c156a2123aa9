/** The filter machine and its validator against those of libpcap, which a small C program calls. */

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import * as fc from 'fast-check';
import { bpf_filter, bpf_validate, bpfProgram } from '../../src/sys/bpf_filter.ts';
import { skipSuite } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { insnArb } from './bpf_insns.ts';
import { assemble, bpfVectors } from './bpf_vectors.ts';

interface Case {
  readonly insns: readonly (readonly number[])[];
  readonly packet: Uint8Array;
  readonly wirelen: number;
}

const RETURN = [6, 0, 0, 0];

/**
 * Whether a code is not in the kernel's list. libpcap's validator accepts some of these, and its
 * interpreter aborts.
 */
function unknownCode(insns: Case['insns']): boolean {
  return insns.some(
    ([code]) => !bpf_validate(bpfProgram([[code!, 0, 0, 1], RETURN, RETURN, RETURN])),
  );
}

function encode({ insns, packet, wirelen }: Case): Buffer {
  const out = Buffer.alloc(16 + 8 * insns.length + packet.length);
  out.writeUInt32LE(insns.length, 0);
  out.writeUInt32LE(wirelen, 4);
  out.writeUInt32LE(packet.length, 8);
  out.writeUInt32LE(unknownCode(insns) ? 0 : 1, 12);
  insns.forEach(([code, jt, jf, k], i) => {
    const at = 16 + 8 * i;
    out.writeUInt16LE(code!, at);
    out[at + 2] = jt!;
    out[at + 3] = jf!;
    out.writeUInt32LE(k!, at + 4);
  });
  out.set(packet, 16 + 8 * insns.length);
  return out;
}

describe('bpf_filter and libpcap', function () {
  this.timeout(60_000);
  let dir = '';
  let helper = '';

  before(function () {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-bpf-'));
    helper = join(dir, 'libpcap_filter');
    const cc = process.env['CC'] ?? 'cc';
    const source = join(packageRoot(), 'test/sys/libpcap_filter.c');
    const { error, status, stderr } = spawnSync(cc, ['-O1', '-o', helper, source, '-ldl'], {
      encoding: 'utf8',
    });
    const missing = error !== undefined || !existsSync(helper);
    if (missing && error === undefined) throw new Error(`${cc}: ${status}: ${stderr}`);
    const noLibrary = !missing && spawnSync(helper, { input: '' }).status === 3;
    if (!missing && !noLibrary) return;
    rmSync(dir, { recursive: true });
    skipSuite(this, missing ? `no ${cc}` : 'no libpcap');
  });

  after(() => rmSync(dir, { recursive: true, force: true }));

  /** What libpcap says about each case: [valid, result]. */
  function libpcap(cases: readonly Case[]): [boolean, number][] {
    const input = Buffer.concat(cases.map(encode));
    const out = execFileSync(helper, { input, maxBuffer: 1 << 28 });
    expect(out.length).to.equal(8 * cases.length);
    return cases.map((_, i) => [out.readUInt32LE(8 * i) !== 0, out.readUInt32LE(8 * i + 4)]);
  }

  function compare(cases: readonly Case[]): { valid: number; invalid: number; kept: number } {
    const theirs = libpcap(cases);
    const seen = { valid: 0, invalid: 0, kept: 0 };
    cases.forEach(({ insns, packet, wirelen }, i) => {
      const [valid, result] = theirs[i]!;
      const prog = bpfProgram(insns);
      const text = `${JSON.stringify(insns)} on ${packet.length} of ${wirelen} bytes`;
      const expected = valid && !unknownCode(insns);
      expect(bpf_validate(prog), text).to.equal(expected);
      if (!expected) {
        seen.invalid++;
        return;
      }
      seen.valid++;
      if (result !== 0) seen.kept++;
      const padded = Buffer.concat([Buffer.alloc(8, 0xee), packet, Buffer.alloc(8, 0xee)]);
      expect(bpf_filter(prog, padded, 8, wirelen, packet.length), text).to.equal(result);
    });
    return seen;
  }

  it('agree on the vectors', () => {
    const cases = bpfVectors
      .filter(([program]) => program !== '') // libpcap does not accept the empty program
      .map(([program, packet, wirelen, buflen]) => {
        const words = [...assemble(program)];
        const insns = words.flatMap((_, i) => (i % 4 === 0 ? [words.slice(i, i + 4)] : []));
        const bytes = Uint8Array.from(Buffer.from(packet, 'hex'));
        return { insns, packet: bytes.subarray(0, Math.min(buflen, bytes.length)), wirelen };
      });
    const seen = compare(cases);
    expect(seen.valid).to.equal(bpfVectors.filter(([, , , , result]) => result !== -1).length - 1);
  });

  it('agree on random programs, valid and invalid, and random packets', () => {
    // libpcap does not clear its scratch words.
    const cleared = Array.from({ length: 16 }, (_, k) => [0x02, 0, 0, k]);
    const noise = Uint8Array.from(fc.sample(fc.nat(255), { numRuns: 8192, seed: 5 }));
    const packetArb = fc
      .tuple(fc.nat(3000), fc.oneof(fc.nat(64), fc.nat(5100)))
      .map(([from, len]) => noise.subarray(from, from + len));
    const end = fc.oneof(
      { weight: 9, arbitrary: fc.constant([[0x16, 0, 0, 0]]) },
      { weight: 1, arbitrary: fc.constant([]) },
    );
    const caseArb = fc
      .tuple(fc.array(insnArb, { minLength: 1, maxLength: 16 }), end, packetArb, fc.nat(9000))
      .map(([insns, last, packet, wire]) => ({
        insns: [...cleared, ...insns, ...last],
        packet,
        wirelen: Math.max(wire, packet.length),
      }));
    const seen = compare(fc.sample(caseArb, { numRuns: 20_000, seed: 7 }));
    expect(seen.valid).to.be.above(2000);
    expect(seen.invalid).to.be.above(2000);
    expect(seen.kept).to.be.above(500);
  });
});
