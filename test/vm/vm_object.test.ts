import { expect } from 'chai';
import { FileStat } from '../../src/sys/pager.ts';
import { EIO } from '../../src/sys/errno.ts';
import { counted, R_PAGER_EIO } from '../../src/sys/reason.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import {
  GRAB_BUSY,
  GRAB_NOMEM,
  GRAB_OK,
  grabbed,
  revalidate,
  vm_object_deallocate,
  vm_page_grab_pages,
  vm_pager_get_pages_async,
  VmObject,
  vmObjectCount,
  vmObjectOf,
  vmObjectsFlush,
} from '../../src/vm/vm_object.ts';
import {
  NOPAGE,
  vm_page_alloc_noobj,
  vm_page_busied,
  vm_page_unwire,
  vm_page_all_valid,
  vm_page_xunbusy,
  vmPageCounts,
} from '../../src/vm/vm_page.ts';
import { bootDisk, bootKern } from '../kern/boot.ts';
import { fileBytes, HandDisk } from '../kern/disk.ts';
import { File } from '../../src/kern/kern_descrip.ts';

const S = 1e9;
const NOW = 2_000_000_000 * S;

function stat(ino: number, size: number, ctimeNs = NOW - S): FileStat {
  const st = new FileStat();
  st.dev = 1;
  st.ino = ino;
  st.size = size;
  st.ctimeSec = Math.floor(ctimeNs / S);
  st.ctimeNsec = ctimeNs - st.ctimeSec * S;
  st.isFile = true;
  return st;
}

