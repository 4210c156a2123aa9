import { createServer, type RequestListener } from 'node:http';
import type { Socket as NetSocket } from 'node:net';
import { Duplex, Writable } from 'node:stream';
import { expect } from 'chai';
import type { Socket } from '../../src/api/socket.ts';
import { checkUrl, type FetchResult, fetchUrl, hrefOf } from '../../src/apps/fetch/fetch.ts';

/** Two connected streams in this process. */
function pair(): [Duplex, Duplex] {
  let a: End;
  let b: End;
  class End extends Duplex {
    readonly #other: () => End;
    constructor(other: () => End) {
      super({ allowHalfOpen: true });
      this.#other = other;
    }
    // node:http calls this method of net.Socket.
    setTimeout(): this {
      return this;
    }
    override _read(): void {}
    override _write(chunk: Buffer, _encoding: BufferEncoding, done: () => void): void {
      this.#other().push(chunk);
      setImmediate(done);
    }
    override _final(done: () => void): void {
      this.#other().push(null);
      done();
    }
    override _destroy(error: Error | null, done: (error: Error | null) => void): void {
      const other = this.#other();
      if (!other.readableEnded && !other.destroyed) setImmediate(() => other.destroy());
      done(error);
    }
  }
  a = new End(() => b);
  b = new End(() => a);
  return [a, b];
}

const URL_A = 'http://192.0.2.1:8080/a';

interface Fetched {
  result: FetchResult;
  body: string;
  hosts: string[];
}

async function fetched(
  handler: RequestListener,
  signal = new AbortController().signal,
  text = URL_A,
): Promise<Fetched> {
  const server = createServer(handler);
  const hosts: string[] = [];
  const chunks: Buffer[] = [];
  const result = await fetchUrl(
    (port, host) => {
      hosts.push(`${host}:${port}`);
      const [ours, theirs] = pair();
      server.emit('connection', theirs as unknown as NetSocket);
      return Promise.resolve(ours as unknown as Socket);
    },
    {
      url: checkUrl(text),
      idleMs: 1000,
      redirects: 2,
      output: () =>
        new Writable({
          write(chunk: Buffer, _encoding, done) {
            chunks.push(chunk);
            done();
          },
        }),
      signal,
    },
  );
  return { result, body: Buffer.concat(chunks).toString(), hosts };
}

async function failure(promise: Promise<unknown>): Promise<NodeJS.ErrnoException> {
  try {
    await promise;
  } catch (e) {
    return e as NodeJS.ErrnoException;
  }
  throw new Error('it did not fail');
}

