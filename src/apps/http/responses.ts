/** Responses without a file. */

import type { IncomingMessage, ServerResponse } from 'node:http';

/** Sends a complete response. */
function sendBody(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  type: string,
  body: string,
): void {
  res.statusCode = status;
  res.setHeader('Content-Type', type);
  res.setHeader('Content-Length', Buffer.byteLength(body));
  res.end(req.method === 'HEAD' ? undefined : body);
}

export function sendText(
  req: IncomingMessage,
  res: ServerResponse,
  status: number,
  text: string,
): void {
  sendBody(req, res, status, 'text/plain; charset=utf-8', `${status} ${text}\n`);
}

/** Resolves when `res` can be written to again; false if the client has gone. */
function drained(res: ServerResponse): Promise<boolean> {
  return new Promise((resolve) => {
    const done = (): void => {
      res.off('drain', done);
      res.off('close', done);
      resolve(!res.destroyed);
    };
    res.once('drain', done);
    res.once('close', done);
  });
}

/**
 * Sends HTML piece by piece, at the client's pace. Other connections have their turn between pieces.
 * One piece alone is sent with its length.
 */
export async function sendPieces(
  req: IncomingMessage,
  res: ServerResponse,
  pieces: AsyncGenerator<string>,
): Promise<void> {
  const type = 'text/html; charset=utf-8';
  const first = await pieces.next();
  const second = await pieces.next();
  if (second.done === true) {
    sendBody(req, res, 200, type, first.done === true ? '' : first.value);
    return;
  }
  res.setHeader('Content-Type', type);
  if (req.method === 'HEAD') {
    await pieces.return(undefined);
    res.end();
    return;
  }
  res.write(`${first.value as string}${second.value}`);
  for await (const piece of pieces) {
    await new Promise((resolve) => setImmediate(resolve));
    if (res.destroyed || (!res.write(piece) && !(await drained(res)))) return;
  }
  res.end();
}

/** Why a request's head is not acceptable; null if it is. RFC 9112, 3.2. */
export function hostProblem(req: IncomingMessage): string | null {
  const names = req.rawHeaders.filter((_, i) => i % 2 === 0);
  const hosts = names.filter((name) => name.toLowerCase() === 'host').length;
  if (hosts > 1) return 'Bad Request: more than one Host';
  const { host } = req.headers;
  if (host === undefined)
    return req.httpVersion === '1.0' || req.httpVersion === '0.9' ? null : 'Bad Request: no Host';
  const valid = /^(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:%~-]+\])(?::\d*)?$/.test(host);
  return valid ? null : 'Bad Request: invalid Host';
}
