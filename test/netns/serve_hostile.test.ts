/** Clients that `tapnic serve` has to survive, with raw sockets from the Linux side, nc and curl. */

import { expect } from 'chai';
import type { ChildProcess } from 'node:child_process';
import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdirSync, readdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server } from 'node:net';
import { join } from 'node:path';
import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

const SUPPORT = join(packageRoot(), 'test/support');
const LISTED = 20_500;
/** Descriptors of the instance besides files that are served. */
const FDS_MAX = 60;

/** Runs a Python program, behind `from http_client import *`; returns what it prints, parsed as JSON. */
async function python<T>(ns: Netns, script: string): Promise<T> {
  const head = `import json, sys\nsys.path.insert(0, ${JSON.stringify(SUPPORT)})\nfrom http_client import *\n`;
  const { status, stdout, stderr } = await ns.run('python3', ['-c', head + script], {
    timeoutMs: 110_000,
  });
  expect(status, stderr).to.equal(0);
  const value: T = JSON.parse(stdout);
  return value;
}

/** Counts of the layer http by reason. */
async function counts(tapnic: Instance): Promise<Record<string, number>> {
  const { reasons } = await tapnic.json<{
    reasons: { layer: string; reason: string; count: number }[];
  }>('netstat', '-s');
  return Object.fromEntries(
    reasons.filter(({ layer }) => layer === 'http').map(({ reason, count }) => [reason, count]),
  );
}

/** Runs `body` while another client fetches /small; resolves with its longest wait in ms. */
async function besides(tapnic: Instance, body: () => Promise<void>): Promise<number> {
  const others = new AbortController();
  let longest = 0;
  const loop = (async (): Promise<void> => {
    while (!others.signal.aborted) {
      const r = await tapnic.curl('-o', '/dev/null', '-w', '%{time_total}', tapnic.urlOf('small'));
      expect(r.status, r.stderr).to.equal(0);
      longest = Math.max(longest, Number(r.stdout) * 1000);
    }
  })();
  try {
    await body();
  } finally {
    others.abort();
  }
  await loop;
  return longest;
}

