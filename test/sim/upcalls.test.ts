import { expect } from 'chai';
import { full } from '../support/needs.ts';
import { type Deck, decks, runUpcallWorld, sysctls } from './upcalls.ts';

const WORLDS = full ? 200 : 8;
const CALLS = 600;

/** Where programs call the stack from. */
const KINDS =
  'data connect connection drain finish end close timeout error sendfile kqueue message promise outside';

describe('programs that call the stack from its upcalls', () => {
  it(`receive what was sent, in ${WORLDS} worlds of ${CALLS} calls`, async function () {
    this.timeout(full ? 1_200_000 : 120_000);
    const only = process.env['TAPNIC_SEED'];
    const first = only === undefined ? 1 : Number(only);
    const last = only === undefined ? WORLDS : first;
    const kinds: Record<string, number> = {};
    let bytes = 0;
    let grown = 0;
    for (let seed = first; seed <= last; seed++) {
      const r = await runUpcallWorld(seed, CALLS).catch((e: unknown) => {
        throw new Error(`TAPNIC_SEED=${seed}`, { cause: e });
      });
      expect(r.wrong.slice(0, 3).join('\n'), `TAPNIC_SEED=${seed}`).to.equal('');
      bytes += r.bytes;
      grown += r.grown;
      for (const [kind, n] of Object.entries(r.kinds)) kinds[kind] = (kinds[kind] ?? 0) + n;
    }
    if (only !== undefined) return;
    expect(bytes, 'bytes compared').to.be.above(WORLDS * 50_000);
    expect(grown, 'send buffers that grew in a call').to.be.above(0);
    for (const kind of KINDS.split(' ')) expect(kinds[kind], kind).to.be.above(0);
    const all: Record<string, Deck> = { ...decks, sysctls: sysctls! };
    for (const [name, { names, seen }] of Object.entries(all))
      expect(
        names.filter((one) => !seen.has(one)),
        `${name}: never called`,
      ).to.deep.equal([]);
  });
});
