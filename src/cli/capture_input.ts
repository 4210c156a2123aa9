/** Capture files as input of commands: pcap and pcapng, compressed or not, or standard input. */

import { createReadStream } from 'node:fs';
import type { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { CaptureFormatError, type FileItem, readCapture } from '../pcap/read.ts';
import { CliError, fileError } from './command.ts';

const GZIP_MAGIC = [0x1f, 0x8b];
/** Bytes of one read. */
const CHUNK_BYTES = 1 << 18;

/** The chunks of `input`, decompressed if they begin as gzip does. */
async function* chunksOf(input: Readable): AsyncGenerator<Uint8Array, void> {
  // The first chunk of a pipe can be one byte.
  let first: Buffer = Buffer.alloc(0);
  const chunks = input[Symbol.asyncIterator]() as AsyncIterator<Buffer>;
  while (first.length < GZIP_MAGIC.length) {
    const { value, done } = await chunks.next();
    if (done === true) break;
    first = Buffer.concat([first, value]);
  }
  const rest = async function* (): AsyncGenerator<Buffer, void> {
    if (first.length > 0) yield first;
    for (;;) {
      const { value, done } = await chunks.next();
      if (done === true) return;
      yield value;
    }
  };
  if (!GZIP_MAGIC.every((byte, i) => first[i] === byte)) {
    yield* rest();
    return;
  }
  const { Readable: Stream } = await import('node:stream');
  const plain = Stream.from(rest(), { objectMode: false });
  const gunzip = createGunzip({ chunkSize: CHUNK_BYTES });
  plain.once('error', (e) => gunzip.destroy(e));
  try {
    yield* plain.pipe(gunzip) as AsyncIterable<Buffer>;
  } finally {
    gunzip.destroy();
    plain.destroy();
  }
}

/** The items of `file`, `-` for standard input. Throws CliError: file, offset and reason. */
export async function* captureItems(file: string): AsyncGenerator<FileItem, void> {
  const name = file === '-' ? 'standard input' : file;
  const input =
    file === '-' ? process.stdin : createReadStream(file, { highWaterMark: CHUNK_BYTES });
  try {
    yield* readCapture(chunksOf(input));
  } catch (e) {
    throw inputError(name, e);
  } finally {
    input.destroy();
  }
}

/** An error of reading `name` as CliError; other errors unchanged. */
function inputError(name: string, e: unknown): unknown {
  if (e instanceof CaptureFormatError) return new CliError(`${name}: ${e.message}`);
  const { code } = e as NodeJS.ErrnoException;
  if (code === undefined) return e;
  // zlib's texts say what is wrong: `incorrect header check`, `unexpected end of file`.
  if (code.startsWith('Z_')) return new CliError(`${name}: gzip: ${(e as Error).message}`);
  return new CliError(`${name}: ${fileError(e)}`);
}

/** Names the file in the error of metadata, which is decoded after the reading. */
export async function naming<T>(file: string, work: Promise<T>): Promise<T> {
  try {
    return await work;
  } catch (e) {
    throw e instanceof CaptureFormatError ? inputError(file, e) : e;
  }
}
