/** Which benches and rows names mean, and whether the machine has what they need. */

import { missing } from '../support/needs.ts';
import { usage } from './args.ts';
import type { Bench } from './bench.ts';
import { benches } from './benches.ts';

/** A bench, or some of its rows. */
export interface Selected {
  readonly bench: Bench;
  /** Some rows of the bench were chosen, not the whole bench. */
  readonly partial: boolean;
}

function find(name: string): Selected[] {
  const whole = (bench: Bench): Selected => ({ bench, partial: false });
  if (name === 'all') return benches.filter(({ alone }) => alone !== true).map(whole);
  const named = benches.find((b) => b.name === name);
  if (named !== undefined) return [whole(named)];
  for (const bench of benches) {
    if (!('rows' in bench)) continue;
    const rows = bench.rows.filter((row) => row.name === name);
    if (rows.length > 0) return [{ bench: { ...bench, rows }, partial: true }];
  }
  usage(`no bench ${name}`);
}

/** The benches called `names`, each once, in order; a row's name selects the row alone. */
export function select(names: readonly string[]): Selected[] {
  return [...new Set(names)]
    .flatMap(find)
    .filter(
      ({ bench, partial }, i, all) =>
        partial || all.findIndex((other) => other.bench === bench) === i,
    );
}

/** Rejects if the machine lacks something. */
export function demand(needs: readonly string[]): void {
  const lacking = needs.map(missing).filter((why) => why !== null);
  if (lacking.length > 0) throw new Error(`missing: ${lacking.join('; ')}`);
}

/** The message of an error; of two, the first one that was thrown. */
export function reasonOf(e: unknown): string {
  // Thrown by `using` if cleaning up failed after a failure.
  const suppressed: unknown = e instanceof Error ? Reflect.get(e, 'suppressed') : undefined;
  if (suppressed !== undefined) return reasonOf(suppressed);
  return e instanceof Error ? e.message : String(e);
}
