import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { type Deck, decks } from './decks.ts';
import { runUpcallWorld, sysctls } from './upcalls.ts';

/** IPv6 has fewer worlds at CI size. */
const FAMILIES = [
  { six: false, title: 'IPv4', worlds: full ? 200 : 8 },
  { six: true, title: 'IPv6', worlds: full ? 200 : 4 },
];
const CALLS = 600;

/** Where programs call the stack from. */
const KINDS =
  'data connect connection drain finish end close timeout error sendfile kqueue message promise outside';

describe('programs that call the stack from its upcalls', () => {
  for (const { six, title, worlds } of FAMILIES)
    it(`receive what was sent, in ${worlds} worlds of ${CALLS} calls, ${title}`, async function () {
      this.timeout(full ? 1_200_000 : 120_000);
      const only = process.env['TAPNIC_SEED'];
      const first = only === undefined ? 1 : Number(only);
      const last = only === undefined ? worlds : first;
      const kinds: Record<string, number> = {};
      let bytes = 0;
      let grown = 0;
      for (let seed = first; seed <= last; seed++) {
        const r = await runUpcallWorld(seed, CALLS, six).catch((e: unknown) => {
          throw new Error(`TAPNIC_SEED=${seed}`, { cause: e });
        });
        expect(r.wrong.slice(0, 3).join('\n'), `TAPNIC_SEED=${seed}`).to.equal('');
        bytes += r.bytes;
        grown += r.grown;
        for (const [kind, n] of Object.entries(r.kinds)) kinds[kind] = (kinds[kind] ?? 0) + n;
      }
      if (only !== undefined) return;
      expect(bytes, 'bytes compared').to.be.above(worlds * 50_000);
      expect(grown, 'send buffers that grew in a call').to.be.above(0);
      for (const kind of KINDS.split(' ')) expect(kinds[kind], kind).to.be.above(0);
    });

  it('call everything', function () {
    if (process.env['TAPNIC_SEED'] !== undefined) return;
    const all: Record<string, Deck> = { ...decks, sysctls: sysctls! };
    for (const [name, { names, seen }] of Object.entries(all))
      expect(
        names.filter((one) => !seen.has(one)),
        `${name}: never called`,
      ).to.deep.equal([]);
  });
});
