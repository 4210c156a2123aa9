/** The text of responses. */

import type { Client } from './client.ts';
import type { Head } from './head.ts';

const REASONS: Record<number, string> = {
  200: 'OK',
  204: 'No Content',
  206: 'Partial Content',
  301: 'Moved Permanently',
  304: 'Not Modified',
  400: 'Bad Request',
  403: 'Forbidden',
  404: 'Not Found',
  405: 'Method Not Allowed',
  408: 'Request Timeout',
  411: 'Length Required',
  412: 'Precondition Failed',
  413: 'Payload Too Large',
  416: 'Range Not Satisfiable',
  431: 'Request Header Fields Too Large',
  500: 'Internal Server Error',
  503: 'Service Unavailable',
  505: 'HTTP Version Not Supported',
};

/** The second of `dateText`. */
let dateS = -1;
let dateText = '';

/** Seconds since 1970, for `Date` fields. */
export function nowS(): number {
  return Math.floor(Date.now() / 1000);
}

function dateOf(second: number): string {
  if (second !== dateS) {
    dateS = second;
    dateText = new Date(second * 1000).toUTCString();
  }
  return dateText;
}

/**
 * The head of a response. `fields`: lines with their ends, besides those of every response.
 * `keepAliveS`: how long the connection stays open after it, s; -1: it ends.
 */
export function headText(status: number, fields: string, keepAliveS: number): string {
  const connection = keepAliveS < 0 ? 'close' : `keep-alive\r\nKeep-Alive: timeout=${keepAliveS}`;
  return `HTTP/1.1 ${status} ${REASONS[status]}\r\nServer: tapnic\r\n${fields}Date: ${dateOf(nowS())}\r\nConnection: ${connection}\r\n\r\n`;
}

/** The bytes of a response that is sent instead of an answer to a request. */
export function refusal(status: number, fields = ''): Buffer {
  const text = `HTTP/1.1 ${status} ${REASONS[status]}\r\nServer: tapnic\r\n${fields}Content-Length: 0\r\nConnection: close\r\n\r\n`;
  return Buffer.from(text, 'latin1');
}

/** What is answered: a request of a connection. */
export interface Exchange {
  readonly client: Client;
  readonly head: Head;
  /** How long a connection stays open after a response, s. */
  readonly keepAliveS: number;
  /** Whether the head of the response was sent. */
  started: boolean;
}

/** The head of the response to a request. */
function headOf(x: Exchange, status: number, fields: string): string {
  x.started = true;
  return headText(status, fields, x.client.last ? -1 : x.keepAliveS);
}

/** The same as bytes. */
export function headBytes(x: Exchange, status: number, fields: string): Buffer {
  return Buffer.from(headOf(x, status, fields), 'latin1');
}

/** Sends a response that has only a head. */
export function sendHead(x: Exchange, status: number, fields: string): void {
  x.client.respond(headBytes(x, status, fields));
}

/** Sends a complete response. */
function sendBody(x: Exchange, status: number, fields: string, type: string, body: string): void {
  const length = Buffer.byteLength(body);
  const all = `${fields}Content-Type: ${type}\r\nContent-Length: ${length}\r\n`;
  const head = headOf(x, status, all);
  x.client.respond(Buffer.from(x.head.method === 'HEAD' ? head : head + body));
}

export function sendText(x: Exchange, status: number, text: string, fields = ''): void {
  sendBody(x, status, fields, 'text/plain; charset=utf-8', `${status} ${text}\n`);
}

/**
 * Sends HTML piece by piece, at the client's pace. Other connections have their turn between pieces.
 * One piece alone is sent with its length.
 */
export async function sendPieces(x: Exchange, pieces: AsyncGenerator<string>): Promise<void> {
  const type = 'text/html; charset=utf-8';
  const { client, head } = x;
  const first = await pieces.next();
  const second = await pieces.next();
  if (second.done === true) {
    sendBody(x, 200, '', type, first.done === true ? '' : first.value);
    return;
  }
  const contentType = `Content-Type: ${type}\r\n`;
  if (head.method === 'HEAD') {
    await pieces.return(undefined);
    sendHead(x, 200, contentType);
    return;
  }
  // HTTP/1.0 has no chunks. The end of the connection ends the body.
  const chunked = head.version === '1.1';
  if (!chunked) client.finish();
  const framing = chunked ? 'Transfer-Encoding: chunked\r\n' : '';
  const start = headOf(x, 200, contentType + framing);
  const piece = `${first.value as string}${second.value}`;
  if (!(await client.write(chunk(start, piece, chunked)))) return;
  for await (const more of pieces) {
    await new Promise((resolve) => setImmediate(resolve));
    if (!(await client.write(chunk('', more, chunked)))) return;
  }
  client.respond(Buffer.from(chunked ? '0\r\n\r\n' : ''));
}

/** A part of a body, with `start` in front of it. */
function chunk(start: string, text: string, chunked: boolean): Buffer {
  if (!chunked) return Buffer.from(start + text);
  return Buffer.from(`${start}${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`);
}
