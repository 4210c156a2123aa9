import { expect } from 'chai';
import { counted, R_DEV_DMA_FAULT, resetReasons } from '../../src/sys/reason.ts';
import { PAGE_SIZE } from '../../src/vm/arena.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { busDmaInit } from '../../src/bus/bus_dma.ts';
import { RamDmaPort } from '../../src/bus/dma_port.ts';

const SIZE = 16 << 20;

describe('RamDmaPort', () => {
  for (const base of [0, 0xffff_f000, 0x12_0000_0000]) {
    it(`allows access to RAM at 0x${base.toString(16)} and to nothing else`, () => {
      vm_page_startup(SIZE, base);
      busDmaInit();
      resetReasons();
      const port = new RamDmaPort();
      const at = (addr: number, len: number): number =>
        port.map(addr >>> 0, Math.floor(addr / 2 ** 32), len, true);
      expect(at(base + PAGE_SIZE, 1)).to.equal(PAGE_SIZE);
      expect(at(base + SIZE - 1, 1)).to.equal(SIZE - 1);
      expect(at(base + PAGE_SIZE, SIZE - PAGE_SIZE)).to.equal(PAGE_SIZE);
      expect(port.faults).to.equal(0);
      // Frame 0, a range that starts in frame 0, past the end, across the end, and two addresses
      // far outside.
      expect(at(base, 1)).to.equal(-1);
      expect(at(base + PAGE_SIZE - 1, 2)).to.equal(-1);
      expect(at(base + SIZE, 1)).to.equal(-1);
      expect(at(base + SIZE - 1, 2)).to.equal(-1);
      expect(port.map(0xffff_ffff, 0xffff_ffff, 1, false)).to.equal(-1);
      expect(port.map(base >>> 0, 0x8000_0000, 1, false)).to.equal(-1);
      expect(port.faults).to.equal(6);
      expect(counted(R_DEV_DMA_FAULT)).to.equal(6);
    });
  }
});
