import { expect } from 'chai';
import * as fc from 'fast-check';
import { counted, R_VM_WIRE_LIMIT } from '../../src/sys/reason.ts';
import { inPass } from '../../src/sys/pass.ts';
import { physAddr } from '../../src/sys/types.ts';
import { arenaBytes, mem, PAGE_SIZE, PHYS_TO_DMAP, vtophys } from '../../src/vm/arena.ts';
import {
  NOPAGE,
  type PageOwner,
  PHYS_TO_VM_PAGE,
  vm_page_alloc,
  vm_page_alloc_contig,
  vm_page_alloc_noobj,
  vm_page_busied,
  vm_page_busy_acquire,
  vmPageDisown,
  vm_page_startup,
  VM_PAGE_TO_PHYS,
  vm_page_unwire,
  vm_page_all_valid,
  vm_page_wire,
  vm_page_wired,
  vm_page_xunbusy,
  vmPageCounts,
  vmWaitCancel,
  vmWaitPages,
} from '../../src/vm/vm_page.ts';
import { bootKern } from '../kern/boot.ts';
import { kva } from '../../src/sys/types.ts';

const TOTAL = 8191;
const LIMIT = Math.floor(TOTAL * 0.75);

/** Records the pages reclaimed from it. */
class Owner implements PageOwner {
  readonly lost: number[] = [];
  pageReclaimed(pindex: number): void {
    this.lost.push(pindex);
  }
}

/** Makes a valid, unwired page of `own`; it is cached unless `noreuse`. */
function cachedPage(own: PageOwner, pindex: number, noreuse = false): number {
  const p = vm_page_alloc(own, pindex);
  vm_page_xunbusy(p, true);
  inPass(vm_page_unwire, p, noreuse);
  return p;
}

/** Allocates every free frame; cached frames stay cached. */
function takeFree(): number[] {
  const taken: number[] = [];
  while (vmPageCounts().free > 0) taken.push(vm_page_alloc_noobj());
  return taken;
}

describe('vm_page: memory', () => {
  beforeEach(() => bootKern());

  it('32 MiB give 8191 frames: frame 0 is never used', () => {
    expect(vmPageCounts()).to.eql({ free: TOTAL, cached: 0, wired: 0, total: TOTAL, wiredFile: 0 });
    const taken = takeFree();
    expect(taken).to.not.include(0);
    expect(new Set(taken).size).to.equal(TOTAL);
    expect(vm_page_alloc_noobj()).to.equal(NOPAGE);
    for (const p of taken) vm_page_unwire(p, false);
    expect(vmPageCounts().free).to.equal(TOTAL);
  });

  it('vm_page_startup accepts 16 MiB to 4096 MiB in whole pages', () => {
    for (const size of [0, (16 << 20) - 4096, (16 << 20) + 1, 2 ** 32 + 4096])
      expect(() => vm_page_startup(size, 0, new ArrayBuffer(0)), String(size)).to.throw(RangeError);
    vm_page_startup(16 << 20, 0);
    expect(vmPageCounts().total).to.equal(4095);
  });

  it('physical addresses start at the base, also above 4 GiB', () => {
    const base = 5 * 2 ** 32;
    vm_page_startup(16 << 20, base, new ArrayBuffer(arenaBytes(16 << 20)));
    const p = vm_page_alloc_noobj();
    const pa = VM_PAGE_TO_PHYS(p);
    expect(pa).to.equal(base + p * PAGE_SIZE);
    expect(PHYS_TO_VM_PAGE(physAddr(pa + 4095))).to.equal(p);
    expect(PHYS_TO_DMAP(pa)).to.equal(p * PAGE_SIZE);
    expect(vtophys(kva(p * PAGE_SIZE))).to.equal(pa);
    expect(() => PHYS_TO_VM_PAGE(physAddr(base + 100))).to.throw('not RAM');
    expect(() => PHYS_TO_VM_PAGE(physAddr(base + (16 << 20)))).to.throw('not RAM');
    expect(mem.length).to.equal(arenaBytes(16 << 20));
  });
});

