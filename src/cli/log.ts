/** The instance's log on stderr: JSON lines with --json, otherwise readable lines. */

import { type Logger, pino } from 'pino';
import { escapeField, escapeJson } from './escape.ts';
import { LogLimit } from './log_limit.ts';

const LEVELS: Record<number, string> = { 40: 'warning: ', 50: 'error: ', 60: 'fatal: ' };
/** Fields that pino adds. */
const OWN = new Set(['level', 'time', 'msg']);

/** `tapnic: warning: cannot open (url=/x code=EIO)` */
function humanLine(line: string): string {
  const entry = JSON.parse(line) as Record<string, unknown>;
  const fields = Object.entries(entry)
    .filter(([name]) => !OWN.has(name))
    .map(([name, value]) => `${name}=${typeof value === 'string' ? value : JSON.stringify(value)}`);
  const { level, msg = '' } = entry as { level: number; msg?: string };
  const tail = fields.length === 0 ? '' : ` (${fields.join(' ')})`;
  return `tapnic: ${escapeField(`${LEVELS[level] ?? ''}${msg}${tail}`)}\n`;
}

/** Whether a line of pino is an error. It starts with the level. */
const isError = (line: string): boolean =>
  line.startsWith('{"level":5') || line.startsWith('{"level":6');

/** Creates a logger that writes each line synchronously, at most LINES_PER_SECOND. */
export function makeLogger(json: boolean, level: string): Logger {
  const print = (line: string): void =>
    void process.stderr.write(json ? escapeJson(line) : humanLine(line));
  // Reports are not limited: there is one per second.
  const options = { level, base: null, timestamp: pino.stdTimeFunctions.isoTime };
  const reports = pino(options, { write: print });
  const limit = new LogLimit(print, (n) => reports.warn(`${n} log lines suppressed in a second`));
  return pino(options, { write: (line: string) => limit.write(line, isError(line)) });
}
