/** Conditions and ranges of HTTP requests: RFC 9110, sections 8.8, 13 and 14. */

import type { Head } from './head.ts';

/** A strong validator of a file's contents: its size and modification time. */
export function etagOf(size: number, mtimeMs: number): string {
  return `"${size.toString(16)}-${Math.round(mtimeMs * 1000).toString(16)}"`;
}

/** A date in one of HTTP's three formats (RFC 9110, 5.6.7), ms; NaN for anything else. */
function httpDate(text: string | undefined): number {
  const valid = /^[A-Z][a-z]+, \d\d[ -][A-Z][a-z]{2}[ -]\d{2,4} [\d:]{8} GMT$/;
  const asctime = /^[A-Z][a-z]{2} [A-Z][a-z]{2} [ \d]\d [\d:]{8} \d{4}$/;
  const date = (text ?? '').trim();
  if (valid.test(date)) return Date.parse(date);
  return asctime.test(date) ? Date.parse(`${date} GMT`) : NaN;
}

/** `weak`: a tag marked as weak matches, too. */
function listHas(header: string, etag: string, weak: boolean): boolean {
  return header
    .split(',')
    .map((tag) => tag.trim())
    .some((tag) => tag === '*' || tag === etag || (weak && tag === `W/${etag}`));
}

/** Whether the client's copy is still good: 304. RFC 9110, 13.2.2. */
export function notModified(req: Head, etag: string, mtimeMs: number): boolean {
  const none = req.fields['if-none-match'];
  if (none !== undefined) return listHas(none, etag, true);
  const since = httpDate(req.fields['if-modified-since']);
  return !Number.isNaN(since) && Math.floor(mtimeMs / 1000) * 1000 <= since;
}

/** Whether the request's If-Match or If-Unmodified-Since fails: 412. */
export function preconditionFailed(req: Head, etag: string, mtimeMs: number): boolean {
  const match = req.fields['if-match'];
  if (match !== undefined) return !listHas(match, etag, false);
  const since = httpDate(req.fields['if-unmodified-since']);
  return !Number.isNaN(since) && Math.floor(mtimeMs / 1000) * 1000 > since;
}

/** Bytes to send: all of them, one range, or a range that does not exist. */
type Range = { kind: 'all' } | { kind: 'range'; first: number; last: number } | { kind: 'bad' };

/**
 * The range a GET requests. Several ranges, other units, malformed ones and a failed If-Range mean
 * the whole file; a range beyond the end is 'bad': 416. RFC 9110, 14.2.
 */
export function rangeOf(req: Head, size: number, etag: string, mtimeMs: number): Range {
  const header = req.fields.range;
  if (header === undefined) return { kind: 'all' };
  const ifRange = req.fields['if-range'];
  if (ifRange !== undefined && ifRange !== etag) {
    const at = httpDate(ifRange);
    if (Number.isNaN(at) || at !== Math.floor(mtimeMs / 1000) * 1000) return { kind: 'all' };
  }
  const set = /^bytes=(.*)$/i.exec(header.trim());
  const specs = (set?.[1] ?? '')
    .split(',')
    .map((spec) => spec.trim())
    .filter((spec) => spec !== '');
  const m = specs.length === 1 ? /^(\d*)-(\d*)$/.exec(specs[0]!) : null;
  if (m === null || (m[1] === '' && m[2] === '')) return { kind: 'all' };
  if (m[1] === '') {
    const suffix = Number(m[2]);
    if (suffix === 0 || size === 0) return { kind: 'bad' };
    return { kind: 'range', first: Math.max(size - suffix, 0), last: size - 1 };
  }
  const first = Number(m[1]);
  const last = m[2] === '' ? size - 1 : Math.min(Number(m[2]), size - 1);
  if (m[2] !== '' && Number(m[2]) < first) return { kind: 'all' };
  if (first >= size) return { kind: 'bad' };
  return { kind: 'range', first, last };
}