describe('vm_page: wiring and reclaim', () => {
  beforeEach(() => bootKern());

  it('a new file page is busy, wired and invalid until it has been read', () => {
    const own = new Owner();
    const p = vm_page_alloc(own, 5);
    expect([vm_page_busied(p), vm_page_all_valid(p), vm_page_wired(p)]).to.eql([true, false, true]);
    vm_page_xunbusy(p, true);
    expect([vm_page_busied(p), vm_page_all_valid(p)]).to.eql([false, true]);
    expect(() => vm_page_xunbusy(p, true)).to.throw('not busy');
    expect(() => vm_page_busy_acquire(p)).to.throw('busy or valid');
    vm_page_unwire(p, false);
    expect(vmPageCounts()).to.include({ cached: 1, wired: 0, wiredFile: 0 });
    expect(() => vm_page_unwire(p, false)).to.throw('not wired');
  });

  it('a page whose read failed is freed at its last unwire, and its owner is notified', () => {
    const own = new Owner();
    const p = vm_page_alloc(own, 5);
    vm_page_wire(p);
    vm_page_xunbusy(p, false);
    vm_page_unwire(p, false);
    expect(own.lost).to.eql([]);
    vm_page_busy_acquire(p); // another request may read it again
    vm_page_xunbusy(p, false);
    vm_page_unwire(p, false);
    expect(own.lost).to.eql([5]);
    expect(vmPageCounts().free).to.equal(TOTAL);
  });

  it('panics at the last unwire of a busy page', () => {
    const p = vm_page_alloc(new Owner(), 0);
    expect(() => vm_page_unwire(p, false)).to.throw('busy page');
  });

  it('reclaims the least recently used page; a page unwired with noreuse is freed at once', () => {
    const own = new Owner();
    const pages = [0, 1, 2, 3].map((i) => cachedPage(own, i));
    takeFree();
    vm_page_wire(pages[0]!); // now the most recently used page
    vm_page_unwire(pages[0]!, false);
    vm_page_wire(pages[2]!);
    vm_page_unwire(pages[2]!, true); // SF_NOCACHE
    expect(own.lost).to.eql([2]);
    expect(vmPageCounts()).to.include({ free: 1, cached: 3 });
    const order = [1, 2, 3, 4].map(() => vm_page_alloc_noobj());
    expect(own.lost).to.eql([2, 1, 3, 0]);
    expect(order).to.eql([2, 1, 3, 0].map((i) => pages[i]));
    expect(vm_page_alloc_noobj()).to.equal(NOPAGE);
  });

  it('a reclaimed frame is allocated invalid and busy, as a new page', () => {
    const own = new Owner();
    cachedPage(own, 9);
    takeFree();
    const p = vm_page_alloc(new Owner(), 1);
    expect([vm_page_all_valid(p), vm_page_busied(p)]).to.eql([false, true]);
    expect(own.lost).to.eql([9]);
  });

  it('a disowned page is freed at once if cached, or at its last unwire', () => {
    const own = new Owner();
    const a = cachedPage(own, 0);
    vmPageDisown(a);
    expect(vmPageCounts()).to.include({ free: TOTAL, cached: 0 });
    const b = vm_page_alloc(own, 1);
    vm_page_xunbusy(b, true);
    vmPageDisown(b);
    expect(vmPageCounts()).to.include({ wired: 1, wiredFile: 1 });
    vm_page_unwire(b, false);
    expect(vmPageCounts()).to.include({ free: TOTAL, wiredFile: 0 });
    expect(own.lost).to.eql([]);
  });

  it('a page can be wired more than 65,536 times, by many requests for one file', () => {
    const p = cachedPage(new Owner(), 0);
    for (let i = 0; i < 70_000; i++) vm_page_wire(p);
    for (let i = 0; i < 70_000; i++) vm_page_unwire(p, false);
    expect(vmPageCounts()).to.include({ cached: 1, wired: 0 });
  });

  it('at most 75 % of the frames can be wired file pages; kernel pages have no such limit', () => {
    const own = new Owner();
    const pages: number[] = [];
    for (let i = 0; i < LIMIT; i++) pages.push(vm_page_alloc(own, i));
    expect(pages).to.not.include(NOPAGE);
    expect(vm_page_alloc(own, LIMIT)).to.equal(NOPAGE);
    expect(counted(R_VM_WIRE_LIMIT)).to.equal(1);
    expect(vm_page_alloc_noobj()).to.not.equal(NOPAGE);
    vm_page_xunbusy(pages[0]!, true);
    vm_page_unwire(pages[0]!, false);
    expect(vm_page_alloc(own, LIMIT)).to.not.equal(NOPAGE);
  });
});

describe('vm_page_alloc_contig', () => {
  beforeEach(() => bootKern());

  it('allocates adjacent frames, aligned, that do not cross a boundary', () => {
    const p = vm_page_alloc_contig(5, 16 * PAGE_SIZE, 64 * PAGE_SIZE);
    expect(p % 16).to.equal(0);
    expect(Math.floor(p / 64)).to.equal(Math.floor((p + 4) / 64));
    expect(vmPageCounts().wired).to.equal(5);
    const taken = takeFree();
    for (let q = p; q < p + 5; q++) expect(taken).to.not.include(q);
    for (let q = p; q < p + 5; q++) vm_page_unwire(q, false);
    expect(vm_page_alloc_contig(5, 1, 0)).to.equal(p);
  });

  it('fails rather than cross a boundary', () => {
    const taken = takeFree();
    for (let q = 62; q < 67; q++) vm_page_unwire(q, false);
    expect(vm_page_alloc_contig(4, 1, 64 * PAGE_SIZE)).to.equal(NOPAGE);
    expect(vm_page_alloc_contig(3, 1, 64 * PAGE_SIZE)).to.equal(64);
    expect(vm_page_alloc_contig(3, 1, 0)).to.equal(NOPAGE);
    expect(taken).to.have.lengthOf(TOTAL);
  });

  it('aligns physical addresses, not frame numbers', () => {
    vm_page_startup(16 << 20, 0x1000);
    const p = vm_page_alloc_contig(2, 0x10000, 0);
    expect(VM_PAGE_TO_PHYS(p) % 0x10000).to.equal(0);
  });
});

