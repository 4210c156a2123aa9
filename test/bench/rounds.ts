/** Repeats rounds of alternating runs, and selects those that count. */

/** If others use more of a core than this, a round counts only if too few are better. */
export const NOISE_CORES = 0.12;

/** How long a figure may take. */
export interface Effort {
  /**
   * Runs of ours before the first round: until V8's compiler threads are done, they use the
   * sender's CPU.
   */
  warmUps: number;
  /** Undisturbed rounds wanted. */
  rounds: number;
  /** Disturbed rounds are repeated until this many seconds have passed. */
  seconds: number;
}

export interface Rounds<T> {
  /** The rounds that count. */
  counted: T[];
  /** All rounds, in order. */
  all: T[];
  /** Too few rounds were undisturbed, so all count. */
  noisy: boolean;
}

/** Repeats `round` within `effort`. `foreign` returns the cores that others used during a round. */
export async function runRounds<T>(
  effort: Effort,
  round: (i: number) => Promise<T>,
  foreign: (result: T) => number,
): Promise<Rounds<T>> {
  const all: T[] = [];
  const calm = (): T[] => all.filter((result) => foreign(result) <= NOISE_CORES);
  const start = process.hrtime.bigint();
  const elapsed = (): number => Number(process.hrtime.bigint() - start) / 1e9;
  while (
    all.length < effort.rounds ||
    (calm().length < effort.rounds && elapsed() < effort.seconds)
  ) {
    all.push(await round(all.length));
    if (elapsed() > 2 * effort.seconds) break;
  }
  const clean = calm();
  const counted = clean.length >= 2 ? clean : all;
  return { counted, all, noisy: counted !== clean };
}
