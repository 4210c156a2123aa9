/** The check of a capture that `tapnic capture --verify` makes, for tests. */

import { verifyCapture } from '../../src/cli/capture_verify.ts';
import { verdictOk } from '../../src/explain/verify.ts';

/**
 * Throws unless the capture agrees with its statistics.
 * @param other what tcpdump recorded on the TAP; absent: not compared
 */
export async function verifyFile(file: string, other?: string): Promise<void> {
  const verdict = await verifyCapture(file, other ?? null);
  if (verdictOk(verdict)) return;
  const bad = verdict.checks.filter(({ ok }) => !ok).map(({ name }) => name);
  const packets = verdict.mismatches.map(({ packet, reason }) => `packet ${packet}: ${reason}`);
  throw new Error(`${file}: ${[...bad, ...packets].join('\n')}`);
}
