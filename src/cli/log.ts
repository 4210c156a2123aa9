/** The instance's log on stderr: JSON lines with --json, otherwise readable lines. */

import { type Logger, pino } from 'pino';
import { escapeField, escapeJson } from './escape.ts';

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

/** Creates a logger that writes each line synchronously. */
export function makeLogger(json: boolean, level: string): Logger {
  return pino(
    { level, base: null, timestamp: pino.stdTimeFunctions.isoTime },
    { write: (line: string) => process.stderr.write(json ? escapeJson(line) : humanLine(line)) },
  );
}
