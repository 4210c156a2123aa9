/** The streams of these tests: the sender sends known bytes, the receiver hashes them. */

import { createHash } from 'node:crypto';
import { once } from 'node:events';
import type { Duplex } from 'node:stream';
import { seededBytes } from '../support/served.ts';

/** The length of one piece: a prime, so that pieces do not align with segments or buffers. */
const PIECE = 65_537;
/** The number of different pieces; after them the stream repeats. */
const PIECES = 16;

const pool: Buffer[] = [];

function piece(i: number): Buffer {
  while (pool.length < PIECES) pool.push(seededBytes(PIECE, 1 + pool.length));
  return pool[i % PIECES]!;
}

/** The pieces of a stream of `bytes`. */
function* piecesOf(bytes: number): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes; at += PIECE, i++)
    yield piece(i).subarray(0, Math.min(PIECE, bytes - at));
}

/** SHA-256 of a stream of `bytes`. */
export function streamSum(bytes: number): string {
  const hash = createHash('sha256');
  for (const part of piecesOf(bytes)) hash.update(part);
  return hash.digest('hex');
}

/** Sends a stream of `bytes` and ends the sending side. */
export async function sendStream(socket: Duplex, bytes: number): Promise<void> {
  for (const part of piecesOf(bytes)) if (!socket.write(part)) await once(socket, 'drain');
  socket.end();
}

/** Reads to the end; returns the length and SHA-256. */
export async function receiveStream(socket: Duplex): Promise<{ bytes: number; sum: string }> {
  const hash = createHash('sha256');
  let bytes = 0;
  for await (const chunk of socket) {
    hash.update(chunk as Buffer);
    bytes += (chunk as Buffer).length;
  }
  return { bytes, sum: hash.digest('hex') };
}
