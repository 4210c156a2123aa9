/** Finds what a path of the served directory names, and what of it can be sent. */

import type { Folder } from '../../sys/folder.ts';

const types = new Map([
  ['html', 'text/html; charset=utf-8'],
  ['htm', 'text/html; charset=utf-8'],
  ['css', 'text/css; charset=utf-8'],
  ['js', 'text/javascript; charset=utf-8'],
  ['mjs', 'text/javascript; charset=utf-8'],
  ['json', 'application/json'],
  ['txt', 'text/plain; charset=utf-8'],
  ['md', 'text/markdown; charset=utf-8'],
  ['xml', 'application/xml'],
  ['svg', 'image/svg+xml'],
  ['png', 'image/png'],
  ['jpg', 'image/jpeg'],
  ['jpeg', 'image/jpeg'],
  ['gif', 'image/gif'],
  ['ico', 'image/x-icon'],
  ['pdf', 'application/pdf'],
  ['wasm', 'application/wasm'],
  ['mp4', 'video/mp4'],
  ['gz', 'application/gzip'],
  ['zip', 'application/zip'],
]);

/** The media type that a file's name suggests. */
export function contentType(path: string): string {
  const dot = path.lastIndexOf('.');
  return types.get(path.slice(dot + 1).toLowerCase()) ?? 'application/octet-stream';
}

/** A regular file, open for reading; the caller closes `fd`. */
export interface FoundFile {
  readonly kind: 'file';
  readonly fd: number;
  readonly size: number;
  readonly mtimeMs: number;
  /** Its real path. */
  readonly path: string;
  /** The name by which it was looked up. */
  readonly name: Buffer;
}

/** What was found at a path. */
type Found =
  | FoundFile
  /** A directory to be listed; the caller closes `fd`. */
  | { readonly kind: 'directory'; readonly fd: number }
  /** A directory whose path lacks its last slash. */
  | { readonly kind: 'redirect' }
  | { readonly kind: 'error'; readonly status: number; readonly code: string };

/** The status for an errno of a look-up. */
export function statusOf(code: string): number {
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ENAMETOOLONG':
    case 'ELOOP':
      return 404;
    case 'EACCES':
    case 'EPERM':
    case 'ENXIO':
      return 403;
    case 'EAGAIN':
    case 'EMFILE':
    case 'ENFILE':
    case 'ENOMEM':
    case 'ETIMEDOUT':
      return 503;
    default:
      return 500;
  }
}

function failed(code: string): Found {
  return { kind: 'error', status: statusOf(code), code };
}

/** A file or an error; null for a directory. */
async function lookupFile(folder: Folder, name: Buffer): Promise<Found | null> {
  const found = await folder.lookup(name, false);
  if (found.code !== null) return failed(found.code);
  if (found.kind === 'directory') return null;
  // A FIFO, a socket or a device, which was not opened.
  if (found.kind === 'other') return failed('EACCES');
  return { ...found, kind: 'file', name };
}

/** Looks up `path`, decoded and relative; `slash`: it must be a directory. */
export async function find(folder: Folder, path: Buffer, slash: boolean): Promise<Found> {
  const name = path.length === 0 ? Buffer.from('.') : path;
  const asked = slash ? Buffer.concat([name, Buffer.from('/')]) : name;
  const found = await lookupFile(folder, asked);
  if (found !== null) return found;
  if (!slash) return { kind: 'redirect' };
  const index = await lookupFile(folder, Buffer.concat([asked, Buffer.from('index.html')]));
  if (index !== null && !(index.kind === 'error' && index.status === 404)) return index;
  const dir = await folder.lookup(asked, true);
  if (dir.code !== null) return failed(dir.code);
  if (dir.kind === 'directory') return { kind: 'directory', fd: dir.fd };
  // It was replaced since.
  if (dir.fd >= 0) folder.close(dir.fd);
  return failed('ENOENT');
}
