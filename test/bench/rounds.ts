/** Rounds of runs in turns, and which of them count. */

/** Others used this much of a core: the round counts only if there are no better ones. */
const NOISE_CORES = 0.12;

/** How long a figure may take. */
export interface Effort {
  /** Runs of ours first: the compiler's threads share the sender's CPU until they are done. */
  warmUps: number;
  /** Undisturbed rounds wanted. */
  rounds: number;
  /** Disturbed rounds are measured again until so many seconds have passed. */
  seconds: number;
}

export interface Rounds<T> {
  /** Those that count. */
  counted: T[];
  /** All, in order. */
  all: T[];
  /** Too few were undisturbed: all count. */
  noisy: boolean;
}

/**
 * Repeats `round` as `effort` says. `foreign`: the cores that others used during a round.
 */
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
