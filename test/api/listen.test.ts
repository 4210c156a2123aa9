/**
 * stack.listen: servers of node:http, https, http2 and net, and our own, on the stack's sockets. The
 * clients are Linux's nc, curl and Node in a namespace.
 */

import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer as createHttp, type Server as HttpServer } from 'node:http';
import { createSecureServer, createServer as createHttp2 } from 'node:http2';
import { createServer as createHttps } from 'node:https';
import { type AddressInfo, createServer as createNet, type Server as NetServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { createServer, createStack, type Socket, type Stack } from '../../src/index.ts';
import { IPPROTO_TCP } from '../../src/kern/protosw.ts';
import { $optval } from '../../src/kern/sockopt.ts';
import { soGetInt } from '../../src/kern/uipc_sockopt.ts';
import { TCP_NODELAY } from '../../src/netinet/tcp_sockopt.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { selfSigned } from '../support/tls.ts';

const HOST = '192.0.2.2';

describe('api: stack.listen', () => {
  needs('root', 'tap', 'netns', 'curl', 'nc', 'openssl');
  let ns: Netns;
  let stack: Stack;

  beforeEach(async () => {
    ns = new Netns('listen');
    stack = await createStack({
      netns: ns.name,
      memory: '64M',
      sysctl: { 'net.inet6.ip6.dad_count': 0 },
    });
  });
  afterEach(async () => {
    expect(await stack.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  const sh = async (script: string): Promise<string> =>
    (await ns.run('bash', ['-c', script])).stdout;

  /** The port on which `server` listens now. */
  async function on(server: NetServer): Promise<number> {
    stack.listen(server, { port: 0 });
    await once(server, 'listening');
    return (server.address() as AddressInfo).port;
  }

  const hello = (): HttpServer => createHttp((req, res) => res.end(`hello ${req.url}\n`));

  it('answers a client that ends its side behind the request', async () => {
    const port = await on(hello());
    const out = await sh(`printf 'GET /f HTTP/1.0\\r\\n\\r\\n' | timeout 5 nc -N ${HOST} ${port}`);
    expect(out).to.match(/^HTTP\/1\.1 200 OK\r\n.*\r\n\r\nhello \/f\n$/s);
  });

  it("emits 'listening' behind the call, and before 'connection'", async () => {
    const log: string[] = [];
    const http = hello();
    for (const event of ['listening', 'connection', 'request', 'close'])
      http.on(event, () => log.push(event));
    expect(stack.listen(http, { port: 80 }, () => log.push('callback'))).to.equal(http);
    expect(log).to.eql([]);
    expect(http.listening).to.equal(true);
    expect(await sh(`curl -s http://${HOST}/a`)).to.equal('hello /a\n');
    http.close();
    await once(http, 'close');
    expect(log).to.eql(['listening', 'callback', 'connection', 'request', 'close']);
  });

  it('closes the connection of a client that stalls in the header: headersTimeout', async () => {
    const http = createHttp(
      { headersTimeout: 300, requestTimeout: 2000, connectionsCheckingInterval: 50 },
      (_req, res) => res.end(),
    );
    const port = await on(http);
    const start = performance.now();
    const half = `exec 3<>/dev/tcp/${HOST}/${port}; printf 'GET / HTTP/1.1\\r\\nHo' >&3; cat <&3`;
    expect(await sh(half)).to.match(/^HTTP\/1\.1 408 Request Timeout\r\n/);
    expect(performance.now() - start).to.be.within(280, 1900);
  });

  it('closes the connection of a client that stalls in the body: requestTimeout', async () => {
    const http = createHttp(
      { headersTimeout: 200, requestTimeout: 400, connectionsCheckingInterval: 50 },
      (req, res) => void req.on('end', () => res.end()).resume(),
    );
    const port = await on(http);
    const head = 'POST / HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 10\\r\\n\\r\\nabc';
    const half = `exec 3<>/dev/tcp/${HOST}/${port}; printf '${head}' >&3; cat <&3`;
    expect(await sh(half)).to.match(/^HTTP\/1\.1 408 Request Timeout\r\n/);
  });

  it('ends an idle keep-alive connection: keepAliveTimeout', async () => {
    const http = createHttp({ keepAliveTimeout: 200 }, (_req, res) => res.end('x'));
    const port = await on(http);
    const get = `exec 3<>/dev/tcp/${HOST}/${port}; printf 'GET / HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3`;
    const start = performance.now();
    expect(await sh(get)).to.match(/^HTTP\/1\.1 200 OK.*x$/s);
    expect(performance.now() - start).to.be.within(180, 3000);
  });

  it('sends header and body of a response as one segment, and without Nagle', async () => {
    const http = createHttp((_req, res) => {
      res.writeHead(200, { 'Content-Length': 5 });
      res.write('he');
      res.end('llo');
    });
    let noDelay = 0;
    http.on('connection', (socket) => {
      soGetInt((socket as unknown as Socket).bsdSocket!, IPPROTO_TCP, TCP_NODELAY);
      noDelay = $optval.v;
    });
    const port = await on(http);
    const sent = (): number =>
      (stack.netstat('s').protocols['tcp'] as Record<string, number>)['tcps_sndpack']!;
    const before = sent();
    expect(await sh(`curl -s http://${HOST}:${port}/`)).to.equal('hello');
    expect(sent() - before).to.equal(1);
    expect(noDelay, 'TF_NODELAY').to.equal(4);
  });

  it('carries 200 keep-alive requests without waiting for delayed ACKs', async () => {
    const port = await on(hello());
    const start = performance.now();
    const out = await sh(`curl -s 'http://${HOST}:${port}/[1-200]' | wc -l`);
    expect(out.trim()).to.equal('200');
    // With Nagle's algorithm each takes 40 ms.
    expect(performance.now() - start).to.be.below(4000);
  });

  it('close, closeIdleConnections and closeAllConnections work as on Linux', async () => {
    const http = createHttp((req, res) => {
      if (req.url === '/wait') res.write('begun');
      else res.end('x');
    });
    const port = await on(http);
    const client = (path: string): Promise<string> =>
      sh(
        `exec 3<>/dev/tcp/${HOST}/${port}; printf 'GET ${path} HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' >&3; cat <&3`,
      );
    const count = promisify(http.getConnections.bind(http));
    const idle = client('/');
    const busy = client('/wait');
    while ((await count()) < 2) await sleep(5);
    await sleep(50);
    http.closeIdleConnections();
    expect(await idle).to.match(/x$/);
    expect(await count()).to.equal(1);
    const closed = once(http, 'close');
    let over = false;
    http.close(() => (over = true));
    expect(http.listening).to.equal(false);
    expect(http.address()).to.equal(null);
    await sleep(50);
    expect(over, 'a connection is open').to.equal(false);
    const refused = `timeout 5 bash -c 'exec 3<>/dev/tcp/${HOST}/${port}' 2>&1`;
    expect(await sh(refused)).to.include('Connection refused');
    http.closeAllConnections();
    expect(await busy).to.match(/begun/);
    await closed;
    expect(over).to.equal(true);
  });

  it("emits 'error' in a later turn: EADDRINUSE, EADDRNOTAVAIL", async () => {
    const port = await on(hello());
    for (const [where, code] of [
      [{ port }, 'EADDRINUSE'],
      [{ port: 81, host: '192.0.2.77' }, 'EADDRNOTAVAIL'],
    ] as const) {
      const second = createNet();
      let inside = true;
      const failed = new Promise<NodeJS.ErrnoException & { port?: number }>((resolve) =>
        second.on('error', (e) => {
          expect(inside).to.equal(false);
          resolve(e);
        }),
      );
      stack.listen(second, where);
      inside = false;
      expect(await failed).to.include({ code, syscall: 'listen', port: where.port });
      expect(second.listening).to.equal(false);
      // It may try again.
      await on(second);
      second.close();
    }
    const both = createNet();
    await on(both);
    expect(() => stack.listen(both, { port: 82 })).to.throw('more than once without closing');
    expect(() => stack.listen({} as NetServer, { port: 82 })).to.throw(
      'must be a server of node:net',
    );
    expect(() => stack.listen(createNet(), { port: 70_000 })).to.throw(
      'options.port should be >= 0 and < 65536',
    );
  });

  it("drops connections beyond maxConnections, with 'drop'", async () => {
    for (const server of [
      createNet((socket) => socket.resume()),
      createServer(stack, (socket) => void socket.resume()) as unknown as NetServer,
    ]) {
      const drops: { remoteAddress?: string; localPort?: number }[] = [];
      server.on('drop', (data) => drops.push(data!));
      server.maxConnections = 1;
      const port = await on(server);
      const first = ns.spawn('bash', ['-c', `exec 3<>/dev/tcp/${HOST}/${port}; exec cat <&3`]);
      const count = promisify(server.getConnections.bind(server));
      while ((await count()) < 1) await sleep(5);
      expect(await sh(`timeout 5 nc -d ${HOST} ${port}; echo over`)).to.equal('over\n');
      expect(drops).to.have.lengthOf(1);
      expect(drops[0]).to.include({ remoteAddress: '::ffff:192.0.2.1', localPort: port });
      const closed = once(server, 'close');
      server.close();
      first.kill();
      await closed;
      expect(await count()).to.equal(0);
    }
  });

  it('carries node:https and node:http2', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-tls-'));
    try {
      const pair = selfSigned(dir);
      const answer = 'y'.repeat(200_000);
      const https = await on(createHttps(pair, (_req, res) => res.end(answer)));
      const h2 = await on(
        createSecureServer(pair, (req, res) => void res.end(`${req.httpVersion}${answer}`)),
      );
      const h2c = await on(createHttp2((req, res) => void res.end(req.httpVersion)));
      expect(await sh(`curl -sk https://${HOST}:${https}/`)).to.equal(answer);
      expect(await sh(`curl -sk --http2 https://${HOST}:${h2}/`)).to.equal(`2.0${answer}`);
      expect(await sh(`curl -s --http2-prior-knowledge http://${HOST}:${h2c}/`)).to.equal('2.0');
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('closes with the stack', async () => {
    const http = hello();
    await on(http);
    const closed = once(http, 'close');
    expect(await stack.close()).to.eql({});
    await closed;
    expect(http.listening).to.equal(false);
    expect(() => stack.listen(http, { port: 80 })).to.throw('EBADF');
  });
});
