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

const options = (level: string) =>
  ({ level, base: null, timestamp: pino.stdTimeFunctions.isoTime }) as const;

/** A logger of another thread, whose lines go to `write`, at most LINES_PER_SECOND. */
export function lineLogger(write: (line: string) => void): Logger {
  const reports = pino(options('info'), { write });
  const limit = new LogLimit(write, (n) => reports.warn(`${n} log lines suppressed in a second`));
  return pino(options('info'), { write: (line: string) => limit.write(line, isError(line)) });
}

/** The log of an instance: a logger, and a function for the lines of `lineLogger`. */
interface InstanceLog {
  readonly log: Logger;
  readonly line: (line: string) => void;
}

/** Creates a logger that writes each line synchronously, at most LINES_PER_SECOND. */
export function makeLog(json: boolean, level: string): InstanceLog {
  const print = (line: string): void =>
    void process.stderr.write(json ? escapeJson(line) : humanLine(line));
  // Reports are not limited: there is one per second.
  const reports = pino(options(level), { write: print });
  const limit = new LogLimit(print, (n) => reports.warn(`${n} log lines suppressed in a second`));
  const line = (text: string): void => limit.write(text, isError(text));
  return { log: pino(options(level), { write: line }), line };
}
