/** The calls of `Socket.sendfile`: their arguments, their progress, and their end. */

import { EBADF, ECANCELED, EINVAL, EPIPE, type Errno, errnoError } from '../sys/errno.ts';
import { File } from '../kern/kern_descrip.ts';
import {
  sendfile,
  type SendfileCall,
  type SendfileListener,
  sendfileResult,
  type SfHdtr,
} from '../kern/kern_sendfile.ts';
import type { Socket as KernSocket } from '../kern/uipc_socket.ts';
import type { NetHost } from './net_host.ts';

/** Bytes around a file: one piece or several. A string is sent as UTF-8. */
export type SendfileBytes = string | Uint8Array | readonly (string | Uint8Array)[];

/** An open file of node:fs, such as a FileHandle. It must stay open until the promise settles. */
interface OpenHandle {
  readonly fd: number;
}

/** What `sendfile` sends: a result of `openFile`, a FileHandle, or the path of a file. */
export type SendfileSource = File | OpenHandle | string | URL;

/** The part of a file to send, and what is sent around it. */
export interface SendfileOptions {
  /** Offset of the first byte; default 0. */
  offset?: number | undefined;
  /** Number of bytes; default: up to the end of the file at the time of sending. */
  length?: number | undefined;
  /** Bytes to send before and after the file. */
  headers?: SendfileBytes | undefined;
  trailers?: SendfileBytes | undefined;
  /** SF_* flags; default 0. */
  flags?: number | undefined;
  /** Ends the call: what is in the socket buffer by then is sent. */
  signal?: AbortSignal | undefined;
  /** Called when there is progress, with the number of bytes in the socket buffer or sent. */
  onProgress?: ((bytes: number) => void) | undefined;
  /** As in sendfile(2): `length`, but 0 is the whole rest of the file. */
  nbytes?: number | undefined;
  /** As in sendfile(2): `headers` and `trailers`. */
  hdtr?: SfHdtr | undefined;
}

/** Why a call ended early. */
export interface SendfileError extends Error {
  readonly code: string;
  /** Bytes that were put into the socket buffer, headers and trailers included. */
  readonly bytes: number;
}

function bytesOf(parts: SendfileBytes | undefined): Uint8Array[] {
  const list: readonly (string | Uint8Array)[] =
    parts === undefined ? [] : Array.isArray(parts) ? parts : [parts as string | Uint8Array];
  return list.map((part) => (typeof part === 'string' ? Buffer.from(part) : part));
}

function wrong(hint: string): Error {
  return errnoError(EINVAL, 'sendfile', hint);
}

function checked(name: string, value: unknown): number {
  if (!Number.isSafeInteger(value)) throw wrong(`${name} must be an integer`);
  return value as number;
}

/** Adds `bytes` to an error. */
function withBytes(error: Error, bytes: number): SendfileError {
  return Object.assign(error, { bytes }) as SendfileError;
}

function abortError(signal: AbortSignal): Error {
  const error = new Error('sendfile: the call was aborted', { cause: signal.reason });
  error.name = 'AbortError';
  return Object.assign(error, { code: 'ABORT_ERR', syscall: 'sendfile' });
}

/** Called when a call has ended, with the number of bytes in the socket buffer. */
type Ended = (bytes: number) => void;

/** A call of `sendfile`, from its beginning until its promise settles. */
export class SendfileJob implements SendfileListener {
  /** The empty chunk that has the call's place among the written data. */
  readonly chunk = Buffer.alloc(0);
  readonly promise: Promise<number>;
  readonly #source: SendfileSource;
  readonly #offset: number;
  /** 0: the whole rest of the file. */
  readonly #nbytes: number;
  /** The file is not read: only headers and trailers are sent. */
  readonly #noFile: boolean;
  readonly #flags: number;
  readonly #hdtr: SfHdtr | null;
  readonly #signal: AbortSignal | null;
  readonly #onProgress: ((bytes: number) => void) | null;
  readonly #host: NetHost;
  #resolve!: (bytes: number) => void;
  #reject!: (error: Error) => void;
  #settled = false;
  #call: SendfileCall | null = null;
  #ended: Ended | null = null;
  #reported = 0;
  #file: File | null = null;
  /** Resolves when a FileHandle is not in use any more. */
  #released: Promise<void> | null = null;
  readonly #aborted = (): void => this.#abort();

