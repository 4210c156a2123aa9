/** The header of the native build of `tn` against the files that it is generated from. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { HEADER_PATH, tnRegsHeader } from '../../scripts/gen_tnreg.ts';
import { TN_REASON_COUNT, tnReasons } from '../../src/dev/tn/tnreg.ts';
import { packageRoot } from '../support/root.ts';

const root = packageRoot();
const read = (path: string): string => readFileSync(join(root, path), 'utf8');

describe('native: the generated header', () => {
  it('is what the sources give: `npm run gen` writes it', () => {
    expect(read(HEADER_PATH)).to.equal(tnRegsHeader(root));
  });

  it('defines each name once', () => {
    const names = [...read(HEADER_PATH).matchAll(/^constexpr uint32_t (\w+) = /gm)];
    expect(names.length).to.be.above(150);
    expect(new Set(names.map(([, name]) => name)).size).to.equal(names.length);
  });

  it('is the only place in C++ that defines these numbers', () => {
    const folder = 'native-bindings/src';
    const defined =
      /\b((TN|CAPTURE|VNET|ETHER|ETHERTYPE|IPPROTO|TH)_\w+|k?(ADDON_)?ABI)\s*=[^=]|\b0x(0?800|8100|86dd)\b/gi;
    const copies = readdirSync(join(root, folder))
      .filter((name) => /^(tn_|module)/.test(name) && join(folder, name) !== HEADER_PATH)
      .flatMap((name) => (read(join(folder, name)).match(defined) ?? []).map((at) => [name, at]));
    expect(copies).to.deep.equal([]);
  });

  it('has as many reasons as the list that they index', () => {
    expect(tnReasons).to.have.lengthOf(TN_REASON_COUNT);
    expect(new Set(tnReasons).size).to.equal(TN_REASON_COUNT);
  });
});
