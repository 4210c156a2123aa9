/**
 * The streamed requests of an instance: `ping` and `fetch` from its emulated host, and `capture`. Each
 * runs until it is done, the client stops it or closes the connection, or the instance stops.
 */

import { Writable } from 'node:stream';
import { sockaddr } from '../api/address.ts';
import { ControlFailure } from '../ctl/protocol.ts';
import { FETCH_REDIRECTS, type PingRequest, readFetch, readPing } from '../ctl/stream_request.ts';
import { readCapture } from '../ctl/capture_request.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { LiveCaptures } from '../machine/live_captures.ts';
import { StreamSink } from '../host/stream_sink.ts';
import type { RawSocket as RawSocketType } from '../api/raw.ts';
import { in6_selectif, in6_selectsrc } from '../netinet6/in6_src.ts';
import { ip6_sprintf, parseIn6Zone } from '../netinet6/scope6.ts';
import type { StreamHandler, StreamOut } from './control_conn.ts';
import type { StreamHandlers } from './control_server.ts';

/** Throws `e`; an abort as ECANCELED. */
function failed(e: unknown): never {
  if ((e as NodeJS.ErrnoException | null)?.code === 'ABORT_ERR')
    throw new ControlFailure('ECANCELED', 'stopped');
  throw e;
}

/**
 * The raw socket of a run. Throws TapnicError ENXIO if the zone of `host` is no interface.
 *
 * @param Raw the class, which is loaded when it is needed
 */
export function pingSocket(
  Raw: typeof RawSocketType,
  vnet: Vnet,
  { host, ttl, dontFragment }: PingRequest,
): RawSocketType {
  const family = host.includes(':') ? 6 : 4;
  sockaddr(vnet, host, 0);
  return new Raw(vnet, { family, ...(ttl === null ? {} : { ttl }), dontFragment });
}

/** Our address of packets to an IPv6 address; null: with IPv4, without a route or an address. */
export function sourceOf(vnet: Vnet, host: string): string | null {
  const dst = parseIn6Zone(vnet, host);
  const ifp = dst === null ? null : in6_selectif(vnet, dst);
  if (dst === null || ifp === null) return null;
  const ia = in6_selectsrc(vnet, dst, ifp);
  return ia === null ? null : ip6_sprintf(vnet, ia.ifa_addr);
}

const ping =
  (vnet: Vnet): StreamHandler =>
  async (req, out, signal) => {
    const options = readPing(req);
    const [{ RawSocket }, { Ping }] = await Promise.all([
      import('../api/raw.ts'),
      import('../apps/ping/ping.ts'),
    ]);
    if (signal.aborted) throw new ControlFailure('ECANCELED', 'stopped');
    try {
      const socket = pingSocket(RawSocket, vnet, options);
      out.event({ event: 'begin', source: sourceOf(vnet, options.host) });
      const run = new Ping(socket, options, {
        reply: (reply) => out.event({ event: 'reply', ...reply }),
        icmpError: (error) => out.event({ event: 'icmp_error', ...error }),
        sendError: (code) => out.event({ event: 'send_error', code }),
      });
      signal.addEventListener('abort', () => run.stop(), { once: true });
      return await run.run();
    } catch (e) {
      return failed(e);
    }
  };

/** Returns a stream to the client that waits while the client does not read. */
function bodySink(out: StreamOut): Writable {
  return new Writable({
    write: (chunk: Buffer, _encoding, done) =>
      void out.send(chunk).then(
        () => done(),
        (e: unknown) => done(e as Error),
      ),
  });
}

const fetch =
  (vnet: Vnet): StreamHandler =>
  async (req, out, signal) => {
    const { url, idleMs } = readFetch(req);
    const [{ connect }, { NetHost }, { checkUrl, fetchUrl }] = await Promise.all([
      import('../api/server.ts'),
      import('../api/net_host.ts'),
      import('../apps/fetch/fetch.ts'),
    ]);
    try {
      return await fetchUrl((port, host) => connect(new NetHost(vnet), port, host), {
        url: checkUrl(url),
        idleMs,
        redirects: FETCH_REDIRECTS,
        output: (response) => {
          // This is the first line of the request: the client has room for it.
          out.event({ event: 'response', ...response });
          return bodySink(out);
        },
        signal,
      });
    } catch (e) {
      return failed(e);
    }
  };

const capture =
  (live: LiveCaptures): StreamHandler =>
  async (req, out, signal) => {
    const sink = new StreamSink((bytes) => out.send(bytes));
    const recorder = live.open(readCapture(req), sink);
    const end = (): void => {
      live.close(recorder);
      sink.end();
    };
    out.event({ event: 'response' });
    recorder.onFull = () => setImmediate(end);
    if (signal.aborted) end();
    signal.addEventListener('abort', end, { once: true });
    try {
      await sink.done;
    } finally {
      end();
    }
    const { packets, places, ringDrops } = recorder;
    const received = places.reduce((n, place) => n + place.received, 0);
    return { packets, received, dropped: sink.dropped, ringDrops };
  };

/** Returns the handlers of the streamed commands of an instance. */
export function streamHandlers(vnet: Vnet, live: LiveCaptures): StreamHandlers {
  return new Map([
    ['ping', ping(vnet)],
    ['fetch', fetch(vnet)],
    ['capture', capture(live)],
  ]);
}
