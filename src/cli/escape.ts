/**
 * Escapes what a terminal would act on. Every text that the command line prints passes here, because
 * requests, peers, file names and answers of the control socket can contain anything.
 */

/** Controls (C0, DEL, C1), marks that reorder text, and Unicode's line separators. */
const UNSAFE = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu;
/** The same without tab and line feed. */
const UNSAFE_IN_LAYOUT = /[\p{Bidi_Control}\p{Zl}\p{Zp}]|(?![\t\n])\p{Cc}/gu;
/** What JSON.stringify leaves as it is, and a terminal acts on. */
const UNSAFE_IN_JSON = UNSAFE_IN_LAYOUT;

const SHORT: Readonly<Record<string, string>> = { '\t': '\\t', '\n': '\\n', '\r': '\\r' };

function hex(c: string, digits: number): string {
  return c.charCodeAt(0).toString(16).padStart(digits, '0');
}

function escaped(c: string): string {
  return SHORT[c] ?? (c.charCodeAt(0) < 0x100 ? `\\x${hex(c, 2)}` : `\\u${hex(c, 4)}`);
}

/** One field: a control character becomes `\n`, `\x1b` or `\u202e`. */
export function escapeField(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** A formatted text: like `escapeField`, but tabs and line feeds are layout and stay. */
export function escapeLayout(text: string): string {
  return text.replace(UNSAFE_IN_LAYOUT, escaped);
}

/** `value` as a line of JSON without any control character. */
export function jsonText(value: unknown): string {
  return escapeJson(JSON.stringify(value) ?? 'null');
}

/** A text that is JSON, with the characters escaped that JSON allows in strings. */
export function escapeJson(json: string): string {
  return json.replace(UNSAFE_IN_JSON, (c) => `\\u${hex(c, 4)}`);
}

/** A copy of JSON data with `escape` applied to every string. */
export function escapeData(data: unknown, escape: (text: string) => string): unknown {
  if (typeof data === 'string') return escape(data);
  if (Array.isArray(data)) return data.map((one) => escapeData(one, escape));
  if (typeof data !== 'object' || data === null) return data;
  return Object.fromEntries(
    Object.entries(data).map(([name, one]) => [escape(name), escapeData(one, escape)]),
  );
}
