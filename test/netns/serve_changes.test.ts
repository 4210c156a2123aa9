/** Files that change while `tapnic serve` keeps them open, seen by a client on one connection. */

import { expect } from 'chai';
import { join } from 'node:path';
import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

const SUPPORT = join(packageRoot(), 'test/support');

/** What the scripts below share: requests on a connection that stays open. */
const HEAD = `import json, os, sys
sys.path.insert(0, ${JSON.stringify(SUPPORT)})
from http_client import *
c = conn(60)
def ask(target):
    """Status and body."""
    c.sendall(keep(target))
    a = b''
    while b'\\r\\n\\r\\n' not in a: a += c.recv(65536)
    n = int(header(a, b'content-length'))
    while len(body(a)) < n: a += c.recv(1 << 20)
    return status(a), body(a)
def write(name, data, mode='wb'):
    with open(name, mode) as f: f.write(data)
def replace(name, data):
    write(name + '.new', data)
    os.rename(name + '.new', name)
`;

describe('netns: files that change while serve keeps them open', function () {
  needs('root', 'tap', 'netns', 'python3');
  this.timeout(120_000);

  const site = new Site();
  let ns: Netns;
  let tapnic: Instance;

  before(async () => {
    ns = new Netns();
    tapnic = await Instance.start(ns, ['serve', site.dir]);
  });

  after(async () => {
    const exit = await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
  });

  async function python<T>(script: string): Promise<T> {
    const text = `${HEAD}os.chdir(${JSON.stringify(site.dir)})\n${script}`;
    const { status, stdout, stderr } = await ns.run('python3', ['-c', text], {
      timeoutMs: 110_000,
    });
    expect(status, stderr).to.equal(0);
    const value: T = JSON.parse(stdout);
    return value;
  }

  it('are seen as they are at the time of the request', async () => {
    const wrong = await python<string[]>(`
wrong = []
def expect(what, target, code, data=None):
    # Twice: the second request finds the file open.
    for i in range(2):
        got = ask(target)
        if got[0] != code or (data is not None and got[1] != data): wrong.append('%s: %r' % (what, got))
for i in range(20):
    write('f', b'first' * 1000); expect('new', b'/f', 200, b'first' * 1000)
    write('f', b'tail', 'ab'); expect('longer', b'/f', 200, b'first' * 1000 + b'tail')
    os.truncate('f', 7); expect('truncated', b'/f', 200, b'firstfi')
    os.truncate('f', 0); expect('empty', b'/f', 200, b'')
    replace('f', b'replaced'); expect('replaced', b'/f', 200, b'replaced')
    replace('f', b'REPLACED'); expect('replaced, same size', b'/f', 200, b'REPLACED')
    time.sleep(0.02)
    write('f', b'rewritten'[:8], 'r+b'); expect('rewritten', b'/f', 200, b'rewritte')
    os.unlink('f'); expect('removed', b'/f', 404)
    os.mkdir('f'); expect('a directory', b'/f', 301)
    os.rmdir('f'); os.symlink('/etc/passwd', 'f'); expect('a link out', b'/f', 403)
    os.unlink('f'); os.mkdir('d')
    write('d/index.html', b'index'); expect('index', b'/d/', 200, b'index')
    os.rename('d', 'e'); expect('moved', b'/d/', 404)
    expect('moved there', b'/e/', 200, b'index')
    os.unlink('e/index.html'); expect('no index', b'/e/', 200)
    if b'Index of' not in ask(b'/e/')[1]: wrong.append('not listed')
    os.rmdir('e')
print(json.dumps(wrong[:5]))
`);
    expect(wrong).to.deep.equal([]);
  });

  it('are never mixed: 3 clients fetch a file that is replaced without a pause', async () => {
    const [mixed, fetched, versions] = await python<[string[], number, number]>(`
SIZE = 150000
replace('v', b'A' * SIZE)
stop = time.time() + 4
mixed, fetched, seen = [], [0], set()
def fetch():
    k = conn(60)
    while time.time() < stop:
        k.sendall(keep(b'/v'))
        a = b''
        while b'\\r\\n\\r\\n' not in a: a += k.recv(65536)
        n = int(header(a, b'content-length'))
        while len(body(a)) < n: a += k.recv(1 << 20)
        b = body(a)
        if len(b) != n or len(set(b)) != 1: mixed.append('%d bytes of %d, %r' % (len(b), n, set(b)))
        seen.add(b[0]); fetched[0] += 1
threads = [threading.Thread(target=fetch) for i in range(3)]
for t in threads: t.start()
i = 0
while time.time() < stop:
    i += 1
    replace('v', bytes([65 + i % 26]) * (SIZE + i % 7 * 1000))
    time.sleep(0.002)
for t in threads: t.join()
print(json.dumps([mixed[:3], fetched[0], len(seen)]))
`);
    expect(mixed).to.deep.equal([]);
    expect(fetched).to.be.above(20);
    expect(versions).to.be.above(3);
  });

  it('a file that becomes shorter during the response ends the connection with a reset', async () => {
    const ends = await python<string[]>(`
ends = []
for i in range(3):
    write('t', b'x' * 8000000)
    with socket.socket() as k:
        k.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        k.settimeout(60)
        k.connect(ADDR)
        k.sendall(keep(b'/t'))
        k.recv(1000)
        time.sleep(0.2)
        os.truncate('t', 1000)
        a = rest(k)
        ends.append(a[-5:].decode('latin1'))
print(json.dumps(ends))
`);
    expect(ends).to.deep.equal(['RESET', 'RESET', 'RESET']);
  });
});