describe('vm_object', () => {
  let disk: HandDisk;
  let file: File;
  const bytes = fileBytes(100_000);
  const heard: { error: number; npages: number }[] = [];
  const listener = {
    pageinDone: (error: number, npages: number): void => void heard.push({ error, npages }),
  };

  beforeEach(() => {
    bootKern();
    disk = bootDisk(new HandDisk());
    file = disk.file(bytes).file;
    heard.length = 0;
  });

  /** Grabs pages [first, first + n) and reads them all into the cache. */
  function load(object: VmObject, first: number, n: number): number[] {
    const pages: number[] = [];
    expect(vm_page_grab_pages(object, first, pages, n)).to.equal(GRAB_OK);
    expect(vm_pager_get_pages_async(object, file.f_fd, first, pages, 0, n, listener)).to.equal(0);
    disk.completeAll();
    for (const p of pages) vm_page_unwire(p, false);
    return pages;
  }

  describe('page-in', () => {
    it('reads directly into the frames; the pages are busy until the read ends', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      expect(vm_page_grab_pages(object, 2, pages, 3)).to.equal(GRAB_OK);
      expect(pages.every((p) => vm_page_busied(p) && !vm_page_all_valid(p))).to.equal(true);
      vm_pager_get_pages_async(object, file.f_fd, 2, pages, 0, 3, listener);
      disk.complete();
      expect(heard).to.eql([{ error: 0, npages: 3 }]);
      pages.forEach((p, i) => {
        expect(vm_page_all_valid(p)).to.equal(true);
        const at = (2 + i) * PAGE_SIZE;
        expect(mem.slice(p * PAGE_SIZE, (p + 1) * PAGE_SIZE)).to.eql(bytes.slice(at, at + 4096));
        vm_page_unwire(p, false);
      });
      expect(vmPageCounts().cached).to.equal(3);
      expect(object.resident).to.equal(3);
      vm_object_deallocate(object);
    });

    it('bytes past the end of the file are zero, whatever the frame held before', () => {
      for (let p = 1; p < 100; p++) mem.fill(0xee, p * PAGE_SIZE, (p + 1) * PAGE_SIZE);
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages = load(object, 23, 4); // the file ends 1696 bytes into page 24
      const tail = bytes.slice(24 * PAGE_SIZE);
      const p24 = pages[1]! * PAGE_SIZE;
      expect(mem.slice(p24, p24 + tail.length)).to.eql(tail);
      expect(mem.subarray(p24 + tail.length, p24 + 4096).every((b) => b === 0)).to.equal(true);
      for (const p of pages.slice(2))
        expect(mem.subarray(p * PAGE_SIZE, (p + 1) * PAGE_SIZE).every((b) => b === 0)).to.be.true;
      vm_object_deallocate(object);
    });

    it('a failed read leaves no page in the cache and wakes the waiting tasks', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 2);
      vm_pager_get_pages_async(object, file.f_fd, 0, pages, 0, 2, listener);
      let woken = 0;
      object.waitPagein({ run: () => void woken++ });
      disk.fail();
      expect([heard[0]!.error, woken, counted(R_PAGER_EIO)]).to.eql([EIO, 1, 1]);
      for (const p of pages) vm_page_unwire(p, false);
      expect(object.resident).to.equal(0);
      expect(vmPageCounts().wired).to.equal(0);
      vm_object_deallocate(object);
    });

    it('a read that cannot be started returns its errno; the pages are neither busy nor valid', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 2);
      disk.failReads = [EIO];
      expect(vm_pager_get_pages_async(object, file.f_fd, 0, pages, 0, 2, listener)).to.equal(EIO);
      expect(pages.some((p) => vm_page_busied(p) || vm_page_all_valid(p))).to.equal(false);
      for (const p of pages) vm_page_unwire(p, false);
      expect(heard).to.eql([]);
      vm_object_deallocate(object);
      expect(vmObjectCount()).to.equal(0);
    });

    it('a read in flight keeps its frames after the requester has unwired them', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 2);
      vm_pager_get_pages_async(object, file.f_fd, 0, pages, 0, 2, listener);
      for (const p of pages) vm_page_unwire(p, false);
      vm_object_deallocate(object);
      expect(vmPageCounts().wired).to.equal(2);
      disk.complete();
      expect(vmPageCounts()).to.include({ wired: 0, cached: 2 });
    });

    it('waiting tasks are woken even if the listener throws', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 1);
      let woken = 0;
      object.waitPagein({ run: () => void woken++ });
      const bad = {
        pageinDone: (): void => {
          throw new Error('listener');
        },
      };
      vm_pager_get_pages_async(object, file.f_fd, 0, pages, 0, 1, bad);
      expect(() => disk.complete()).to.throw('listener');
      expect(woken).to.equal(1);
      vm_page_unwire(pages[0]!, false);
      vm_object_deallocate(object);
    });
  });

  describe('vm_page_grab_pages', () => {
    it('stops at a busy page and keeps the pages before it', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const [first, then]: number[][] = [[], []];
      vm_page_grab_pages(object, 2, first!, 1);
      expect(vm_page_grab_pages(object, 0, then!, 4)).to.equal(GRAB_BUSY);
      expect(grabbed.n).to.equal(2);
      for (const p of [...first!, ...then!.slice(0, 2)]) {
        vm_page_xunbusy(p, false);
        vm_page_unwire(p, false);
      }
      vm_object_deallocate(object);
    });

    it('stops when no frame is free, but still finds cached pages', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      load(object, 0, 3);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 3);
      while (vm_page_alloc_noobj() !== NOPAGE);
      const again: number[] = [];
      expect(vm_page_grab_pages(object, 0, again, 5)).to.equal(GRAB_NOMEM);
      expect(grabbed.n).to.equal(3);
      expect(again.slice(0, 3)).to.eql(pages);
    });
  });

  describe('change of a file', () => {
    it('pages of an unchanged file are reused', () => {
      const a = vmObjectOf(stat(1, 100_000), NOW);
      load(a, 0, 4);
      vm_object_deallocate(a);
      const b = vmObjectOf(stat(1, 100_000), NOW + S);
      expect(b).to.equal(a);
      expect(b.resident).to.equal(4);
      vm_object_deallocate(b);
    });

    for (const [what, st] of [
      ['size', stat(1, 99_999)],
      ['change time, by a nanosecond', stat(1, 100_000, NOW - S + 256)],
    ] as const)
      it(`a change of ${what} discards the cached pages; wired pages keep their bytes`, () => {
        const object = vmObjectOf(stat(1, 100_000), NOW);
        load(object, 0, 4);
        const held: number[] = [];
        vm_page_grab_pages(object, 1, held, 1);
        const copy = mem.slice(held[0]! * PAGE_SIZE, (held[0]! + 1) * PAGE_SIZE);
        revalidate(object, st, NOW, false);
        expect(object.resident).to.equal(0);
        expect(vmPageCounts()).to.include({ cached: 0, wired: 1 });
        load(object, 0, 4); // uses new frames; the old frame is unchanged
        expect(object.lookup(1)).to.not.equal(held[0]);
        expect(mem.slice(held[0]! * PAGE_SIZE, (held[0]! + 1) * PAGE_SIZE)).to.eql(copy);
        vm_page_unwire(held[0]!, false);
        expect(vmPageCounts()).to.include({ cached: 4, wired: 0 });
        vm_object_deallocate(object);
      });

    it('pages discarded while they are being read do not enter the cache', () => {
      const object = vmObjectOf(stat(1, 100_000), NOW);
      const pages: number[] = [];
      vm_page_grab_pages(object, 0, pages, 2);
      vm_pager_get_pages_async(object, file.f_fd, 0, pages, 0, 2, listener);
      revalidate(object, stat(1, 50_000), NOW, false);
      const again: number[] = [];
      expect(vm_page_grab_pages(object, 0, again, 1)).to.equal(GRAB_OK);
      expect(again[0]).to.not.equal(pages[0]);
      disk.complete();
      for (const p of pages) vm_page_unwire(p, false);
      expect(object.lookup(0)).to.equal(again[0]);
      expect(vmPageCounts()).to.include({ cached: 0, wired: 1 });
      vm_page_xunbusy(again[0]!, false);
      vm_page_unwire(again[0]!, false);
      vm_object_deallocate(object);
    });

    describe('young files (10 ms)', () => {
      const MS = 1_000_000;
      // Times in ns since the epoch are exact only to 256 ns as numbers, so leave a margin.
      for (const [ageNs, kept] of [
        [0, false],
        [10 * MS - 1000, false],
        [10 * MS + 1000, true],
      ] as const)
        it(`${kept ? 'reuses' : 'does not reuse'} pages read ${ageNs} ns after a change`, () => {
          const st = stat(1, 100_000, NOW - ageNs);
          const a = vmObjectOf(st, NOW);
          load(a, 0, 2);
          vm_object_deallocate(a);
          const b = vmObjectOf(st, NOW + S);
          expect(b.resident).to.equal(kept ? 2 : 0);
          // Pages read now are kept, because the change is long ago.
          if (!kept) load(b, 0, 2);
          vm_object_deallocate(b);
          const c = vmObjectOf(st, NOW + 2 * S);
          expect(c.resident).to.equal(2);
          vm_object_deallocate(c);
        });

      it('reuses them within the request that read them', () => {
        const st = stat(1, 100_000, NOW);
        const a = vmObjectOf(st, NOW);
        load(a, 0, 2);
        revalidate(a, st, NOW + MS, false);
        expect(a.resident).to.equal(2);
        vm_object_deallocate(a);
      });

      it('does not reuse pages that a long request read right after a change of the file', () => {
        const a = vmObjectOf(stat(1, 100_000), NOW);
        const changed = stat(1, 100_000, NOW + S);
        revalidate(a, changed, NOW + S + MS, false);
        load(a, 0, 2);
        vm_object_deallocate(a);
        const b = vmObjectOf(changed, NOW + 5 * S);
        expect(b.resident).to.equal(0);
        vm_object_deallocate(b);
      });
    });
  });

  describe('one object per file', () => {
    it('stays the only object while a request references it, even without pages', () => {
      const a = vmObjectOf(stat(1, 100_000), NOW);
      load(a, 0, 1);
      // Reclaim all its pages while a request still references it.
      while (vm_page_alloc_noobj() !== NOPAGE);
      expect(a.resident).to.equal(0);
      const b = vmObjectOf(stat(1, 100_000), NOW);
      expect(b).to.equal(a);
      vm_object_deallocate(a);
      expect(vmObjectCount()).to.equal(1);
      vm_object_deallocate(b);
      expect(vmObjectCount()).to.equal(0);
    });

    it('is freed after a request that read no page', () => {
      for (let ino = 1; ino < 100; ino++) vm_object_deallocate(vmObjectOf(stat(ino, 0), NOW));
      expect(vmObjectCount()).to.equal(0);
      const a = vmObjectOf(stat(1, 5), NOW);
      vm_object_deallocate(a);
      expect(() => vm_object_deallocate(a)).to.throw('no references');
    });

    it('stays allocated while referenced when a flush frees its pages', () => {
      const a = vmObjectOf(stat(1, 100_000), NOW);
      load(a, 0, 3);
      vmObjectsFlush();
      expect([a.resident, vmObjectCount()]).to.eql([0, 1]);
      load(a, 0, 3);
      vm_object_deallocate(a);
      vmObjectsFlush();
      expect(vmObjectCount()).to.equal(0);
      expect(vmPageCounts().cached).to.equal(0);
    });

    it('is freed with its last page', () => {
      const a = vmObjectOf(stat(1, 100_000), NOW);
      load(a, 0, 3);
      vm_object_deallocate(a);
      expect(vmObjectCount()).to.equal(1);
      while (vm_page_alloc_noobj() !== NOPAGE);
      expect(vmObjectCount()).to.equal(0);
    });
  });
});
