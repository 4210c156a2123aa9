/** Assertions on our own code, after KASSERT(9) and panic(9). They stay on in releases. */

/** The machine cannot go on: one of our own invariants does not hold. */
export class Panic extends Error {
  override readonly name = 'Panic';
}

/** Stops the machine. @see panic(9) */
export function panic(message: string): never {
  throw new Panic(`panic: ${message}`);
}

/**
 * Panics if `ok` is false. Only for our own mistakes: hostile input is counted and dropped.
 * `message` is a literal: a template string would be built on every call.
 * @see KASSERT(9)
 */
export function KASSERT(ok: boolean, message: string): asserts ok {
  if (!ok) panic(message);
}
