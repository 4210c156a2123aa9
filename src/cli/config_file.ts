/** The --config file: YAML whose keys are option names. Errors name the line and column. */

import { closeSync, openSync, readSync } from 'node:fs';
import { isMap, isScalar, isSeq, LineCounter, type Node, parseDocument } from 'yaml';
import { fileError, UsageError } from './command.ts';

/** A key and the texts of its value, in the form of the command line. */
interface ConfigEntry {
  readonly key: string;
  readonly texts: string[];
  /** `FILE:LINE:COLUMN` of each text. */
  readonly where: readonly string[];
}

/** The keys that the file may have. */
interface ConfigKeys {
  readonly names: readonly string[];
  /** Options that may be repeated on the command line. In the file: a list, or a map for `a=b`. */
  readonly repeated: readonly string[];
  /** Options with a comma list on the command line. In the file: a list, or the same text. */
  readonly lists: readonly string[];
}

/** A suggestion if `word` differs from a name only in case, `-` or `_`; otherwise empty. */
function suggestion(word: string, names: readonly string[]): string {
  const near = names.find(
    (name) => name.replaceAll('-', '') === word.replaceAll(/[-_]/g, '').toLowerCase(),
  );
  return near === undefined ? '' : `: did you mean ${near}?`;
}

/** Far more than all options take. YAML of many megabytes takes minutes. */
const BYTES_MAX = 1 << 20;

/** Reads the file, which may be a FIFO. Throws Node's error, and UsageError if it is too long. */
function readText(file: string): string {
  const fd = openSync(file, 'r');
  try {
    const buf = Buffer.alloc(BYTES_MAX + 1);
    let len = 0;
    for (let n = 1; n !== 0 && len < buf.length; len += n)
      n = readSync(fd, buf, len, buf.length - len, null);
    if (len > BYTES_MAX) throw new UsageError(`--config ${file}: longer than 1 MiB`);
    return buf.toString('utf8', 0, len);
  } finally {
    closeSync(fd);
  }
}

/** The parser's error in words for the author of the file. */
function yamlError({ code, message }: { code: string; message: string }): string {
  if (code === 'MULTIPLE_DOCS') return 'a second document: one is needed';
  if (code === 'RESOURCE_EXHAUSTION' || message.startsWith('Maximum call stack'))
    return 'nested too deeply';
  return message.split(/ at line |\n/)[0]!;
}

/**
 * Parses YAML text to entries. Throws UsageError for bad YAML, an unknown key or a wrong type of
 * value.
 */
export function parseConfig(text: string, file: string, keys: ConfigKeys): ConfigEntry[] {
  const lineCounter = new LineCounter();
  const doc = parseDocument(text, { lineCounter });
  const at = (offset: number | undefined): string => {
    const { line, col } = lineCounter.linePos(offset ?? 0);
    return `${file}:${line}:${col}`;
  };
  const [error] = doc.errors;
  if (error !== undefined) throw new UsageError(`${at(error.pos[0])}: ${yamlError(error)}`);
  const root = doc.contents;
  if (root === null) return [];
  if (!isMap(root)) throw new UsageError(`${at(root.range?.[0])}: not a map of option names`);

  /** The source text of a scalar: `0x10` and `1_000` stay unchanged. */
  const scalar = (node: unknown, offset: number | undefined): string => {
    const value = isScalar(node) ? node.value : null;
    if (typeof value === 'string') return value;
    if (isScalar(node) && (typeof value === 'number' || typeof value === 'boolean'))
      return node.source ?? String(value);
    throw new UsageError(`${at((node as Node | null)?.range?.[0] ?? offset)}: not a single value`);
  };
  return root.items.map(({ key: keyNode, value }) => {
    const keyAt = (keyNode as Node).range?.[0];
    const key = scalar(keyNode, keyAt);
    if (!keys.names.includes(key))
      throw new UsageError(`${at(keyAt)}: unknown key "${key}"${suggestion(key, keys.names)}`);
    const node = value as Node | null;
    const where = at(node?.range?.[0] ?? keyAt);
    const repeated = keys.repeated.includes(key);
    const atNode = (item: unknown): string => at((item as Node | null)?.range?.[0] ?? keyAt);
    if (isSeq(node) && (repeated || keys.lists.includes(key))) {
      const items = node.items.map((item) => scalar(item, keyAt));
      return repeated
        ? { key, texts: items, where: node.items.map(atNode) }
        : { key, texts: [items.join(',')], where: [where] };
    }
    if (isMap(node) && repeated)
      return {
        key,
        texts: node.items.map((item) => `${scalar(item.key, keyAt)}=${scalar(item.value, keyAt)}`),
        where: node.items.map((item) => atNode(item.key)),
      };
    return { key, texts: [scalar(node, keyAt)], where: [where] };
  });
}

/** Reads and parses the file. Throws UsageError, also if the file cannot be read. */
export function readConfig(file: string, keys: ConfigKeys): ConfigEntry[] {
  if (file === '') throw new UsageError("--config: '': the name of a file is needed");
  let text: string;
  try {
    text = readText(file);
  } catch (e) {
    if (e instanceof UsageError) throw e;
    throw new UsageError(`--config ${file}: ${fileError(e)}`);
  }
  return parseConfig(text, file, keys);
}
