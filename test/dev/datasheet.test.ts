/** Compares the pages docs/<nic>-datasheet.md with the definitions in src/dev/<nic>/<nic>reg.ts. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import * as tb from '../../src/dev/tb/tbreg.ts';
import * as tl from '../../src/dev/tl/tlreg.ts';
import * as tn from '../../src/dev/tn/tnreg.ts';
import * as tp from '../../src/dev/tp/tpreg.ts';
import { packageRoot } from '../support/root.ts';

const models = {
  tb: { reg: tb, names: tb.tbStatNames, statBytes: 4 },
  tl: { reg: tl, names: tl.tlStatNames, statBytes: 4 },
  tn: { reg: tn, names: tn.tnStatNames, statBytes: 8 },
  tp: { reg: tp, names: tp.tpStatNames, statBytes: 4 },
};

/** Constants that are bits: their middle part names the register or word, as in TN_CTRL_RST. */
const BITS =
  /^[A-Z0-9]+_(?:CTRL|CMD|CR|RXCFG|RCR|STATUS|FEAT|INT|CTL|TXD|TXS|RXS|TSR)_([A-Z0-9]+)$/;
/** Constants that match BITS but are masks, shifts or counts. */
const NO_BIT = /_(?:MASK|SHIFT|NFRAGS|SEGS)$/;

/** A register's name has one word after the prefix. */
const isRegister = (name: string): boolean =>
  /^[A-Z0-9]+_[A-Z0-9]+$/.test(name) && !/_(NSTATS|NPAGES|FRAGS)$/.test(name);

const section = (page: string, n: number): string => page.split(/^## /m)[n]!;

/** The cells of every table row in a section, heading rows included. */
function rows(text: string): string[][] {
  return text
    .split('\n')
    .filter((line) => line.startsWith('|') && !line.startsWith('| --'))
    .map((line) => line.split('|').map((cell) => cell.trim()))
    .map((cells) => cells.slice(1, -1));
}

for (const [nic, { reg, names, statBytes }] of Object.entries(models)) {
  describe(`${nic}: datasheet`, () => {
    const page = readFileSync(join(packageRoot(), 'docs', `${nic}-datasheet.md`), 'utf8');
    const prefix = `${nic.toUpperCase()}_`;
    const constants = Object.entries(reg).filter(
      (entry): entry is [string, number] => typeof entry[1] === 'number',
    );
    const value = (name: string): number | undefined =>
      constants.find(([constant]) => constant === name)?.[1];

    it('lists every register at the offset that the code defines', () => {
      const registers = rows(section(page, 2)).slice(1);
      expect(registers.length).to.be.above(10);
      for (const [offsets, cell] of registers) {
        const at = offsets!.match(/0x[0-9a-f]+/g)!.map(Number);
        const of = cell!.match(/[A-Z][A-Z0-9_]+/g)!;
        // A row such as `A to B` gives offsets for the names in it. The loop below finds the others
        // by name.
        for (const [i, name] of of.entries()) expect(value(name), name).to.equal(at[i]);
      }
      for (const [name, offset] of constants)
        if (isRegister(name) && offset < value(`${prefix}REG_SIZE`)!)
          expect(section(page, 2), `${name} 0x${offset.toString(16)}`).to.include(name);
    });

    it('lists every bit with its name and value', () => {
      const said = new Set<string>();
      for (const found of page.matchAll(/\b([A-Z][A-Z0-9]*) (0x[0-9a-f]+)/g))
        said.add(`${found[1]} ${Number(found[2])}`);
      for (const [name, bit] of rows(page)) said.add(`${name} ${Number(bit)}`);
      const missing = constants
        .filter(([name]) => BITS.test(name) && !NO_BIT.test(name))
        .filter(([name, bit]) => !said.has(`${BITS.exec(name)![1]} ${bit}`));
      expect(missing).to.deep.equal([]);
    });

    it('numbers the statistics as the code does', () => {
      const counted = page.split(/^## \d+\. Statistics$/m)[1]!.split(/^## /m)[0]!;
      const listed = rows(counted)
        .slice(1)
        .flatMap(([numbers, cell]) => {
          const n = numbers!.split(', ').map(Number);
          return cell!.split(', ').map((name, i) => [n[i], name]);
        });
      expect(listed).to.deep.equal(names.map((name, n) => [n, name]));
      const base = value(`${prefix}STATS`)!.toString(16);
      expect(counted).to.include(`Counter n is at 0x${base} + ${statBytes}n`);
      // The *_ST_* constants must match the positions in the list of names.
      for (const [n, name] of names.entries())
        expect(value(`${prefix}ST_${name.toUpperCase()}`), name).to.equal(n);
    });
  });
}
