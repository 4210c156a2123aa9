/**
 * One HTTP/1.1 GET from the emulated host: node:http over our sockets. Left out: names (addresses
 * only), https, proxies, resuming, authentication.
 */

import { request, type IncomingMessage } from 'node:http';
import type { Socket as NetSocket } from 'node:net';
import type { Duplex, Writable } from 'node:stream';
import { finished } from 'node:stream/promises';
import type { Socket } from '../../api/socket.ts';

/** How to connect from the emulated host; api/server.ts's `connect` with its stack. */
export type Connect = (port: number, host: string) => Promise<Socket>;

/** A URL that can be fetched. Node's URL takes no zone: it is separate, and '' without one. */
export interface FetchUrl {
  readonly url: URL;
  readonly zone: string;
}

export interface FetchOptions {
  readonly url: FetchUrl;
  /** Milliseconds without traffic after which the request fails with ETIMEDOUT. */
  readonly idleMs: number;
  /** Redirects to follow. */
  readonly redirects: number;
  /** Opens the destination of the body; called once, after the header of the final response. */
  readonly output: (response: FetchResponse) => Writable;
  readonly signal: AbortSignal;
}

export interface FetchResponse {
  readonly url: string;
  readonly status: number;
  readonly statusText: string;
  /** Content-Length, null if the header is missing. */
  readonly length: number | null;
}

export interface FetchResult extends FetchResponse {
  /** Bytes of the body received. */
  readonly bytes: number;
  /** Seconds from the start to the last byte. */
  readonly seconds: number;
}

/** How long the output of a truncated body may take, ms. */
const LAST_WRITE_MS = 2000;
const REDIRECTS = new Set([301, 302, 303, 307, 308]);

/** The zone of an address in a URL, `%tn0` or, as RFC 6874 writes it, `%25tn0`. */
const ZONE = /^([a-z]+:\/\/[^/?#[]*\[[^\]%/]*)%(?:25)?([^\]%/]+)\]/i;

/** Throws Error (one line) for a URL that cannot be fetched. */
export function checkUrl(text: string): FetchUrl {
  const [, head = '', zone = ''] = ZONE.exec(text) ?? [];
  const plain = zone === '' ? text : text.replace(ZONE, `${head}]`);
  if (!URL.canParse(plain))
    throw new Error(
      `${text || "''"}: not a URL, such as http://192.0.2.1/file or http://[2001:db8::1]/file`,
    );
  const url = new URL(plain);
  if (url.protocol !== 'http:') throw new Error(`${text}: only http: can be fetched`);
  if (!/^(\d+(\.\d+){3}|\[.*\])$/.test(url.hostname))
    throw new Error(`${text}: an IP address is needed: the emulated host resolves no names`);
  if (url.username !== '') throw new Error(`${text}: no user and password, please`);
  return { url, zone };
}

/** The address of the host as `connect` takes it: `fe80::1%tn0`. */
function hostOf({ url, zone }: FetchUrl): string {
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  return zone === '' ? host : `${host}%${zone}`;
}

/** The text of the URL, with its zone. */
export function hrefOf({ url, zone }: FetchUrl): string {
  return zone === '' ? url.href : url.href.replace(']', `%25${zone}]`);
}

/** The URL of the response's `location`. A relative one, and one of the same host, keeps the zone. */
function redirected(from: FetchUrl, location: string): FetchUrl {
  const zoned = ZONE.test(location) || !URL.canParse(location, from.url.href);
  const to = checkUrl(zoned ? location : new URL(location, from.url).href);
  return to.zone === '' && to.url.hostname === from.url.hostname ? { ...to, zone: from.zone } : to;
}

const timedOut = (url: FetchUrl): Error =>
  Object.assign(new Error(`${hrefOf(url)}: timed out`), { code: 'ETIMEDOUT' });

/**
 * Connects. Rejects with ABORT_ERR and ETIMEDOUT as a request does: node:http reports both only
 * after it has a socket.
 */
async function connectTo(connect: Connect, url: FetchUrl, options: FetchOptions): Promise<Socket> {
  const { idleMs, signal } = options;
  const connecting = connect(Number(url.url.port || 80), hostOf(url));
  let end: (e: Error) => void;
  const ended = new Promise<never>((_resolve, reject) => (end = reject));
  const stop = (): void => end(Object.assign(new Error('stopped'), { code: 'ABORT_ERR' }));
  const timer = setTimeout(() => end(timedOut(url)), idleMs);
  signal.addEventListener('abort', stop, { once: true });
  if (signal.aborted) stop();
  try {
    return await Promise.race([connecting, ended]);
  } catch (e) {
    connecting.then(
      (socket) => socket.destroy(),
      () => undefined,
    );
    throw e;
  } finally {
    clearTimeout(timer);
    signal.removeEventListener('abort', stop);
  }
}

/** Sends the request; resolves when the response's header is there. */
function get(connect: Connect, url: FetchUrl, options: FetchOptions): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    // No `agent`: an agent would connect through Linux's own stack.
    const req = request(url.url, {
      signal: options.signal,
      headers: { 'User-Agent': 'tapnic', Accept: '*/*', Connection: 'close' },
      // node:http uses the socket passed to `done` as a net.Socket.
      createConnection: (_options, done): Duplex | undefined => {
        connectTo(connect, url, options).then(
          (socket) => done(null, socket as unknown as NetSocket),
          (e: unknown) => done(e as Error, undefined as unknown as NetSocket),
        );
        return undefined;
      },
    });
    req.setTimeout(options.idleMs, () => req.destroy(timedOut(url)));
    req.once('error', reject);
    req.once('response', (response) => {
      req.off('error', reject);
      req.on('error', () => undefined); // the response emits its own 'error'
      resolve(response);
    });
    req.end();
  });
}

