import { expect } from 'chai';
import * as fc from 'fast-check';
import { kva } from '../../src/sys/types.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { payloadBytesRead, payloadReason, payloadReasons, READ_BPF } from '../../src/vm/payload.ts';
import { Uio, UIO_READ, UIO_WRITE, uiomove, uiomove_fromphys } from '../../src/vm/uio.ts';
import { VM_PAGE_TO_PHYS } from '../../src/vm/vm_page.ts';
import { bootKern } from '../kern/boot.ts';
import { fileBytes } from '../kern/disk.ts';

describe('uio', () => {
  beforeEach(() => bootKern());

  /** Makes a uio of ranges of one buffer, with gaps between them; some ranges are empty. */
  function ranges(buf: Uint8Array, cuts: number[]): Uio {
    let off = 3;
    const iov = cuts.map((n) => {
      const v = { iov_base: buf, iov_off: off, iov_len: n };
      off += n + 2;
      return v;
    });
    return new Uio().set(iov, UIO_READ);
  }

  it('copies through random ranges in random steps, both ways, and writes nothing outside the ranges', () => {
    const lens = fc.array(fc.nat(60), { minLength: 1, maxLength: 6 });
    fc.assert(
      fc.property(
        lens,
        fc.array(fc.nat(90), { maxLength: 12 }),
        fc.boolean(),
        (cuts, steps, own) => {
          const total = cuts.reduce((a, b) => a + b, 0);
          const room = total + 5 + 2 * cuts.length;
          // A separate user buffer, or a part of the arena that does not start at 0.
          const buf = own ? new Uint8Array(room) : mem.subarray(50_000, 50_000 + room);
          buf.fill(0xaa);
          const uio = ranges(buf, cuts);
          const src = fileBytes(total, total + 1);
          mem.set(src, 8192);
          let at = 0;
          for (const n of [...steps, total]) {
            uiomove(kva(8192 + at), n, uio);
            at = total - uio.uio_resid;
          }
          expect(at).to.equal(total);
          const inside = uio.uio_iov.flatMap((v) => [
            ...buf.subarray(v.iov_off, v.iov_off + v.iov_len),
          ]);
          expect(inside).to.eql([...src]);
          expect([...buf].filter((b) => b === 0xaa).length).to.be.at.least(room - total);
          // Copy the data back to another address.
          const back = uio.set(uio.uio_iov, UIO_WRITE);
          uiomove(kva(20_000), 1e9, back);
          expect([...mem.subarray(20_000, 20_000 + total)]).to.eql([...src]);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('uiomove_fromphys continues across pages; it counts reads and not writes', () => {
    const pa = Float64Array.from([0, VM_PAGE_TO_PHYS(9), VM_PAGE_TO_PHYS(5)]);
    const src = fileBytes(2 * PAGE_SIZE);
    mem.set(src.subarray(0, PAGE_SIZE), 9 * PAGE_SIZE);
    mem.set(src.subarray(PAGE_SIZE), 5 * PAGE_SIZE);
    const out = new Uint8Array(5000);
    const uio = new Uio().single(out, 0, 5000, UIO_READ);
    const before = payloadReason(READ_BPF);
    uiomove_fromphys(pa, 1, 4000, 300, uio);
    // starts past the first page; uio_resid limits the length
    uiomove_fromphys(pa, 1, 4300, 9999, uio);
    payloadReason(before);
    expect(out.slice(0, 4192)).to.eql(src.slice(4000, 8192));
    expect(payloadReasons[READ_BPF]).to.equal('bpf');
    expect(payloadBytesRead(READ_BPF)).to.equal(5000);
    uiomove_fromphys(pa, 2, 10, 20, new Uio().single(fileBytes(20, 9), 0, 20, UIO_WRITE));
    expect(payloadBytesRead(READ_BPF)).to.equal(5000);
    expect(mem.slice(5 * PAGE_SIZE + 10, 5 * PAGE_SIZE + 30)).to.eql(fileBytes(20, 9));
  });
});
