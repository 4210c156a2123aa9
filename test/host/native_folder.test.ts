/** Look-ups below a real directory: what they open and what they do not. */

import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  mkdirSync,
  mkdtempSync,
  readSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
} from 'node:fs';
import { writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { NativeFolder } from '../../src/host/native_folder.ts';

describe('host: look-ups in a directory', () => {
  const dir = realpathSync(mkdtempSync(join(tmpdir(), 'tapnic-jobs-')));
  let folder: NativeFolder;

  before(() => {
    folder = new NativeFolder(dir);
    writeFileSync(join(dir, 'file'), 'content');
    mkdirSync(join(dir, 'sub'));
    writeFileSync(join(dir, 'sub', 'inner'), '');
    execFileSync('mkfifo', [join(dir, 'fifo')]);
    for (const [name, target] of [
      ['in', 'sub/../file'],
      ['absolute', join(dir, 'file')],
      ['out', '../../etc/passwd'],
      ['outAbsolute', '/etc/passwd'],
      ['device', '/dev/zero'],
      ['loop', 'loop'],
      ['magic', '/proc/self/root/etc/passwd'],
    ] as const)
      symlinkSync(target, join(dir, name));
  });
  after(() => rmSync(dir, { recursive: true }));

  const look = (name: string, openDir = false): ReturnType<NativeFolder['lookup']> =>
    folder.lookup(Buffer.from(name), openDir);

  it('C5: open a file inside, with its size and real path', async () => {
    for (const name of ['file', 'in', 'absolute', './sub/../file']) {
      const found = await look(name);
      expect(found, name).to.include({
        code: null,
        kind: 'file',
        size: 7,
        path: join(dir, 'file'),
      });
      const text = Buffer.alloc(20);
      expect(text.toString('latin1', 0, readSync(found.fd, text))).to.equal('content');
      folder.close(found.fd);
    }
  });

  it('answer a second look-up from the cache of the kernel, in the same turn', async () => {
    const close = (fd: number): void => folder.close(fd);
    close((await look('file')).fd);
    let turned = false;
    setImmediate(() => (turned = true));
    const found = await look('file');
    close(found.fd);
    expect(turned).to.equal(false);
    expect(found).to.include({ code: null, kind: 'file', size: 7, path: join(dir, 'file') });
  });

  it('see that a file was replaced or removed', async () => {
    const name = join(dir, 'changed');
    writeFileSync(name, 'old');
    folder.close((await look('changed')).fd);
    renameSync(join(dir, 'changed'), join(dir, 'moved'));
    expect(await look('changed')).to.include({ code: 'ENOENT', fd: -1 });
    rmSync(join(dir, 'moved'));
    symlinkSync('/etc/passwd', name);
    expect(await look('changed')).to.include({ code: 'EACCES', fd: -1 });
    rmSync(name);
    writeFileSync(name, 'longer');
    const found = await look('changed');
    expect(found).to.include({ code: null, kind: 'file', size: 6 });
    rmSync(name);
    folder.close(found.fd); // its last name is gone: a thread closes it
  });

  it('see whether an open file is still the one of its name, unchanged', async () => {
    const path = join(dir, 'stamped');
    const write = (text: string): void => writeFileSync(path, text);
    const name = Buffer.from('stamped');
    /** What a stamp says before and after a change. */
    const seen = async (change: () => void): Promise<[boolean, boolean]> => {
      write('content');
      const { fd } = await look('stamped');
      const stamp = folder.stamp(name, fd);
      const before = stamp !== null && folder.unchanged(stamp);
      change();
      const after = stamp !== null && folder.unchanged(stamp);
      folder.close(fd);
      return [before, after];
    };
    expect(await seen(() => undefined)).to.eql([true, true]);
    expect(await seen(() => truncateSync(path, 3))).to.eql([true, false]);
    expect(await seen(() => write('longer content'))).to.eql([true, false]);
    expect(await seen(() => rmSync(path))).to.eql([true, false]);
    expect(await seen(() => chmodSync(path, 0o600))).to.eql([true, false]);
    const replace = (): void => {
      writeFileSync(join(dir, 'other'), 'another');
      renameSync(join(dir, 'other'), path);
    };
    expect(await seen(replace)).to.eql([true, false]);
    const link = (): void => {
      renameSync(path, join(dir, 'moved'));
      symlinkSync('moved', path);
    };
    expect(await seen(link)).to.eql([true, false]);
    rmSync(path);
    rmSync(join(dir, 'moved'));
    // A name with a link on the way is looked up each time.
    const { fd } = await look('in');
    expect(folder.stamp(Buffer.from('in'), fd)).to.equal(null);
    folder.close(fd);
  });

  it('C5: open nothing else', async () => {
    for (const name of ['out', 'outAbsolute', 'device', 'magic', '..', '/etc/passwd'])
      expect(await look(name), name).to.include({ code: 'EACCES', fd: -1 });
    expect(await look('fifo')).to.include({ code: null, kind: 'other', fd: -1 });
    expect(await look('none')).to.include({ code: 'ENOENT', fd: -1 });
    expect(await look('file/')).to.include({ code: 'ENOTDIR', fd: -1 });
    expect(await look('loop')).to.include({ code: 'ELOOP', fd: -1 });
    expect(await look('sub')).to.include({ code: null, kind: 'directory', fd: -1 });
  });

  it('C1: read a directory, with the kind of each entry and of what a link names', async () => {
    const { fd } = await look('.', true);
    const names: string[] = [];
    for (;;) {
      const { code, bytes, end } = await folder.readDir(fd);
      expect(code).to.equal(null);
      for (let i = 0; i < bytes.length; i += 2 + bytes[i + 1]!)
        names.push(
          bytes.toString('latin1', i + 2, i + 2 + bytes[i + 1]!) + ['', '/', ' refused'][bytes[i]!],
        );
      if (end) break;
    }
    folder.close(fd);
    expect(names.sort()).to.deep.equal(
      [
        'absolute',
        'device refused',
        'fifo refused',
        'file',
        'in',
        'loop refused',
        'magic refused',
        'out refused',
        'outAbsolute refused',
        'sub/',
      ].sort(),
    );
  });

  it('stay on the mount of the directory unless told otherwise', async () => {
    const root = new NativeFolder('/');
    const found = await root.lookup(Buffer.from('proc/version'), false);
    expect(found).to.include({ code: null, kind: 'file' });
    root.close(found.fd);
  });
});