/**
 * Writes the body to `output` and ends it. What was received of a truncated body is written, too.
 * Resolves with the number of bytes.
 */
async function writeBody(
  response: IncomingMessage,
  output: Writable,
  signal: AbortSignal,
): Promise<number> {
  let bytes = 0;
  let failure: Error | null = null;
  let late: NodeJS.Timeout | undefined;
  const written = finished(output, { signal });
  response.on('data', (chunk: Buffer) => {
    bytes += chunk.length;
    if (output.write(chunk)) return;
    response.pause();
    output.once('drain', () => response.resume());
  });
  response.once('end', () => output.end());
  response.once('error', (e) => {
    failure = e;
    late = setTimeout(() => output.destroy(e), LAST_WRITE_MS);
    output.end();
  });
  try {
    await written;
  } catch (e) {
    response.destroy();
    output.destroy();
    throw signal.aborted ? e : (failure ?? e);
  } finally {
    clearTimeout(late);
  }
  if (failure !== null) throw failure;
  return bytes;
}

/**
 * Fetches `options.url`; resolves when the whole body has been written, also for an error status.
 * Rejects with the errors of `connect`, node:http and the output, and for a truncated body.
 */
export async function fetchUrl(connect: Connect, options: FetchOptions): Promise<FetchResult> {
  const start = performance.now();
  let { url } = options;
  for (let left = options.redirects; ; left--) {
    const response = await get(connect, url, options);
    const status = response.statusCode!;
    const { location } = response.headers;
    if (REDIRECTS.has(status) && location !== undefined && left > 0) {
      response.destroy();
      url = redirected(url, location);
      continue;
    }
    const told = response.headers['content-length'];
    const about: FetchResponse = {
      url: hrefOf(url),
      status,
      statusText: response.statusMessage ?? '',
      length: told === undefined ? null : Number(told),
    };
    const bytes = await writeBody(response, options.output(about), options.signal);
    return { ...about, bytes, seconds: (performance.now() - start) / 1000 };
  }
}
