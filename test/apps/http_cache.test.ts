/** Files that `serve` keeps open: when they are checked, used again and closed. */

import { expect } from 'chai';
import { FileCache, OpenFile } from '../../src/apps/http/file_cache.ts';
import type { FileStamp, Folder } from '../../src/sys/folder.ts';
import { inPass } from '../../src/sys/pass.ts';
import { counted, R_HTTP_FILE_EVICTED } from '../../src/sys/reason.ts';

const LIMIT = 256;

/** A folder whose files are all unchanged, unless the test says otherwise. */
class FakeFolder implements Folder {
  readonly closed: number[] = [];
  /** Paths of files that have changed. */
  readonly changed = new Set<string>();
  checks = 0;
  canStamp = true;

  stamp(name: Buffer): FileStamp | null {
    return this.canStamp ? { path: name, stat: new Float64Array(7) } : null;
  }

  unchanged({ path }: FileStamp): boolean {
    this.checks++;
    return !this.changed.has(Buffer.from(path).toString());
  }

  lookup(): never {
    throw new Error('not expected');
  }

  readDir(): never {
    throw new Error('not expected');
  }

  close(fd: number): void {
    this.closed.push(fd);
  }

  /** An open file, as a look-up finds it. */
  file(fd: number): OpenFile {
    const name = Buffer.from(`f${fd}`);
    return new OpenFile(this, { kind: 'file', fd, size: 1, mtimeMs: 0, path: `/f${fd}`, name });
  }
}

describe('serve: open files', () => {
  let folder: FakeFolder;
  let cache: FileCache;

  beforeEach(() => {
    folder = new FakeFolder();
    cache = new FileCache(folder);
  });

  const get = (target: string): OpenFile | null => inPass(() => cache.get(target));

  it('are checked once in a pass', () => {
    const file = folder.file(3);
    expect(cache.put('/f3', file)).to.equal(true);
    inPass(() => {
      expect(cache.get('/f3')).to.equal(file);
      expect(cache.get('/f3')).to.equal(file);
    });
    expect(folder.checks).to.equal(1);
    expect(get('/f3')).to.equal(file);
    expect(folder.checks).to.equal(2);
    expect(get('/f4')).to.equal(null);
  });

  it('are closed and not used if they have changed', () => {
    cache.put('/f3', folder.file(3));
    folder.changed.add('f3');
    expect(get('/f3')).to.equal(null);
    expect(folder.closed).to.deep.equal([3]);
    folder.changed.clear();
    expect(get('/f3')).to.equal(null);
  });

  it('are not kept if they cannot be checked, or by a long target', () => {
    expect(cache.put('/'.padEnd(513, 'a'), folder.file(3))).to.equal(false);
    folder.canStamp = false;
    expect(cache.put('/f4', folder.file(4))).to.equal(false);
    expect(folder.closed).to.deep.equal([]);
  });

  it('are limited in number: the first one that was not used lately is closed', () => {
    const before = counted(R_HTTP_FILE_EVICTED);
    for (let fd = 0; fd < LIMIT; fd++) cache.put(`/f${fd}`, folder.file(fd));
    cache.sweep();
    get('/f0');
    cache.put('/more', folder.file(LIMIT));
    expect(folder.closed).to.deep.equal([1]);
    expect(counted(R_HTTP_FILE_EVICTED) - before).to.equal(1);
    expect(get('/f0')).not.to.equal(null);
    expect(get('/more')).not.to.equal(null);
  });

  it('are replaced if two requests looked the same target up', () => {
    const second = folder.file(4);
    cache.put('/f', folder.file(3));
    cache.put('/f', second);
    expect(folder.closed).to.deep.equal([3]);
    expect(get('/f')).to.equal(second);
  });

  it('are closed when they were not used between two sweeps, and at the end', () => {
    cache.put('/f3', folder.file(3));
    cache.put('/f4', folder.file(4));
    cache.sweep();
    get('/f4');
    cache.sweep();
    expect(folder.closed).to.deep.equal([3]);
    cache.close();
    expect(folder.closed).to.deep.equal([3, 4]);
    expect(cache.put('/f5', folder.file(5))).to.equal(false);
  });
});
