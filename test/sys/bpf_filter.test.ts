import { expect } from 'chai';
import * as fc from 'fast-check';
import { bpf_filter, bpf_validate, bpfProgram } from '../../src/sys/bpf_filter.ts';
import { assemble, bpfVectors } from './bpf_vectors.ts';

describe('bpf_filter', () => {
  bpfVectors.forEach(([program, packet, wirelen, buflen, result], i) => {
    it(`vector ${i + 1}: ${program === '' ? 'empty' : program.slice(0, 60)}`, () => {
      const prog = assemble(program);
      expect(bpf_validate(prog)).to.equal(result !== -1);
      if (result === -1) return;
      const bytes = Uint8Array.from(Buffer.from(packet, 'hex'));
      // Two vectors give a length larger than their one byte; only the LEN instructions use it.
      const there = Math.min(buflen, bytes.length);
      expect(bpf_filter(prog, bytes, 0, wirelen, there)).to.equal(result);
    });
  });

  it('runs a program of 1001 instructions', () => {
    const prog = assemble(`${'20 0; 20 1; '.repeat(500)}16 0`);
    expect(bpf_validate(prog)).to.equal(true);
    const bytes = Uint8Array.from([0x01, 0x23, 0x45, 0x67, 0x89]);
    expect(bpf_filter(prog, bytes, 0, 5, 5)).to.equal(0x23456789);
  });

  it('any program that passes bpf_validate ends and reads no byte outside the packet', () => {
    const word = fc.integer({ min: 0, max: 0xffffffff });
    const insn = fc.tuple(
      fc.oneof(fc.constantFrom(0x20, 0x28, 0x30, 0x40, 0x48, 0x50, 0xb1, 0x15, 0x06), fc.nat(255)),
      fc.nat(3),
      fc.nat(3),
      fc.oneof(fc.nat(20), word),
    );
    let ran = 0;
    fc.assert(
      fc.property(fc.array(insn, { maxLength: 12 }), fc.uint8Array({ maxLength: 40 }), (is, p) => {
        const prog = bpfProgram([...is, [0x16, 0, 0, 0]]);
        if (!bpf_validate(prog)) return;
        ran++;
        const frame = new Uint8Array(p.length + 16).fill(0xee);
        frame.set(p, 8);
        const result = bpf_filter(prog, frame, 8, p.length, p.length);
        expect(result).to.be.within(0, 0xffffffff);
        // The result must not depend on the bytes around the packet.
        frame.fill(0x11, 0, 8);
        frame.fill(0x22, p.length + 8);
        expect(bpf_filter(prog, frame, 8, p.length, p.length)).to.equal(result);
      }),
      { numRuns: 3000, seed: 1 },
    );
    expect(ran).to.be.above(50);
  });
});