describe('fetch', () => {
  it('refuses URLs that it cannot fetch', () => {
    for (const text of [
      'x',
      'https://192.0.2.1/',
      'http://example.org/',
      'http://u:p@192.0.2.1/',
      'http://[fe80::1%]/',
      'http://[2001:db8::g]/',
      'file:///etc/passwd',
    ])
      expect(() => checkUrl(text), text).to.throw(Error, text);
    expect(checkUrl('http://192.0.2.1').url.href).to.equal('http://192.0.2.1/');
  });

  it('takes an IPv6 address, with a zone, which the peer does not see', async () => {
    expect(hrefOf(checkUrl('http://[2001:DB8:0::1]:8080/a?b'))).to.equal(
      'http://[2001:db8::1]:8080/a?b',
    );
    for (const text of ['http://[fe80::1%tn0]/a', 'http://[fe80::1%25tn0]/a']) {
      const url = checkUrl(text);
      expect([url.url.href, url.zone]).to.deep.equal(['http://[fe80::1]/a', 'tn0']);
      expect(hrefOf(url)).to.equal('http://[fe80::1%25tn0]/a');
    }
    // A redirect to the same host keeps the zone.
    const { result, hosts } = await fetched(
      (req, res) => {
        expect(req.headers.host).to.equal('[fe80::1]:8080');
        if (req.url === '/b') return res.end('x');
        return res
          .writeHead(302, { Location: req.url === '/' ? '/a' : 'http://[fe80::1]:8080/b' })
          .end();
      },
      undefined,
      'http://[fe80::1%tn0]:8080/',
    );
    expect(hosts).to.deep.equal(Array.from({ length: 3 }, () => 'fe80::1%tn0:8080'));
    expect(result).to.include({ url: 'http://[fe80::1%25tn0]:8080/b', bytes: 1 });
  });

  it('connects to the host and port of the URL, and delivers the body', async () => {
    const { result, body, hosts } = await fetched((req, res) => {
      expect(req.headers.host).to.equal('192.0.2.1:8080');
      expect(req.headers.connection).to.equal('close');
      res.setHeader('Content-Length', 100_000);
      res.end('x'.repeat(100_000));
    });
    expect(hosts).to.deep.equal(['192.0.2.1:8080']);
    expect(body).to.equal('x'.repeat(100_000));
    expect(result).to.include({ url: URL_A, status: 200, statusText: 'OK', length: 100_000 });
    expect(result.bytes).to.equal(100_000);
    expect(result.seconds).to.be.within(0, 10);
  });

  it('returns an error status, and a body of unknown length, as results', async () => {
    const { result, body } = await fetched((_req, res) => {
      res.statusCode = 404;
      res.write('not ');
      res.end('here');
    });
    expect(result).to.include({ status: 404, statusText: 'Not Found', length: null, bytes: 8 });
    expect(body).to.equal('not here');
  });

  it('follows redirects up to its limit, and only to http: URLs', async () => {
    const redirecting =
      (location: (n: number) => string): RequestListener =>
      (req, res) => {
        const n = Number(/\d*$/.exec(req.url ?? '')![0] || 0);
        res.writeHead(302, { Location: location(n) }).end('moved');
      };
    const twice = await fetched((req, res) => {
      if (req.url === '/b') res.end('there');
      else res.writeHead(301, { Location: 'http://192.0.2.7/b' }).end('moved');
    });
    expect(twice.hosts).to.deep.equal(['192.0.2.1:8080', '192.0.2.7:80']);
    expect(twice).to.deep.include({ body: 'there' });
    const endless = await fetched(redirecting((n) => `/${n + 1}`));
    expect(endless.result).to.include({ status: 302, url: 'http://192.0.2.1:8080/2' });
    expect((await failure(fetched(redirecting(() => 'https://192.0.2.1/')))).message).to.match(
      /only http:/,
    );
  });

  it('fails for a truncated body, and when it is aborted', async () => {
    const short = fetched((_req, res) => {
      res.setHeader('Content-Length', 10);
      res.write('12345');
      setTimeout(() => res.destroy(), 5);
    });
    expect((await failure(short)).code).to.equal('ECONNRESET');
    const stop = new AbortController();
    const stopped = fetched((_req, res) => {
      res.write('1');
      setTimeout(() => stop.abort(), 5);
    }, stop.signal);
    expect((await failure(stopped)).code).to.equal('ABORT_ERR');
  });

  it('ends while it connects when it is aborted, and when the time is over', async () => {
    const sockets: Duplex[] = [];
    const connecting = (idleMs: number, signal: AbortSignal): Promise<never> =>
      fetchUrl(
        () =>
          new Promise((resolve) =>
            setTimeout(() => {
              const [socket] = pair();
              sockets.push(socket);
              resolve(socket as unknown as Socket);
            }, 500),
          ),
        {
          url: checkUrl(URL_A),
          idleMs,
          redirects: 2,
          output: () => expect.fail('no response'),
          signal,
        },
      ).then(() => expect.fail('no failure'));
    const stopped = connecting(10_000, AbortSignal.timeout(10));
    const late = connecting(10, new AbortController().signal);
    const codes = await Promise.all(
      [stopped, late].map((run) => run.catch((e: NodeJS.ErrnoException) => e.code)),
    );
    expect(codes).to.deep.equal(['ABORT_ERR', 'ETIMEDOUT']);
    expect(sockets, 'before the connections').to.deep.equal([]);
    await new Promise((resolve) => setTimeout(resolve, 600));
    expect(sockets.map((socket) => socket.destroyed)).to.deep.equal([true, true]);
  });
});
