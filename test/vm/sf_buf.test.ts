import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import { failPoint } from '../../src/sys/fail_point.ts';
import { counted, R_SFBUF_NOBUFS } from '../../src/sys/reason.ts';
import {
  sf_buf_alloc,
  sf_buf_free,
  sf_buf_kva,
  sf_buf_page,
  sfBufInit,
  sfBufLimit,
  sfBufWait,
  sfBufWaitCancel,
  sfstatBufs,
} from '../../src/vm/sf_buf.ts';
import { bootKern } from '../kern/boot.ts';

describe('sf_buf', () => {
  beforeEach(() => bootKern(2));

  it('maps a page at its direct-map address, up to the limit of sf_bufs', () => {
    const [a, b] = [sf_buf_alloc(7)!, sf_buf_alloc(7)!];
    expect([sf_buf_page(a), sf_buf_kva(a), sf_buf_kva(b)]).to.eql([7, 28_672, 28_672]);
    expect(sf_buf_alloc(8)).to.equal(null);
    expect(counted(R_SFBUF_NOBUFS)).to.equal(1);
    sf_buf_free(a);
    sf_buf_free(b);
    expect(() => sf_buf_free(a)).to.throw('free already');
    expect(sfstatBufs).to.eql({ max: 2, current: 0, peak: 2, total: 2 });
  });

  it('the fail point fails only the armed number of allocations', () => {
    failPoint('sf_buf').arm(1, 2);
    expect([inPass(sf_buf_alloc, 1), inPass(sf_buf_alloc, 1)]).to.eql([null, null]);
    sf_buf_free(sf_buf_alloc(1)!);
  });

  it('wakes all waiting tasks once, in order', () => {
    sfBufInit(1);
    const seen: string[] = [];
    const task = (n: string): { run: () => void } => ({ run: () => void seen.push(n) });
    const [a, b, c] = [task('a'), task('b'), task('c')];
    const sf = sf_buf_alloc(1)!;
    for (const t of [a, b, c]) sfBufWait(t);
    sfBufWaitCancel(b);
    inPass(sf_buf_free, sf);
    expect(seen).to.eql(['a', 'c']);
    sf_buf_free(sf_buf_alloc(1)!);
    expect(seen).to.eql(['a', 'c']);
    sfBufWait(b);
    inPass(sfBufLimit, 5);
    expect(seen).to.eql(['a', 'c', 'b']);
  });
});
