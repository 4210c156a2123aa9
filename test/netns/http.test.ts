/** `tapnic serve`, tested with curl and plain sockets from the Linux side. */

import { expect } from 'chai';
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { Instance as Tapnic } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { sha256, Site } from '../support/served.ts';

/**
 * Runs `script` (a Python program that uses `addr` and `port`) on the Linux side; returns stdout.
 */
async function python(tapnic: Instance, ns: Netns, script: string): Promise<string> {
  const head = `import socket, sys, time, hashlib\naddr = '${tapnic.ready.addr}'\nport = 80\n`;
  const { status, stdout, stderr } = await ns.run('python3', ['-c', head + script], {
    timeoutMs: 60_000,
  });
  expect(status, stderr).to.equal(0);
  return stdout;
}

describe('netns: HTTP', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3');
  this.timeout(60_000);

  const site = new Site();
  let ns: Netns;
  let tapnic: Instance;
  const sizes = [
    0, 1, 99, 100, 101, 224, 225, 1447, 1448, 1449, 4095, 4096, 4097, 77823, 77824, 77825, 150000,
    1_000_000,
  ];

  before(async () => {
    for (const n of sizes) site.file(`f${n}`, n);
    writeFileSync(join(site.dir, 'page.html'), '<p>hello</p>\n');
    ns = new Netns();
    symlinkSync('/etc/hostname', site.path('outside'));
    tapnic = await Tapnic.start(ns, ['serve', site.dir]);
  });

  after(async () => {
    const exit = await tapnic.stop();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
  });

  const get = async (...args: string[]): Promise<{ status: number; body: Buffer }> => {
    const out = site.path('.out');
    const r = await tapnic.curl('-o', out, '-w', '%{http_code}', ...args);
    expect(r.status, r.stderr).to.equal(0);
    return { status: Number(r.stdout), body: readFileSync(out) };
  };

  for (const n of sizes) {
    it(`GETs a file of ${n} bytes`, async () => {
      const { status, body } = await get(tapnic.urlOf(`f${n}`));
      expect(status).to.equal(200);
      expect(sha256(body)).to.equal(sha256(readFileSync(site.path(`f${n}`))));
    });
  }

  it('answers HEAD with the length and no body', async () => {
    const r = await tapnic.curl('-I', tapnic.urlOf('f150000'));
    expect(r.stdout)
      .to.match(/^HTTP\/1\.1 200/)
      .and.match(/Content-Length: 150000\r/);
  });

  it('serves single ranges, suffixes and 416', async () => {
    const whole = readFileSync(site.path('f150000'));
    for (const [range, from, to] of [
      ['0-0', 0, 1],
      ['4095-4096', 4095, 4097],
      ['5000-14999', 5000, 15000],
      ['-1', 149999, 150000],
      ['149000-', 149000, 150000],
    ] as const) {
      const { status, body } = await get('-r', range, tapnic.urlOf('f150000'));
      expect(status, range).to.equal(206);
      expect(body.equals(whole.subarray(from, to)), range).to.equal(true);
    }
    expect((await get('-r', '150000-', tapnic.urlOf('f150000'))).status).to.equal(416);
  });

  it('answers 304 to its own ETag and Last-Modified', async () => {
    const head = (await tapnic.curl('-I', tapnic.urlOf('f4096'))).stdout;
    const etag = /^ETag: (.*)\r/m.exec(head)![1]!;
    const modified = /^Last-Modified: (.*)\r/m.exec(head)![1]!;
    const url = tapnic.urlOf('f4096');
    expect((await get('-H', `If-None-Match: ${etag}`, url)).status).to.equal(304);
    expect((await get('-H', `If-Modified-Since: ${modified}`, url)).status).to.equal(304);
    expect((await get('-H', 'If-None-Match: "x"', url)).status).to.equal(200);
  });

  it('lists a directory, sets the content type, and refuses other methods', async () => {
    const { status, body } = await get(tapnic.url);
    expect(status).to.equal(200);
    expect(body.toString()).to.include('page.html');
    const r = await tapnic.curl('-I', tapnic.urlOf('page.html'));
    expect(r.stdout).to.match(/Content-Type: text\/html/);
    expect((await get('-X', 'DELETE', tapnic.urlOf('page.html'))).status).to.equal(405);
  });

  it('serves nothing outside its directory', async () => {
    expect((await get('--path-as-is', `${tapnic.url}../etc/passwd`)).status).to.be.oneOf([
      403, 404,
    ]);
    expect((await get(`${tapnic.url}%2e%2e/%2e%2e/etc/passwd`)).status).to.be.oneOf([403, 404]);
    expect((await get(tapnic.urlOf('outside'))).status).to.equal(403);
    expect((await get(tapnic.urlOf('none'))).status).to.equal(404);
    expect((await get(`${tapnic.url}%00`)).status).to.equal(400);
    expect((await get(`${tapnic.url}%zz`)).status).to.equal(400);
  });

  it('keeps a connection alive over several requests', async () => {
    const urls = sizes.map((n) => ['-o', '/dev/null', tapnic.urlOf(`f${n}`)]).flat();
    const r = await tapnic.curl('-w', '%{num_connects} %{size_download}\n', ...urls);
    const lines = r.stdout.trim().split('\n');
    expect(lines.map((l) => Number(l.split(' ')[1]))).to.deep.equal(sizes);
    expect(lines.reduce((sum, l) => sum + Number(l.split(' ')[0]), 0)).to.equal(1);
  });

  it('answers 20 pipelined GETs in order, and continues when a pipeline is aborted', async () => {
    const names = Array.from({ length: 20 }, (_, i) => `f${sizes[(i * 7) % sizes.length]}`);
    const want = sha256(Buffer.concat(names.map((n) => readFileSync(site.path(n)))));
    const script = (limit: number): string => `
names = ${JSON.stringify(names)}
s = socket.create_connection((addr, port), 10)
s.settimeout(20)
s.sendall(b''.join(b'GET /%s HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' % n.encode() for n in names))
h = hashlib.sha256(); buf = b''; got = 0
f = s.makefile('rb')
for n in names:
    assert f.readline().startswith(b'HTTP/1.1 200'), n
    length = 0
    while True:
        line = f.readline().strip()
        if not line: break
        if line.lower().startswith(b'content-length:'): length = int(line.split(b':')[1])
    body = f.read(length); h.update(body); got += 1
    if got == ${limit}:
        break
print(h.hexdigest())
`;
    expect((await python(tapnic, ns, script(20))).trim()).to.equal(want);
    await python(tapnic, ns, script(11));
    expect((await python(tapnic, ns, script(20))).trim()).to.equal(want);
  });

  it('waits for a slow reader and loses nothing', async () => {
    const want = sha256(readFileSync(site.path('f1000000')));
    const out = await python(
      tapnic,
      ns,
      `
s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
s.settimeout(30)
s.connect((addr, port))
s.sendall(b'GET /f1000000 HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n')
time.sleep(2)
data = b''
while True:
    c = s.recv(20000)
    if not c: break
    data += c
    if len(data) < 200000: time.sleep(0.02)
print(hashlib.sha256(data.split(b'\\r\\n\\r\\n', 1)[1]).hexdigest())
`,
    );
    expect(out.trim()).to.equal(want);
  });

  it('answers an invalid request with 400', async () => {
    const out = await python(
      tapnic,
      ns,
      `
s = socket.create_connection((addr, port), 10)
s.settimeout(10)
s.sendall(b'\\x00\\xffnonsense\\r\\n\\r\\n')
print(s.recv(100)[:12].decode())
`,
    );
    expect(out.trim()).to.equal('HTTP/1.1 400');
  });
});
