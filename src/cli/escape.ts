/**
 * Escapes control characters. All output of the command line passes these functions, because
 * requests, peers, file names and answers of the control socket can contain any character.
 */

/** Control characters (C0, DEL, C1), bidirectional controls and Unicode's line separators. */
const UNSAFE = /[\p{Cc}\p{Bidi_Control}\p{Zl}\p{Zp}]/gu;
/** The same without tab and line feed. */
const UNSAFE_IN_LAYOUT = /[\p{Bidi_Control}\p{Zl}\p{Zp}]|(?![\t\n])\p{Cc}/gu;
/** Control characters that JSON.stringify does not escape. */
const UNSAFE_IN_JSON = UNSAFE_IN_LAYOUT;

const SHORT: Readonly<Record<string, string>> = { '\t': '\\t', '\n': '\\n', '\r': '\\r' };

function hex(c: string, digits: number): string {
  return c.charCodeAt(0).toString(16).padStart(digits, '0');
}

function escaped(c: string): string {
  return SHORT[c] ?? (c.charCodeAt(0) < 0x100 ? `\\x${hex(c, 2)}` : `\\u${hex(c, 4)}`);
}

/** Escapes one field: a control character becomes `\n`, `\x1b` or `\u202e`. */
export function escapeField(text: string): string {
  return text.replace(UNSAFE, escaped);
}

/** Escapes a formatted text: like `escapeField`, but keeps tabs and line feeds. */
export function escapeLayout(text: string): string {
  return text.replace(UNSAFE_IN_LAYOUT, escaped);
}

/** Returns `value` as a line of JSON without control characters. */
export function jsonText(value: unknown): string {
  return escapeJson(JSON.stringify(value) ?? 'null');
}

/** Escapes the control characters in a JSON text that JSON permits in strings. */
export function escapeJson(json: string): string {
  return json.replace(UNSAFE_IN_JSON, (c) => `\\u${hex(c, 4)}`);
}

/** Returns a copy of JSON data with `escape` applied to every string. */
export function escapeData(data: unknown, escape: (text: string) => string): unknown {
  if (typeof data === 'string') return escape(data);
  if (Array.isArray(data)) return data.map((one) => escapeData(one, escape));
  if (typeof data !== 'object' || data === null) return data;
  return Object.fromEntries(
    Object.entries(data).map(([name, one]) => [escape(name), escapeData(one, escape)]),
  );
}
