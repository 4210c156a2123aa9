/**
 * Finds the file that a URL names below the served directory. A file is opened first and checked by
 * its descriptor, so that nothing outside the directory is reached, even by symbolic links or
 * races.
 */

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readdirSync,
  readlinkSync,
  realpathSync,
} from 'node:fs';
import { join, sep } from 'node:path';

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
  readonly path: string;
}

/** What was found at a path. */
type Found =
  | FoundFile
  | { readonly kind: 'directory'; readonly html: string }
  | { readonly kind: 'redirect'; readonly location: string }
  | { readonly kind: 'error'; readonly status: number; readonly code: string };

function statusOf(code: string): number {
  switch (code) {
    case 'ENOENT':
    case 'ENOTDIR':
    case 'ENAMETOOLONG':
    case 'ELOOP':
      return 404;
    case 'EACCES':
    case 'EPERM':
      return 403;
    case 'EMFILE':
    case 'ENFILE':
      return 503;
    default:
      return 500;
  }
}

function failed(error: unknown): Found {
  const code = (error as NodeJS.ErrnoException).code ?? 'EIO';
  return { kind: 'error', status: statusOf(code), code };
}

/** The served directory. The constructor throws the errors of fs if it is not a directory. */
export class Root {
  readonly #root: string;

  constructor(dir: string) {
    this.#root = realpathSync(dir);
    readdirSync(this.#root);
  }

  /** Looks up the path of a URL, still percent-encoded, without its query. */
  find(urlPath: string): Found {
    let path: string;
    try {
      path = decodeURIComponent(urlPath);
    } catch {
      return { kind: 'error', status: 400, code: 'EINVAL' };
    }
    if (!path.startsWith('/') || path.includes('\0'))
      return { kind: 'error', status: 400, code: 'EINVAL' };
    if (path.split('/').includes('..')) return { kind: 'error', status: 403, code: 'EACCES' };
    const found = this.#open(path);
    if (found.kind !== 'directory' || path.endsWith('/')) return found;
    return { kind: 'redirect', location: `${urlPath}/` };
  }

  #open(path: string): Found {
    let fd = -1;
    try {
      // O_NONBLOCK: a FIFO must not hang the server; it is refused below.
      fd = openSync(join(this.#root, path), constants.O_RDONLY | constants.O_NONBLOCK);
      const real = readlinkSync(`/proc/self/fd/${fd}`);
      if (real !== this.#root && !real.startsWith(this.#root + (this.#root === sep ? '' : sep))) {
        closeSync(fd);
        return { kind: 'error', status: 403, code: 'EACCES' };
      }
      const st = fstatSync(fd);
      if (st.isFile()) return { kind: 'file', fd, size: st.size, mtimeMs: st.mtimeMs, path: real };
      closeSync(fd);
      if (!st.isDirectory()) return { kind: 'error', status: 403, code: 'EACCES' };
      if (!path.endsWith('/')) return { kind: 'directory', html: '' };
      return this.#index(path, real);
    } catch (e) {
      if (fd >= 0 && (e as NodeJS.ErrnoException).code !== 'EBADF') closeQuietly(fd);
      return failed(e);
    }
  }

  /** index.html if there is one, else a listing. */
  #index(path: string, real: string): Found {
    const index = this.#open(`${path}index.html`);
    if (index.kind === 'file' || (index.kind === 'error' && index.status !== 404)) return index;
    const rows = readdirSync(real, { withFileTypes: true })
      .map((e) => (e.isDirectory() ? `${e.name}/` : e.name))
      .sort()
      .map(
        (name) =>
          `<li><a href="${encodeURIComponent(name).replace(/%2F$/, '/')}">${escape(name)}</a></li>`,
      );
    const title = `Index of ${escape(path)}`;
    return {
      kind: 'directory',
      html: `<!doctype html>\n<title>${title}</title>\n<h1>${title}</h1>\n<ul>\n${rows.join('\n')}\n</ul>\n`,
    };
  }
}

function closeQuietly(fd: number): void {
  try {
    closeSync(fd);
  } catch {
    // The descriptor was closed before the error.
  }
}

function escape(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}
