/**
 * Listings of directories, as HTML. A directory is read piece by piece. Up to a limit the names are
 * kept and sorted. A longer directory, or one read while other listings use the memory for names, is
 * sent in directory order as it is read.
 */

import type { Folder } from '../../sys/folder.ts';
import { count, R_HTTP_LISTING_UNSORTED } from '../../sys/reason.ts';
import { percentEncoded } from './url_path.ts';

/** Bytes of names that are kept for one listing, and for all. */
const KEPT_MAX = 2 << 20;
const KEPT_ALL_MAX = 16 << 20;
/** Bytes accounted for each name besides its own. */
const NAME_COST = 32;
/** Bytes of HTML that are made at once. */
const PIECE = 16384;

let keptByAll = 0;

/** In front of the name of an entry that cannot be fetched. No name contains a slash. */
const REFUSED = '/';

/**
 * Names in the order of the directory, one character for each byte. Directories end with a slash;
 * entries that cannot be fetched start with REFUSED.
 */
function namesOf(bytes: Buffer, names: string[]): void {
  for (let i = 0; i < bytes.length;) {
    const length = bytes[i + 1]!;
    const name = bytes.toString('latin1', i + 2, i + 2 + length);
    const kind = bytes[i];
    names.push(kind === 1 ? `${name}/` : kind === 2 ? `${REFUSED}${name}` : name);
    i += 2 + length;
  }
}

/** The name for display: decoded as UTF-8, other bytes as U+FFFD. */
function shown(name: string): string {
  const text = /[^\0-\x7f]/.test(name) ? Buffer.from(name, 'latin1').toString('utf8') : name;
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

/** The name of an entry for sorting. */
function plain(name: string): string {
  return name.startsWith(REFUSED) ? name.slice(1) : name;
}

function byName(a: string, b: string): number {
  const [x, y] = [plain(a), plain(b)];
  return x < y ? -1 : x > y ? 1 : 0;
}

/** An entry that cannot be fetched is shown, without a link. */
function row(name: string): string {
  if (name.startsWith(REFUSED)) return `<li>${shown(plain(name))}</li>\n`;
  return `<li><a href="${percentEncoded(name).replace(/%2F$/, '/')}">${shown(name)}</a></li>\n`;
}

function head(path: string, sorted: boolean): string {
  const title = `Index of ${shown(path)}`;
  const note = sorted ? '' : '<p>Too many entries to be sorted.</p>\n';
  return `<!doctype html>\n<meta charset="utf-8">\n<title>${title}</title>\n<h1>${title}</h1>\n${note}<ul>\n`;
}

/** A failed read of the directory. `code`: the errno's name. */
export class ListingError extends Error {
  readonly code: string;

  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/**
 * The HTML of a directory in pieces. The caller awaits each before it takes the next, and closes `fd`
 * afterwards. Throws ListingError. @param path the decoded path with slashes around it
 */
export async function* listing(folder: Folder, fd: number, path: string): AsyncGenerator<string> {
  let kept = 0;
  try {
    let names: string[] = [];
    let end = false;
    while (!end && kept <= KEPT_MAX && keptByAll <= KEPT_ALL_MAX) {
      const before = names.length;
      end = await readNames(folder, fd, names);
      const cost = names.slice(before).reduce((sum, name) => sum + name.length + NAME_COST, 0);
      kept += cost;
      keptByAll += cost;
    }
    if (end) names.sort(byName);
    else count(R_HTTP_LISTING_UNSORTED);
    let html = head(path, end);
    for (;;) {
      for (const name of names) {
        html += row(name);
        if (html.length < PIECE) continue;
        yield html;
        html = '';
      }
      if (end) break;
      names = [];
      end = await readNames(folder, fd, names);
    }
    yield `${html}</ul>\n`;
  } finally {
    keptByAll -= kept;
  }
}

/** Appends the next names of the directory; true at its end. */
async function readNames(folder: Folder, fd: number, names: string[]): Promise<boolean> {
  const { code, bytes, end } = await folder.readDir(fd);
  if (code !== null) throw new ListingError(code);
  namesOf(bytes, names);
  return end;
}