  /** Throws TapnicError EINVAL. */
  constructor(source: SendfileSource, options: SendfileOptions, host: NetHost) {
    const { length, hdtr, signal, onProgress } = options;
    const known = source instanceof File || typeof source === 'string' || source instanceof URL;
    if (!known && typeof source?.fd !== 'number')
      throw wrong('the file must be a result of openFile, a FileHandle or a path');
    this.#source = source;
    this.#offset = checked('offset', options.offset ?? 0);
    const all = length === undefined || length === Infinity;
    this.#nbytes = all ? checked('nbytes', options.nbytes ?? 0) : checked('length', length);
    this.#noFile = !all && length === 0;
    if (!all && length < 0) throw wrong('length must not be negative');
    this.#flags = checked('flags', options.flags ?? 0);
    if (signal !== undefined && typeof signal?.addEventListener !== 'function')
      throw wrong('signal must be an AbortSignal');
    if (onProgress !== undefined && typeof onProgress !== 'function')
      throw wrong('onProgress must be a function');
    const headers = [...bytesOf(options.headers), ...(hdtr?.headers ?? [])];
    const trailers = [...bytesOf(options.trailers), ...(hdtr?.trailers ?? [])];
    this.#hdtr = headers.length + trailers.length === 0 ? null : { headers, trailers };
    this.#signal = signal ?? null;
    this.#onProgress = onProgress ?? null;
    this.#host = host;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    if (this.#signal?.aborted === true) this.#abort();
    else this.#signal?.addEventListener('abort', this.#aborted, { once: true });
  }

  /** The bytes to write instead, if the file is not read; null otherwise. */
  get plain(): Buffer | null {
    if (!this.#noFile) return null;
    return Buffer.concat([...(this.#hdtr?.headers ?? []), ...(this.#hdtr?.trailers ?? [])]);
  }

  /** Whether the promise has settled. */
  get settled(): boolean {
    return this.#settled;
  }

  /** Ends the call with an errno, 0 for success. No effect if it has ended. */
  end(error: Errno, bytes: number): void {
    if (error === 0) this.#settle(null, bytes);
    else this.#settle(errnoError(error, 'sendfile'), bytes);
  }

  #settle(error: Error | null, bytes: number): void {
    if (this.#settled) return;
    this.#settled = true;
    this.#signal?.removeEventListener('abort', this.#aborted);
    this.#file?.drop();
    const settle = (): void => {
      if (error === null) this.#resolve(bytes);
      else this.#reject(withBytes(error, bytes));
    };
    if (this.#released === null) settle();
    else void this.#released.then(settle);
  }

  #abort(): void {
    if (this.#call !== null) this.#call.cancel(ECANCELED);
    else this.#finish(abortError(this.#signal!), 0);
  }

  /** Settles, and lets the stream go on. */
  #finish(error: Error | null, bytes: number): void {
    this.#settle(error, bytes);
    const ended = this.#ended;
    this.#ended = null;
    ended?.(bytes);
  }

  /**
   * Sends the file. `ended` is called later. Returns true if the call has ended at once, in which case
   * `ended` is not called. @param open whether the socket is still open
   */
  start(so: KernSocket, open: () => boolean, ended: Ended): boolean {
    if (this.#settled) return true;
    const source = this.#source;
    if (source instanceof File) return this.#begin(source, so, ended);
    if (typeof source === 'string' || source instanceof URL) {
      this.#ended = ended;
      this.#openPath(source, so, open, ended);
      return false;
    }
    let released: () => void = () => undefined;
    this.#file = new File(source.fd, () => released());
    this.#released = new Promise((resolve) => (released = resolve));
    return this.#begin(this.#file, so, ended);
  }

  #openPath(path: string | URL, so: KernSocket, open: () => boolean, ended: Ended): void {
    const { openPath } = this.#host;
    const opened =
      openPath === null
        ? Promise.reject(errnoError(EBADF, 'sendfile', 'this stack opens no paths: use openFile'))
        : openPath(path);
    opened.then(
      ({ fd, close }) => {
        const file = new File(fd, close);
        if (this.#settled) {
          file.drop();
          return;
        }
        this.#file = file;
        if (!open()) this.#finish(errnoError(EPIPE, 'sendfile'), 0);
        else if (this.#begin(file, so, ended)) this.#finish(null, 0);
      },
      (error: unknown) => this.#finish(error as Error, 0),
    );
  }

  /** Starts sendfile(2). Returns true if it failed at once. */
  #begin(file: File, so: KernSocket, ended: Ended): boolean {
    const fd = file.f_fd;
    const error =
      fd < 0
        ? EBADF
        : sendfile(file, so, this.#offset, this.#nbytes, this.#hdtr, this.#flags, false, this);
    if (error !== 0) {
      this.end(error, 0);
      return true;
    }
    this.#ended = ended;
    this.#call = sendfileResult.call;
    return false;
  }

  sendfileDone(error: Errno, bytes: number): void {
    this.#call = null;
    const aborted = error === ECANCELED && this.#signal?.aborted === true;
    const failure = error === 0 ? null : errnoError(error, 'sendfile');
    try {
      this.#report(bytes);
    } finally {
      this.#finish(aborted ? abortError(this.#signal) : failure, bytes);
    }
  }

  /** The socket buffer has got room: reports the progress. */
  progress(): void {
    if (this.#call !== null) this.#report(this.#call.appended);
  }

  #report(bytes: number): void {
    if (this.#onProgress === null || bytes === this.#reported) return;
    this.#reported = bytes;
    this.#onProgress(bytes);
  }
}
