/**
 * The head of a request: RFC 9112, sections 2 to 6. The parser is strict where leniency lets two
 * programs see different requests in the same bytes (request smuggling): names, white space before a
 * colon, folded lines, a CR alone, repeated or odd lengths. Only the fields that a file server needs are
 * kept. Each byte is one character.
 */

/** The fields that are kept, by name in lower case; each is undefined if the request lacks it. */
interface Fields {
  readonly connection?: string;
  readonly 'content-length'?: string;
  readonly expect?: string;
  readonly host?: string;
  readonly 'if-match'?: string;
  readonly 'if-modified-since'?: string;
  readonly 'if-none-match'?: string;
  readonly 'if-range'?: string;
  readonly 'if-unmodified-since'?: string;
  readonly range?: string;
  readonly 'transfer-encoding'?: string;
}

/** Fields of which the first one counts; the others are lists, whose parts are joined. RFC 9110, 5.3. */
const SINGLE = new Set(['if-modified-since', 'if-unmodified-since', 'host']);
const KEPT = new Set([
  ...SINGLE,
  'connection',
  'content-length',
  'expect',
  'if-match',
  'if-none-match',
  'if-range',
  'range',
  'transfer-encoding',
]);

/** The head of a request. */
export interface Head {
  readonly method: string;
  /** The target as it was sent. */
  readonly target: string;
  /** `1.1`, `1.0`, or another version, which is not supported. */
  readonly version: string;
  readonly fields: Fields;
  /** Number of Host fields. */
  readonly hosts: number;
  /** It has a condition or a range. */
  readonly conditional: boolean;
  /** Bytes of the body. */
  readonly length: number;
  /** The body has a transfer coding. */
  readonly encoded: boolean;
  /** Whether the client permits further requests on the connection. */
  readonly keepAlive: boolean;
}

const REQUEST_LINE = /^([A-Z][A-Z_-]*) +([^\0-\x20\x7f]+)(?: +HTTP\/(\d\.\d))?$/;
const VERSIONS = new Set(['0.9', '1.0', '1.1', '2.0']);
/** A field: its name, and its value with white space behind it. */
const FIELD = /^([!#$%&'*+.^_`|~\w-]+):[\t ]*([\t\x20-\x7e\x80-\xff]*)$/;
/** White space of a field. String.trim removes other characters, too. */
const SPACE = /^[\t ]+|[\t ]+$/g;
const CR = 0x0d;
const LF = '\n';

/** The parts of a list, in lower case. */
function partsOf(list: string): string[] {
  return list.split(',').map((part) => part.replace(SPACE, '').toLowerCase());
}

/** Whether `list` has `token`, in lower case. */
function listHas(list: string | undefined, token: string): boolean {
  return list !== undefined && partsOf(list).includes(token);
}

/** The fields of a head while it is parsed. */
class Parsed {
  readonly fields: Record<string, string> = {};
  hosts = 0;
  /** Whether a condition or a range is among the fields. */
  conditional = false;

  /** Adds a line. Returns what is wrong with it, or ''. */
  add(line: string): string {
    const m = FIELD.exec(line);
    if (m === null) return 'malformed header field';
    const name = m[1]!.toLowerCase();
    if (!KEPT.has(name)) return '';
    const value = m[2]!.replace(SPACE, '');
    const before = this.fields[name];
    if (name === 'host') this.hosts++;
    else if (name === 'range' || name.startsWith('if-')) this.conditional = true;
    if (before === undefined) this.fields[name] = value;
    else if (name === 'content-length') return 'more than one Content-Length';
    else if (!SINGLE.has(name)) this.fields[name] = `${before}, ${value}`;
    return '';
  }
}

/** What is wrong with the framing of a request; '' if nothing is. RFC 9112, 6.1 and 6.3. */
function framingProblem(fields: Fields): string {
  const { 'content-length': length, 'transfer-encoding': coding } = fields;
  if (length !== undefined && !/^\d+$/.test(length)) return 'invalid Content-Length';
  if (coding === undefined) return '';
  if (length !== undefined) return 'Content-Length beside Transfer-Encoding';
  const codings = partsOf(coding);
  const last = codings.length - 1;
  return codings.indexOf('chunked') === last ? '' : 'the last transfer coding is not chunked';
}

/** The line of `text` from `from` on, without its end, which is the LF at `lf`. */
function lineOf(text: string, from: number, lf: number): string {
  // A line may end with LF alone. RFC 9112, 2.2.
  return text.slice(from, lf > from && text.charCodeAt(lf - 1) === CR ? lf - 1 : lf);
}

/**
 * Parses the head in `text` from `start` to `end`, the index behind its empty line. Returns a string that
 * says what is wrong: the answer is 400.
 */
export function parseHead(text: string, start: number, end: number): Head | string {
  let lf = text.indexOf(LF, start);
  const m = REQUEST_LINE.exec(lineOf(text, start, lf));
  if (m === null) return 'malformed request line';
  const version = m[3] ?? '0.9';
  if (!VERSIONS.has(version)) return 'unknown version of HTTP';
  const parsed = new Parsed();
  for (;;) {
    const from = lf + 1;
    lf = text.indexOf(LF, from);
    // The empty line.
    if (lf + 1 === end) break;
    const problem = parsed.add(lineOf(text, from, lf));
    if (problem !== '') return problem;
  }
  const { hosts, conditional } = parsed;
  const fields: Fields = parsed.fields;
  const problem = framingProblem(fields);
  if (problem !== '') return problem;
  const { connection } = fields;
  const keepAlive =
    version === '1.1'
      ? !listHas(connection, 'close')
      : version === '1.0' && listHas(connection, 'keep-alive');
  return {
    method: m[1]!,
    target: m[2]!,
    version,
    fields,
    hosts,
    conditional,
    length: Number(fields['content-length'] ?? 0),
    encoded: fields['transfer-encoding'] !== undefined,
    keepAlive,
  };
}

/** Why a request's head is not acceptable; null if it is. RFC 9112, 3.2. */
export function hostProblem({ fields: { host }, hosts, version }: Head): string | null {
  if (hosts > 1) return 'Bad Request: more than one Host';
  if (host === undefined)
    return version === '1.0' || version === '0.9' ? null : 'Bad Request: no Host';
  const valid = /^(?:[\w.~!$&'()*+,;=%-]*|\[[\w.:%~-]+\])(?::\d*)?$/.test(host);
  return valid ? null : 'Bad Request: invalid Host';
}

/**
 * Returns the index behind the empty line that ends the head which begins at `start`, with a line that is
 * not empty. -1: it has not arrived; `scanned.line` is where the search continues then, and 0 before a head.
 */
export function headEnd(text: string, start: number, scanned: { line: number }): number {
  for (let line = Math.max(scanned.line, start); ;) {
    const lf = text.indexOf(LF, line);
    if (lf < 0) {
      scanned.line = line;
      return -1;
    }
    if (lf === line || (lf === line + 1 && text.charCodeAt(line) === CR)) {
      scanned.line = 0;
      return lf + 1;
    }
    line = lf + 1;
  }
}

/** The index of the first character from `at` on that is not part of an empty line. */
export function skipEmptyLines(text: string, at: number): number {
  while (at < text.length) {
    const c = text.charCodeAt(at);
    if (c !== CR && c !== 0x0a) break;
    at++;
  }
  return at;
}
