/**
 * The path of a request as bytes. File names are bytes in any encoding, and a URL's path writes those
 * that are not plain ASCII percent-encoded, byte by byte.
 */

const PERCENT = 0x25;
const SLASH = 0x2f;

function hexDigit(c: number | undefined): number {
  if (c === undefined) return -1;
  if (c >= 0x30 && c <= 0x39) return c - 0x30;
  const letter = c | 0x20;
  return letter >= 0x61 && letter <= 0x66 ? letter - 0x57 : -1;
}

/** Percent-decodes `text`, one character for each byte; null if an encoding is malformed. */
function percentDecoded(text: string): Buffer | null {
  const bytes = Buffer.from(text, 'latin1');
  let out = 0;
  for (let i = 0; i < bytes.length; i++) {
    let c = bytes[i]!;
    if (c === PERCENT) {
      const high = hexDigit(bytes[i + 1]);
      const low = hexDigit(bytes[i + 2]);
      if (high < 0 || low < 0) return null;
      c = high * 16 + low;
      i += 2;
    }
    bytes[out++] = c;
  }
  return bytes.subarray(0, out);
}

/**
 * Percent-encodes a name, one character for each byte, for a URL: everything but what
 * encodeURIComponent leaves.
 */
export function percentEncoded(name: string): string {
  return name.replace(
    /[^A-Za-z0-9\-_.!~*'()]/g,
    (c) => `%${c.charCodeAt(0).toString(16).toUpperCase().padStart(2, '0')}`,
  );
}

/** The target of a request. */
interface Target {
  /** Decoded, relative to the served directory: no empty or `.` component, no slash in front. */
  readonly path: Buffer;
  /** The path ends with a slash, or is empty: it names a directory. */
  readonly slash: boolean;
  /** The query with its question mark, or ''. */
  readonly query: string;
}

/**
 * Splits and decodes a request's target in origin form or absolute form. `%2F` is a slash. Returns a
 * status instead: 400 for another form, a malformed encoding or a NUL, 403 for a `..` component.
 */
export function targetOf(url: string): Target | 400 | 403 {
  const m = /^(?:https?:\/\/[^/?#]*)?([^?#]*)(\?[^#]*)?/i.exec(url)!;
  const absolute = /^https?:/i.test(url);
  const encoded = m[1] === '' && absolute ? '/' : m[1]!;
  const decoded = percentDecoded(encoded);
  if (decoded === null || decoded[0] !== SLASH || decoded.includes(0)) return 400;
  const parts = decoded.toString('latin1').split('/');
  if (parts.includes('..')) return 403;
  const last = parts.at(-1)!;
  const names = parts.filter((part) => part !== '' && part !== '.');
  return {
    path: Buffer.from(names.join('/'), 'latin1'),
    slash: last === '' || last === '.',
    query: m[2] ?? '',
  };
}

/**
 * The location of a directory for a request that left its last slash out. It begins with exactly one
 * slash, so that it cannot name another host, and has the query of the request.
 */
export function directoryLocation(target: Target): string {
  const names = target.path.toString('latin1').split('/').map(percentEncoded);
  const query = target.query.replace(/[^\x21-\x7e]/g, percentEncoded);
  return `/${names.join('/')}/${query}`;
}
