/**
 * Files that stay open between requests, with the parts of their headers. Each use checks that the
 * name still refers to the same file, unchanged; a file that was changed, replaced or deleted is looked up
 * again. Requests that arrived before a pass share its check: the bytes of a request that was sent after
 * a change arrive in a later pass. A file that is not used for a second or two is closed.
 */

import { type File, openFile } from '../../api/file.ts';
import type { FileStamp, Folder } from '../../sys/folder.ts';
import { passNumber } from '../../sys/pass.ts';
import { count, R_HTTP_FILE_EVICTED } from '../../sys/reason.ts';
import { contentType, type FoundFile } from './files.ts';
import { etagOf } from './semantics.ts';

/** Open files. */
const OPEN_MAX = 256;
/** Length of a target under which a file is kept. */
const TARGET_MAX = 512;

/** An open file. */
export class OpenFile {
  readonly file: File;
  readonly size: number;
  readonly mtimeMs: number;
  readonly etag: string;
  /** The fields of every response of the file, and those of its contents. */
  readonly fields: string;
  readonly type: string;
  readonly stamp: FileStamp | null;
  /** When `stamp` was compared. */
  pass = -1;
  /** Used since the last sweep. */
  used = true;
  /** The whole response's header, for connections that stay open, as of second `headS`. */
  head: Uint8Array[] = [];
  headS = -1;

  constructor(folder: Folder, { fd, size, mtimeMs, path, name }: FoundFile) {
    this.file = openFile(fd, (n) => folder.close(n));
    this.size = size;
    this.mtimeMs = mtimeMs;
    this.etag = etagOf(size, mtimeMs);
    const modified = new Date(mtimeMs).toUTCString();
    this.fields = `ETag: ${this.etag}\r\nLast-Modified: ${modified}\r\nAccept-Ranges: bytes\r\n`;
    this.type = `Content-Type: ${contentType(path)}\r\n`;
    this.stamp = folder.stamp(name, fd);
  }
}

/** Open files by the targets of requests. */
export class FileCache {
  readonly #folder: Folder;
  readonly #files = new Map<string, OpenFile>();
  #closed = false;

  constructor(folder: Folder) {
    this.#folder = folder;
  }

  /** The file of a target, if it is open and unchanged. Call it inside a pass. */
  get(target: string): OpenFile | null {
    const found = this.#files.get(target);
    if (found === undefined) return null;
    const pass = passNumber();
    if (found.pass !== pass) {
      if (!this.#folder.unchanged(found.stamp!)) {
        this.#drop(target, found);
        return null;
      }
      found.pass = pass;
    }
    found.used = true;
    return found;
  }

  /**
   * Takes ownership of `file`, which a request for `target` has found, if it can be checked. Returns
   * whether it did.
   */
  put(target: string, file: OpenFile): boolean {
    if (this.#closed || file.stamp === null || target.length > TARGET_MAX) return false;
    // Two requests may have looked it up at a time.
    const before = this.#files.get(target);
    if (before !== undefined) this.#drop(target, before);
    else if (this.#files.size >= OPEN_MAX) this.#evict();
    // A copy: `target` is a part of the text that a client sent, which it would keep in memory.
    this.#files.set(Buffer.from(target, 'latin1').toString('latin1'), file);
    return true;
  }

  #drop(target: string, { file }: OpenFile): void {
    this.#files.delete(target);
    file.drop();
  }

  /** Closes the file that was put first, but rather one that was not used lately. */
  #evict(): void {
    let victim: [string, OpenFile] | null = null;
    for (const entry of this.#files) {
      victim ??= entry;
      if (entry[1].used) continue;
      victim = entry;
      break;
    }
    count(R_HTTP_FILE_EVICTED);
    if (victim !== null) this.#drop(...victim);
  }

  /** Call it once a second: closes files that were not used since the last call. */
  sweep(): void {
    for (const [target, file] of this.#files) {
      if (!file.used) this.#drop(target, file);
      file.used = false;
    }
  }

  /** Closes all files. None is kept from now on. */
  close(): void {
    this.#closed = true;
    for (const [target, file] of this.#files) this.#drop(target, file);
  }
}
