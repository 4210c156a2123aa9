/** The parts of `serve` that need no network: paths, listings, the limit of the log. */

import { expect } from 'chai';
import { LimitedLog } from '../../src/apps/http/limits.ts';
import { listing } from '../../src/apps/http/listing.ts';
import { directoryLocation, percentEncoded, targetOf } from '../../src/apps/http/url_path.ts';
import type { Entries, Folder } from '../../src/sys/folder.ts';
import { counted, R_HTTP_LISTING_UNSORTED, R_HTTP_LOG_LIMIT } from '../../src/sys/reason.ts';

/** A directory of `count` files that is read in pieces of 100. */
class FakeDirectory implements Folder {
  #next = 0;
  readonly #count: number;

  constructor(count: number) {
    this.#count = count;
  }

  lookup(): never {
    throw new Error('not expected');
  }

  stamp(): null {
    return null;
  }

  unchanged(): boolean {
    return false;
  }

  readDir(): Promise<Entries> {
    const parts: Buffer[] = [];
    for (; parts.length < 100 && this.#next < this.#count; this.#next++) {
      const name = Buffer.from(`n${(this.#next * 7919) % 1_000_000}`);
      parts.push(Buffer.from([0, name.length]), name);
    }
    return Promise.resolve({ code: null, bytes: Buffer.concat(parts), end: parts.length === 0 });
  }

  close(): void {}
}

async function listed(count: number): Promise<{ pieces: string[]; names: string[] }> {
  const pieces: string[] = [];
  for await (const piece of listing(new FakeDirectory(count), 0, '/d/')) pieces.push(piece);
  const names = [...pieces.join('').matchAll(/href="([^"]*)"/g)].map((m) => m[1]!);
  return { pieces, names };
}

describe('serve: paths of URLs', () => {
  const path = (url: string): string | number => {
    const target = targetOf(url);
    return typeof target === 'number' ? target : target.path.toString('latin1');
  };

  it('B3: are decoded to bytes, in whatever encoding', () => {
    expect(path('/a/%ff%C3%a4')).to.equal('a/\xff\xc3\xa4');
    expect(path('/caf\xe9')).to.equal('caf\xe9');
    expect(path('/a%2Fb')).to.equal('a/b');
    expect(path('//a/./b//')).to.equal('a/b');
    expect(path('/a?b%zz')).to.equal('a');
    expect(path('http://host')).to.equal('');
    expect(path('https://host/a')).to.equal('a');
  });

  it('B3: are refused if malformed', () => {
    for (const url of ['', 'a', '*', '/%', '/%4', '/%4g', '/%00', 'ftp://host/', '/a\0'])
      expect(path(url), url).to.equal(400);
    for (const url of ['/..', '/../a', '/a/%2e%2e', '/a%2f..'])
      expect(path(url), url).to.equal(403);
  });

  it('B3: redirect to a location on the same host, with the query', () => {
    const location = (url: string): string => {
      const target = targetOf(url);
      return typeof target === 'number' ? String(target) : directoryLocation(target);
    };
    expect(location('//host')).to.equal('/host/');
    expect(location('/%2f/host?a=/b')).to.equal('/host/?a=/b');
    expect(location('/\\host')).to.equal('/%5Chost/');
    expect(location('/a%0d%0aSet-Cookie:x')).to.equal('/a%0D%0ASet-Cookie%3Ax/');
    expect(location('/caf\xe9?\xe9')).to.equal('/caf%E9/?%E9');
  });

  it('B3: are encoded as encodeURIComponent does, but by bytes', () => {
    const ascii = Array.from({ length: 128 }, (_, i) => String.fromCharCode(i)).join('');
    expect(percentEncoded(ascii)).to.equal(encodeURIComponent(ascii));
    expect(percentEncoded('\xff')).to.equal('%FF');
  });
});

describe('serve: listings', () => {
  it('C1: are sorted and made in pieces', async () => {
    const { pieces, names } = await listed(20_000);
    expect(names).to.have.lengthOf(20_000);
    expect(names).to.deep.equal([...names].sort());
    for (const piece of pieces) expect(piece.length).to.be.below(20_000);
  });

  it('C1: are complete but not sorted when there is too much to keep', async () => {
    const before = counted(R_HTTP_LISTING_UNSORTED);
    const { pieces, names } = await listed(100_000);
    expect(new Set(names).size).to.equal(100_000);
    expect(pieces[0]).to.include('Too many entries');
    expect(counted(R_HTTP_LISTING_UNSORTED) - before).to.equal(1);
  });
});

describe('serve: the log', () => {
  it('C2: passes 20 lines at once and 10 lines a second on, and reports the others', () => {
    const lines: string[] = [];
    const write = (fields: object, message: string): void => {
      lines.push(message + JSON.stringify(fields));
    };
    const log = new LimitedLog({ info: write, warn: write });
    const before = counted(R_HTTP_LOG_LIMIT);
    for (let i = 0; i < 100; i++) log.info({}, 'x');
    expect(lines).to.have.lengthOf(20);
    log.second();
    expect(lines.pop()).to.equal('log lines suppressed{"lines":80}');
    expect(counted(R_HTTP_LOG_LIMIT) - before).to.equal(80);
    for (let i = 0; i < 100; i++) log.warn({}, 'x');
    expect(lines).to.have.lengthOf(30);
    log.second();
    log.second();
    expect(lines).to.have.lengthOf(31);
  });
});