describe('netns: hostile clients of serve', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3', 'nc');
  this.timeout(120_000);

  const site = new Site();
  let ns: Netns;
  let tapnic: Instance;
  let unix: Server;

  before(async () => {
    site.file('small', 1024);
    site.file('large', 3_000_000);
    writeFileSync(site.path('tap'), 'tap');
    for (const dir of ['dir', 'host', 'listed']) mkdirSync(site.path(dir));
    writeFileSync(
      Buffer.concat([Buffer.from(site.path('dir/')), Buffer.from('ff2dfe', 'hex')]),
      'bytes',
    );
    for (let i = 0; i < LISTED; i++) writeFileSync(site.path(`listed/entry-${i}`), '');
    execFileSync('mkfifo', [site.path('fifo')]);
    for (const [name, target] of [
      ['zero', '/dev/zero'],
      ['tty', '/dev/tty'],
      ['passwd', '/etc/passwd'],
      ['inside', 'small'],
      ['broken', 'nothing'],
      ['absolute', site.path('small')],
    ] as const)
      symlinkSync(target, site.path(name));
    unix = createServer().listen(site.path('socket'));
    await once(unix, 'listening');
    ns = new Netns();
    tapnic = await Instance.start(ns, ['serve', site.dir]);
  });

  after(async () => {
    const exit = await tapnic.stop();
    unix.close();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
  });

  const fds = (): number => readdirSync(`/proc/${tapnic.pid}/fd`).length;
  const rssMb = (): number =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${tapnic.pid}/status`, 'utf8'))![1]) / 1024;

  it('B1: sends header and body of a small file in one segment, at once', async () => {
    const { ms, whole } = await python<{ ms: number; whole: number }>(
      ns,
      `
c = conn()
whole = 0
t = time.time()
for i in range(200):
    c.sendall(keep(b'/small'))
    a = c.recv(65536)
    whole += b'\\r\\n\\r\\n' in a and len(body(a)) == 1024
    while len(body(a)) < 1024: a += c.recv(65536)
print(json.dumps({'ms': (time.time() - t) / 200 * 1000, 'whole': whole}))
`,
    );
    // The header leaves alone only while the file's page is read from the disk.
    expect(whole).to.be.above(190);
    // Nagle's algorithm and a delayed ACK make it 40 ms.
    expect(ms).to.be.below(20);
  });

  it('B1: answers a client that has ended its side', async () => {
    const nc = (request: string): Promise<string> =>
      ns.execAsync('sh', ['-c', `printf '${request}' | nc -N 192.0.2.2 80`]);
    expect(await nc('GET /tap HTTP/1.0\\r\\n\\r\\n')).to.match(/^HTTP\/1.1 200 [^]*\r\n\r\ntap$/);
    const two = 'GET /tap HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n'.repeat(2);
    expect((await nc(two)).match(/\r\n\r\ntap/g)).to.have.lengthOf(2);
  });

  for (const count of [1500, 25_000])
    it(`B2, C1: ${count} pipelined requests are answered in order with one file open`, async () => {
      const before = rssMb();
      let most = 0;
      const watch = setInterval(() => (most = Math.max(most, fds())), 20);
      const longest = await besides(tapnic, async () => {
        const good = await python<number>(
          ns,
          `
c = conn(100)
sent = keep(b'/small') + keep(b'/tap')
threading.Thread(target=lambda: c.sendall(sent * (${count} // 2 - 1) + keep(b'/small') + request(b'/tap'))).start()
parts = rest(c).split(b'HTTP/1.1 200 OK')[1:]
good = sum(len(body(p)) == (3 if i % 2 else 1024) for i, p in enumerate(parts))
print(good)
`,
        );
        expect(good).to.equal(count);
      });
      clearInterval(watch);
      expect(most).to.be.above(0).and.below(FDS_MAX);
      expect(rssMb() - before).to.be.below(150);
      expect(longest).to.be.below(5000);
    });

  it('C1: 150 pipelined requests for a large directory hold nobody up', async () => {
    const before = rssMb();
    const longest = await besides(tapnic, async () => {
      const got = await python<[number, number]>(
        ns,
        `
silent = conn(100)
silent.sendall(keep(b'/listed/') * 150)
c = conn(100)
c.sendall(keep(b'/listed/') * 149 + request(b'/listed/'))
answer = rest(c)
print(json.dumps([answer.count(b'HTTP/1.1 200'), answer.count(b'</ul>')]))
`,
      );
      expect(got).to.deep.equal([150, 150]);
    });
    expect(rssMb() - before).to.be.below(200);
    expect(longest).to.be.below(5000);
  });

  it('C1: a long listing is complete and sorted', async () => {
    const { stdout } = await tapnic.curl(`${tapnic.url}listed/`);
    const names = [...stdout.matchAll(/href="([^"]*)"/g)].map((m) => m[1]!);
    expect(names).to.have.lengthOf(LISTED);
    expect(names).to.deep.equal([...names].sort());
  });

  it('B3: a redirect stays on the site and keeps the query', async () => {
    const locations = await python<Record<string, string | null>>(
      ns,
      `
out = {}
for t in ['/dir', '/dir?x=1&y', '//host', '///host?q', '/.//host', '/\\\\\\\\host', '/%5chost', 'http://a//host?y', '/%2fhost']:
    a = get(t.encode())
    l = header(a, b'location')
    out[t] = str(status(a)) if l is None else l.decode()
print(json.dumps(out))
`,
    );
    expect(locations).to.deep.equal({
      '/dir': '/dir/',
      '/dir?x=1&y': '/dir/?x=1&y',
      '//host': '/host/',
      '///host?q': '/host/?q',
      '/.//host': '/host/',
      '/\\\\host': '404',
      '/%5chost': '404',
      'http://a//host?y': '/host/?y',
      '/%2fhost': '/host/',
    });
  });

  it('B3: names that are not UTF-8 are listed and fetched by their bytes', async () => {
    const [list, encoded, raw] = await python<string[]>(
      ns,
      `
bodies = [body(get(t)) for t in [b'/dir/', b'/dir/%ff-%FE', b'/dir/\\xff-\\xfe']]
print(json.dumps([b.decode('latin1') for b in bodies]))
`,
    );
    expect(list).to.include('href="%FF-%FE"');
    expect(encoded).to.equal('bytes');
    expect(raw).to.equal('bytes');
  });

  it('a listing links what can be fetched, and shows the other entries', async () => {
    const links = await python<[string, number][]>(
      ns,
      `
import re
page = body(get(b'/')).decode()
shown = re.findall('<li>(?:<a href="([^"]*)">)?([^<]*)', page)
print(json.dumps([(name, status(get(b'/' + href.encode())) if href else 0) for href, name in shown]))
`,
    );
    const linked = links.filter(([, code]) => code > 0);
    expect(linked.filter(([, code]) => code !== 200)).to.eql([]);
    expect(linked.map(([name]) => name)).to.include.members(['absolute', 'dir/', 'inside', 'tap']);
    expect(links.filter(([, code]) => code === 0).map(([name]) => name)).to.eql([
      'broken',
      'fifo',
      'passwd',
      'socket',
      'tty',
      'zero',
    ]);
    expect(links.map(([name]) => name)).to.eql(links.map(([name]) => name).toSorted());
  });

  it('lines that end with LF alone, also in parts; pipelined, too', async () => {
    const answers = await python<string[]>(
      ns,
      `
def send(*parts):
    with conn() as c:
        for p in parts:
            c.sendall(p)
            time.sleep(0.05)
        c.shutdown(socket.SHUT_WR)
        return rest(c).decode('latin1')
print(json.dumps([
    send(b'GET /tap HTTP/1.0\\n\\n'),
    send(b'\\nGET /tap HTTP/1.1\\nHost: x\\n\\n'),
    send(b'GET /tap HTTP/1.1\\r', b'\\nHost: x\\r\\n', b'\\n'),
    send(b'GET /tap HTTP/1.1\\nHost: x', b'\\n', b'\\nGET /tap HTTP/1.1\\r\\nHost: x\\n\\r\\n'),
    send(b'GET /tap HTTP/1.1\\nHost: x\\nContent-Length: 3\\n\\n\\n\\n\\nGET /tap HTTP/1.0\\n\\n'),
    send(b'GET /tap HTTP/1.1\\nHost: x\\nA: b\\n c\\n\\n'),
    send(b'GET /tap HTTP/1.1\\nHost: x\\rA: b\\n\\n'),
]))
`,
    );
    const statuses = answers.map((text) => [...text.matchAll(/HTTP\/1.1 (\d+)/g)].map((m) => m[1]));
    expect(statuses).to.eql([
      ['200'],
      ['200'],
      ['200'],
      ['200', '200'],
      ['200', '200'],
      ['400'],
      ['400'],
    ]);
  });

  it('OPTIONS, CONNECT and unknown methods have an answer with Allow', async () => {
    const seen = await python<[number, string | null][]>(
      ns,
      `
answers = [get(t, method=m) for m, t in [(b'OPTIONS', b'*'), (b'OPTIONS', b'/tap'), (b'CONNECT', b'x:80'), (b'POST', b'/tap'),
    (b'FOO', b'/tap'), (b'foo', b'/tap'), (b'GET', b'*')]] + [get(b'/tap', version=b'2.0'), get(b'/tap', version=b'0.9')]
print(json.dumps([(status(a), (header(a, b'Allow') or b'').decode()) for a in answers]))
`,
    );
    const allow = 'GET, HEAD, OPTIONS';
    expect(seen).to.eql([
      [204, allow],
      [204, allow],
      [405, allow],
      [405, allow],
      [405, allow],
      [400, ''],
      [400, ''],
      [505, ''],
      [505, ''],
    ]);
  });

  it('conditions and ranges of RFC 9110: dates, weak tags, lists of one range', async () => {
    const seen = await python<number[]>(
      ns,
      `
tag = header(get(b'/tap'), b'ETag')
day = header(get(b'/tap'), b'Last-Modified')
t = time.strptime(day.decode(), '%a, %d %b %Y %H:%M:%S GMT')
print(json.dumps([status(get(b'/tap', headers=(b'Host: x', h))) for h in [
    b'If-Modified-Since: 2090', b'If-Modified-Since: ' + day,
    b'If-Modified-Since: ' + time.strftime('%a %b %e %H:%M:%S %Y', t).encode(),
    b'If-Modified-Since: ' + time.strftime('%A, %d-%b-%y %H:%M:%S GMT', t).encode(),
    b'If-Match: W/' + tag, b'If-Match: ' + tag, b'If-None-Match: W/' + tag,
    b'Range: Bytes=0-1', b'Range: bytes= 0-1, ', b'Range: bytes=,-2', b'Range: bytes=0-0,1-1', b'Range: bytes=9-']]))
`,
    );
    expect(seen).to.eql([200, 304, 304, 304, 412, 200, 304, 206, 206, 206, 200, 416]);
  });

  it('B3: malformed paths have a clear answer', async () => {
    const statuses = await python<Record<string, number>>(
      ns,
      `
print(json.dumps({t: status(get(t.encode())) for t in
    ['/%00', '/small%00', '/%', '/%4', '/%zz', '/..', '/%2e%2e/x', '/..%2fx', '/dir%2f', 'small', '*', '/small/', '/a*?' ]}))
`,
    );
    expect(statuses).to.deep.equal({
      '/%00': 400,
      '/small%00': 400,
      '/%': 400,
      '/%4': 400,
      '/%zz': 400,
      '/..': 403,
      '/%2e%2e/x': 403,
      '/..%2fx': 403,
      '/dir%2f': 200,
      small: 400,
      '*': 400,
      '/small/': 404,
      '/a*?': 404,
    });
  });

  it('C4: an error in a later request follows the answer to an earlier one', async () => {
    const [malformed, hosts, method] = await python<number[][]>(
      ns,
      `
def statuses(later):
    with conn() as c:
        c.sendall(keep(b'/large') + later)
        a = rest(c)
        first = len(body(a[:2000])) and a.index(b'\\r\\n\\r\\n') + 4 + 3000000
        return [status(a), status(a[first:])]
print(json.dumps([statuses(l) for l in
    [b'\\0\\xffjunk\\r\\n\\r\\n', b'GET / HTTP/1.1\\r\\nHost: a\\r\\nHost: b\\r\\nConnection: close\\r\\n\\r\\n', b'CONNECT a:1 HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n']]))
`,
    );
    expect(malformed).to.deep.equal([200, 400]);
    expect(hosts).to.deep.equal([200, 400]);
    expect(method).to.deep.equal([200, 405]);
  });

  it('C5: nothing but regular files is opened, and a FIFO does not wake its writer', async () => {
    // A shell that waits in open(2) for a reader of the FIFO.
    const writer = spawn('sh', ['-c', `exec 3>'${site.path('fifo')}'`], { stdio: 'ignore' });
    const ended = once(writer, 'exit');
    const statuses = await python<number[]>(
      ns,
      `
print(json.dumps([status(get(b'/' + n)) for n in [b'fifo', b'zero', b'tty', b'socket', b'passwd', b'inside', b'absolute']]))
`,
    );
    expect(statuses).to.deep.equal([403, 403, 403, 403, 403, 200, 200]);
    expect(writer.exitCode, 'the writer still waits').to.equal(null);
    writer.kill('SIGKILL');
    await ended;
  });

  it('C5: a missing, a second or an invalid Host is 400', async () => {
    const statuses = await python<number[]>(
      ns,
      `
print(json.dumps([status(get(b'/tap', headers=h, version=v)) for h, v in [
    ((b'Host: x', b'Host: x'), b'1.1'), ((b'Host: x', b'host: y'), b'1.0'), ((), b'1.1'), ((b'Host: a b',), b'1.1'),
    ((), b'1.0'), ((b'Host: [2001:db8::1]:80',), b'1.1')]]))
`,
    );
    expect(statuses).to.deep.equal([400, 400, 400, 400, 200, 200]);
  });

  it('C2: refuses long bodies, and ignores short ones', async () => {
    const before = await counts(tapnic);
    const code = async (...args: string[]): Promise<string> =>
      (await tapnic.curl('-o', '/dev/null', '-w', '%{http_code}', ...args, tapnic.urlOf('tap')))
        .stdout;
    expect(await code('-X', 'GET', '-d', 'short')).to.equal('200');
    expect(await code('-X', 'GET', '-d', `@${site.path('large')}`)).to.equal('413');
    expect(await code('-H', 'Transfer-Encoding: chunked', '-d', 'x')).to.equal('411');
    expect((await counts(tapnic))['body_refused']! - before['body_refused']!).to.equal(2);
  });
});

describe('netns: limits of serve', function () {
  needs('root', 'tap', 'netns', 'python3');
  this.timeout(60_000);

  const site = new Site();
  let ns: Netns;
  let tapnic: Instance;

  before(async () => {
    site.file('small', 1024);
    site.file('large', 5_000_000);
    ns = new Netns();
    tapnic = await Instance.start(ns, [
      'serve',
      site.dir,
      '--max-connections=8',
      '--header-timeout=2',
      '--idle-timeout=2',
      '--send-timeout=3',
    ]);
  });

  after(async () => {
    const exit = await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
  });

  it('C2, B1: ends silent, slow and idle clients, and those that do not read', async () => {
    const seen = await python<Record<string, number | string>>(
      ns,
      `
silent, slow, idle, stalled = conn(), conn(), conn(), socket.socket()
slow.sendall(b'GET /small HTTP/1.1\\r\\nHo')
idle.sendall(keep(b'/small'))
stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
stalled.settimeout(20)
stalled.connect(ADDR)
stalled.sendall(keep(b'/large'))
time.sleep(6)
out = {'silent': status(rest(silent)), 'slow': status(rest(slow)), 'idle': len(body(rest(idle)))}
out['stalled'] = rest(stalled)[-5:].decode('latin1')
print(json.dumps(out))
`,
    );
    expect(seen).to.deep.equal({ silent: 408, slow: 408, idle: 1024, stalled: 'RESET' });
    const after = await counts(tapnic);
    expect(after).to.include({ request_timeout: 2, idle_timeout: 1, send_stall: 1 });
  });

  it('C2: answers connections over the limit with 503', async () => {
    const seen = await python<number[]>(
      ns,
      `
cs = [conn() for i in range(12)]
time.sleep(0.3)
for c in cs: c.sendall(keep(b'/small'))
print(json.dumps([status(c.recv(65536)) for c in cs]))
`,
    );
    expect(seen).to.deep.equal([...Array(8).fill(200), ...Array(4).fill(503)]);
    expect(await counts(tapnic)).to.include({ connection_limit: 4 });
  });

  it('C2: refuses a header that is too large', async () => {
    const seen = await python<number>(
      ns,
      `print(status(get(b'/small', headers=(b'Host: x', b'X: ' + b'a' * 20000))))`,
    );
    expect(seen).to.equal(431);
    expect(await counts(tapnic)).to.include({ header_too_large: 1 });
  });

  it('C2: a flood of bad requests does not flood the log', async () => {
    await python(
      ns,
      `
for i in range(200):
    with conn() as c:
        c.sendall(b'junk\\r\\n\\r\\n')
        rest(c)
print(0)
`,
    );
    const { bad_request: bad, log_line_suppressed: suppressed } = await counts(tapnic);
    expect(bad).to.equal(200);
    expect(suppressed).to.be.above(100);
  });
});

describe('netns: serve beside a file system that hangs', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3', '/dev/fuse');
  this.timeout(60_000);

  it('C1: other clients are served, and those of that file system get 503', async () => {
    using site = new Site();
    using ns = new Netns();
    site.file('small', 1024);
    const mount = site.path('mount');
    mkdirSync(mount);
    const fuse = spawn('python3', [join(SUPPORT, 'http_client.py'), mount]);
    const said = async (word: string): Promise<void> => {
      const [chunk] = (await once(fuse.stdout, 'data')) as [Buffer];
      expect(chunk.toString().trim()).to.equal(word);
    };
    await said('mounted');
    let tapnic: Instance | null = null;
    try {
      tapnic = await Instance.start(ns, ['serve', site.dir]);
      await hangs(ns, tapnic, fuse, said);
    } finally {
      // The instance cannot end while a thread of it waits for the file system.
      const gone = once(fuse, 'exit');
      fuse.kill('SIGTERM');
      await gone;
      if (tapnic !== null) expect((await tapnic.stop()).code).to.equal(0);
    }
  });

  /** Lets first reads and then everything hang, with many clients on it, and fetches another file. */
  async function hangs(
    ns: Netns,
    tapnic: Instance,
    fuse: ChildProcess,
    said: (word: string) => Promise<void>,
  ): Promise<void> {
    const good = await tapnic.curl(`${tapnic.url}mount/f1`);
    expect(good.stdout).to.equal('F'.repeat(9000));
    const others = async (mode: 'read' | 'all', first: number): Promise<void> => {
      fuse.stdin!.write(`${mode}\n`);
      await said('set');
      const clients = ns.spawn('python3', [
        '-c',
        `import sys; sys.path.insert(0, ${JSON.stringify(SUPPORT)})
from http_client import *
cs = [conn() for i in range(40)]
for i, c in enumerate(cs): c.sendall(keep(b'/mount/f%d' % (${first} + i)))
time.sleep(30)`,
      ]);
      await new Promise((resolve) => setTimeout(resolve, 1000));
      for (let i = 0; i < 5; i++) {
        const r = await tapnic.curl(
          '-o',
          '/dev/null',
          '-w',
          '%{http_code} %{time_total}',
          tapnic.urlOf('small'),
        );
        const [status, seconds] = r.stdout.split(' ').map(Number);
        expect(status, mode).to.equal(200);
        expect(seconds, mode).to.be.below(2);
      }
      clients.kill('SIGKILL');
    };
    await others('read', 100);
    await others('all', 200);
    const late = await tapnic.curl(
      '-o',
      '/dev/null',
      '-w',
      '%{http_code}',
      `${tapnic.url}mount/f9`,
    );
    expect(late.stdout).to.equal('503');
    expect((await counts(tapnic))['file_timeout']).to.be.above(0);
  }
});
