/**
 * The streamed requests of an instance: `ping` and `fetch` from its emulated host. Each runs until it
 * is done, the client stops it or closes the connection, or the instance stops.
 */

import { Writable } from 'node:stream';
import { ControlFailure } from '../ctl/protocol.ts';
import { readFetch, readPing } from '../ctl/stream_request.ts';
import type { Vnet } from '../kern/vnet.ts';
import type { StreamHandler, StreamOut } from './control_conn.ts';
import type { StreamHandlers } from './control_server.ts';

/** Redirects that `fetch` follows. */
export const FETCH_REDIRECTS = 5;

/** Throws `e`; an abort as ECANCELED. */
function failed(e: unknown): never {
  if ((e as NodeJS.ErrnoException | null)?.code === 'ABORT_ERR')
    throw new ControlFailure('ECANCELED', 'stopped');
  throw e;
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
      const { ttl, dontFragment } = options;
      const socket = new RawSocket(vnet, { ...(ttl === null ? {} : { ttl }), dontFragment });
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
    const [{ connect }, { checkUrl, fetchUrl }] = await Promise.all([
      import('../api/server.ts'),
      import('../apps/fetch/fetch.ts'),
    ]);
    try {
      return await fetchUrl((port, host) => connect(vnet, port, host), {
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

/** Returns the handlers of the streamed commands of an instance. */
export function streamHandlers(vnet: Vnet): StreamHandlers {
  return new Map([
    ['ping', ping(vnet)],
    ['fetch', fetch(vnet)],
  ]);
}
