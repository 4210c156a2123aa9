/** Credentials of a Unix socket's peer, and locks on files. */

import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { loadAddon } from '../../native-bindings/index.ts';

const { EAGAIN, EBADF, EINVAL, ENOTSOCK } = constants.errno;

describe('addon: C6: peers and locks', () => {
  const addon = loadAddon();
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-ipc-'))));
  after(() => rmSync(dir, { recursive: true }));

  it('returns pid, uid and gid of the process at the other end', () => {
    const fds = new Int32Array(2);
    expect(addon.socketPair(fds, 0)).to.equal(0);
    const cred = new Uint32Array(3);
    expect(addon.peerCred(fds[0]!, cred)).to.equal(0);
    expect([...cred]).to.deep.equal([process.pid, process.geteuid!(), process.getegid!()]);
    expect(addon.peerCred(fds[0]!, new Uint32Array(2))).to.equal(-EINVAL);
    for (const fd of fds) addon.fdClose(fd);
    expect(addon.peerCred(-1, cred)).to.equal(-EBADF);
    const file = openSync(join(dir, 'file'), 'w');
    expect(addon.peerCred(file, cred)).to.equal(-ENOTSOCK);
    closeSync(file);
  });

  it('locks a file for one descriptor, until that is closed', () => {
    const [a, b] = [openSync(join(dir, 'lock'), 'w'), openSync(join(dir, 'lock'), 'w')];
    expect(addon.fileLock(a)).to.equal(0);
    expect(addon.fileLock(a), 'again').to.equal(0);
    expect(addon.fileLock(b)).to.equal(-EAGAIN);
    closeSync(a);
    expect(addon.fileLock(b)).to.equal(0);
    const c = openSync(join(dir, 'lock'), 'r');
    expect(addon.fileShare(c), 'shared').to.equal(-EAGAIN);
    closeSync(b);
    const d = openSync(join(dir, 'lock'), 'r');
    expect([addon.fileShare(c), addon.fileShare(d), addon.fileLock(c)]).to.deep.equal([
      0,
      0,
      -EAGAIN,
    ]);
    closeSync(d);
    expect(addon.fileLock(c)).to.equal(0);
    closeSync(c);
    expect([addon.fileLock(-1), addon.fileShare(-1)]).to.deep.equal([-EBADF, -EBADF]);
  });
});