describe('vm_page: waiting', () => {
  beforeEach(() => bootKern());

  it('runs waiting tasks once, in order, at the end of the pass in which a page was freed', () => {
    const seen: string[] = [];
    const task = (name: string): { run: () => void } => ({ run: () => void seen.push(name) });
    const [a, b, c] = [task('a'), task('b'), task('c')];
    const p = vm_page_alloc_noobj();
    const q = vm_page_alloc_noobj();
    for (const t of [a, b, c]) vmWaitPages(t);
    vmWaitCancel(b);
    vmWaitCancel(b);
    inPass(() => {
      vm_page_unwire(p, false);
      vm_page_unwire(q, false);
      expect(seen).to.eql([]);
    });
    expect(seen).to.eql(['a', 'c']);
  });

  it('also wakes tasks when a page becomes reclaimable or is disowned', () => {
    let n = 0;
    const task = { run: (): void => void n++ };
    vmWaitPages(task);
    const p = cachedPage(new Owner(), 0);
    expect(n).to.equal(1);
    vmWaitPages(task);
    inPass(vmPageDisown, p);
    expect(n).to.equal(2);
  });
});

describe('vm_page: random operations against a model', () => {
  interface Page {
    p: number;
    pindex: number;
    wired: number;
    busy: boolean;
    valid: boolean;
    owned: boolean;
    file: boolean;
  }

  /** The model: plain objects for the frames, and an array in order of use. */
  class Model implements PageOwner {
    pages: Page[] = [];
    lru: Page[] = [];
    next = 0;

    pageReclaimed(pindex: number, p: number): void {
      const page = this.pages.find((x) => x.p === p)!;
      expect(page.pindex).to.equal(pindex);
      expect(page.owned).to.equal(true);
      this.pages = this.pages.filter((x) => x !== page);
      if (page.wired > 0) return;
      expect(this.lru[0] === page, 'the least recently used page').to.equal(true);
      this.lru.shift();
    }

    step([what, x, y]: [string, number, number]): void {
      const page = this.pages[x % Math.max(this.pages.length, 1)];
      switch (what) {
        case 'file':
        case 'kernel':
          return this.alloc(what === 'file');
        case 'wire':
          if (page === undefined || !page.file || (page.wired === 0 && !page.owned)) return;
          vm_page_wire(page.p);
          if (page.wired++ === 0) this.lru = this.lru.filter((q) => q !== page);
          return;
        case 'unwire':
          if (page !== undefined && page.wired > 0) this.unwire(page, y % 3 === 0);
          return;
        case 'read':
          if (page === undefined || !page.busy) return;
          page.busy = false;
          page.valid = y % 4 !== 0;
          vm_page_xunbusy(page.p, page.valid);
          return;
        case 'disown':
          if (page === undefined || !page.owned) return;
          page.owned = false;
          this.lru = this.lru.filter((q) => q !== page);
          if (page.wired === 0) this.pages = this.pages.filter((q) => q !== page);
          vmPageDisown(page.p);
          return;
      }
    }

    alloc(file: boolean): void {
      const pindex = this.next++;
      const p = file ? vm_page_alloc(this, pindex) : vm_page_alloc_noobj();
      if (p === NOPAGE) return;
      expect(
        this.pages.some((q) => q.p === p),
        'a frame allocated twice',
      ).to.equal(false);
      this.pages.push({ p, pindex, wired: 1, busy: file, valid: false, owned: file, file });
    }

    unwire(page: Page, noreuse: boolean): void {
      if (page.wired === 1 && page.busy) return; // this would panic
      vm_page_unwire(page.p, noreuse);
      // For an invalid page, pageReclaimed has already updated the model.
      if (--page.wired > 0) return;
      if (!page.owned) this.pages = this.pages.filter((q) => q !== page);
      else if (page.valid && !noreuse) this.lru.push(page);
    }

    check(hogged: number): void {
      const wired = this.pages.filter((q) => q.wired > 0);
      expect(vmPageCounts()).to.eql({
        free: TOTAL - hogged - this.pages.length,
        cached: this.lru.length,
        wired: hogged + wired.length,
        total: TOTAL,
        wiredFile: wired.filter((q) => q.file).length,
      });
    }
  }

  it('free + cached + wired = total after each operation; pages are reclaimed in order of use', () => {
    const op = fc.tuple(
      fc.constantFrom(
        'file',
        'file',
        'kernel',
        'wire',
        'unwire',
        'unwire',
        'read',
        'read',
        'disown',
      ),
      fc.nat(1000),
      fc.nat(1000),
    );
    let full = 0;
    fc.assert(
      fc.property(fc.array(op, { minLength: 20, maxLength: 200 }), fc.nat(20), (ops, left) => {
        bootKern();
        for (let i = TOTAL - left; i > 0; i--) vm_page_alloc_noobj();
        const model = new Model();
        for (const o of ops) {
          model.step(o);
          model.check(TOTAL - left);
        }
        if (vmPageCounts().free === 0) full++;
      }),
      { numRuns: 60 },
    );
    expect(full, 'runs that used up all memory').to.be.above(5);
  });
});
