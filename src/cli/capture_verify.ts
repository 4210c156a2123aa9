/** `capture --verify`: whether a capture agrees with its statistics and with a second capture. */

import type { Verdict } from '../explain/verify.ts';
import { captureItems, naming } from './capture_input.ts';
import { CliError, print, printJson } from './command.ts';
import { escapeField } from './escape.ts';

const SNAPLEN_MAX = 262144;

/** The snap length of the first interface of a file; the largest if it has none. */
async function snaplenOf(file: string): Promise<number> {
  for await (const item of captureItems(file))
    if (item.kind === 'interface') return item.snaplen === 0 ? SNAPLEN_MAX : item.snaplen;
  return SNAPLEN_MAX;
}

/** Checks a capture. @param other a file that another program recorded on the TAP */
export async function verifyCapture(file: string, other: string | null): Promise<Verdict> {
  const { Verifier } = await import('../explain/verify.ts');
  const { WireFrames } = await import('../explain/frames.ts');
  const frames = other === null ? null : new WireFrames(await snaplenOf(other));
  const verifier = new Verifier();
  const read = async (): Promise<void> => {
    for await (const item of captureItems(file)) {
      const rec = verifier.add(item);
      if (rec !== null) frames?.add(rec);
    }
    verifier.finish();
  };
  await naming(file, read());
  if (frames === null || other === null) return verifier.verdict;
  const bad = await frames.read(captureItems(other));
  if (bad !== null) throw new CliError(`${other}: ${bad}`);
  frames.compare(verifier.verdict);
  return verifier.verdict;
}

/** Prints the verdict; throws CliError if something does not agree. */
export async function verifyCommand(
  file: string,
  other: string | null,
  json: boolean,
): Promise<void> {
  const { verdictOk } = await import('../explain/verify.ts');
  const { columns } = await import('../explain/summary.ts');
  const verdict = await verifyCapture(file, other);
  const ok = verdictOk(verdict);
  if (json) printJson({ ok, ...verdict });
  else {
    const rows = verdict.checks.map((check) => [
      check.ok ? 'ok' : 'BAD',
      escapeField(check.name),
      `expected ${check.expected}`,
      `found ${check.found}`,
      check.note,
    ]);
    if (rows.length > 0) print(columns(rows, 5));
    for (const { packet, reason } of verdict.mismatches)
      print(`${packet === 0 ? '' : `packet ${packet}: `}${escapeField(reason)}\n`);
    if (verdict.more > 0) print(`and ${verdict.more} more\n`);
  }
  if (!ok) throw new CliError(`${file}: the capture does not agree`);
}
