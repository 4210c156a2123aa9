/** Many transfers at once, aborted ones, and files that change while they are sent. */

import { expect } from 'chai';
import {
  readFileSync,
  renameSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
  appendFileSync,
} from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Instance } from '../support/instance.ts';
import { full, needs } from '../support/needs.ts';
import { seededBytes, sha256, sha256File, Site, withServed } from '../support/served.ts';

describe('netns: transfers', function () {
  needs('root', 'tap', 'netns', 'curl');
  this.timeout(full ? 300_000 : 120_000);

  it(`${full ? 200 : 60} concurrent downloads, some aborted half-way, deliver the right bytes and leak nothing`, async () => {
    using site = new Site();
    const n = full ? 200 : 60;
    const bytes = [300_000, 1_000_000, 2_500_000].map((size) => site.file(`f${size}`, size));
    const sums = new Map(bytes.map((b) => [`f${b.length}`, sha256(b)]));
    const names = [...sums.keys()];
    await withServed(site, [], async (tapnic) => {
      const jobs = Array.from({ length: n }, async (_, i) => {
        const name = names[i % names.length]!;
        const out = site.path(`out${i}`);
        if (i % 5 === 4) {
          // A client that aborts half-way.
          const r = await tapnic.curl(
            '--max-time',
            '0.3',
            '--limit-rate',
            '200k',
            '-o',
            out,
            tapnic.urlOf(name),
          );
          expect(r.status, 'aborted').to.equal(28);
          return 'aborted';
        }
        const r = await tapnic.curl('-o', out, tapnic.urlOf(name));
        expect(r.status, r.stderr).to.equal(0);
        expect(await sha256File(out)).to.equal(sums.get(name));
        return 'done';
      });
      const ended = await Promise.all(jobs);
      expect(ended.filter((e) => e === 'aborted').length).to.equal(Math.floor(n / 5));
    });
  });

  /** Fetches slowly and runs `change` when some of the body has arrived. */
  async function during(
    tapnic: Instance,
    site: Site,
    change: () => void,
  ): Promise<{ status: number | null; body: Buffer }> {
    const out = site.path('out');
    writeFileSync(out, '');
    const fetching = tapnic.curl('--limit-rate', '8M', '-o', out, tapnic.urlOf('file'));
    for (let i = 0; i < 1000 && statSync(out).size < 1_000_000; i++) await sleep(10);
    change();
    const { status } = await fetching;
    return { status, body: readFileSync(out) };
  }

  const BYTES = 24_000_000;

  it('a file truncated during a transfer: the peer gets what is left of it, then a reset', async () => {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    await withServed(site, [], async (tapnic) => {
      const { status, body } = await during(tapnic, site, () =>
        truncateSync(site.path('file'), 2_000_000),
      );
      expect(status, 'curl: 18 partial file, 56 reset').to.be.oneOf([18, 56]);
      expect(body.length).to.be.lessThan(BYTES);
      const again = await tapnic.curl('-o', site.path('again'), tapnic.urlOf('file'));
      expect(again.status).to.equal(0);
      expect(readFileSync(site.path('again')).equals(bytes.subarray(0, 2_000_000))).to.equal(true);
    });
  });

  it('a file that grows during a transfer is sent with the promised length', async () => {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    await withServed(site, [], async (tapnic) => {
      const { status, body } = await during(tapnic, site, () =>
        appendFileSync(site.path('file'), seededBytes(100_000, 9)),
      );
      expect(status).to.equal(0);
      expect(sha256(body)).to.equal(sha256(bytes));
    });
  });

  it('a file deleted during a transfer is sent to its end; the next request gets 404', async () => {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    await withServed(site, [], async (tapnic) => {
      const { status, body } = await during(tapnic, site, () => unlinkSync(site.path('file')));
      expect(status).to.equal(0);
      expect(sha256(body)).to.equal(sha256(bytes));
      expect((await tapnic.curl('-f', '-o', '/dev/null', tapnic.urlOf('file'))).status).to.equal(
        22,
      );
    });
  });

  it('a file replaced during a transfer: the old one is sent to its end, the next request gets the new one', async () => {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    const next = site.file('next', 3_000_000, 77);
    await withServed(site, [], async (tapnic) => {
      const { status, body } = await during(tapnic, site, () =>
        renameSync(site.path('next'), site.path('file')),
      );
      expect(status).to.equal(0);
      expect(sha256(body)).to.equal(sha256(bytes));
      const again = await tapnic.curl('-o', site.path('again'), tapnic.urlOf('file'));
      expect(again.status).to.equal(0);
      expect(sha256(readFileSync(site.path('again')))).to.equal(sha256(next));
    });
  });

  it('a file changed in place between two requests is not served from the cache', async () => {
    using site = new Site();
    await withServed(site, [], async (tapnic) => {
      for (let i = 0; i < 20; i++) {
        const bytes = site.file('same', 50_000, 1000 + i);
        const r = await tapnic.curl('-o', site.path('out'), tapnic.urlOf('same'));
        expect(r.status).to.equal(0);
        expect(sha256(readFileSync(site.path('out'))), `round ${i}`).to.equal(sha256(bytes));
      }
    });
  });

  it('a file larger than memory: pages are reclaimed, and all downloads finish', async () => {
    using site = new Site();
    const bytes = site.file('file', BYTES);
    await withServed(site, ['--memory', '16M'], async (tapnic) => {
      const jobs = Array.from({ length: 8 }, async (_, i) => {
        const out = site.path(`o${i}`);
        const r = await tapnic.curl('-o', out, tapnic.urlOf('file'));
        expect(r.status, r.stderr).to.equal(0);
        expect(await sha256File(out)).to.equal(sha256(bytes));
      });
      await Promise.all(jobs);
    });
  });
});
