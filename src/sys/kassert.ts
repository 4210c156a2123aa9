/**
 * Assertions about our own code, after KASSERT(9) and panic(9). They are active in releases too.
 */

/** The machine cannot continue, because one of its invariants is violated. */
export class Panic extends Error {
  override readonly name = 'Panic';
}

/** Stops the machine. @see panic(9) */
export function panic(message: string): never {
  throw new Panic(`panic: ${message}`);
}

/**
 * Panics if `ok` is false. Use it only for programming errors; hostile input is counted and
 * dropped. `message` must be a literal, because a template string would be built on every call.
 * @see KASSERT(9)
 */
export function KASSERT(ok: boolean, message: string): asserts ok {
  if (!ok) panic(message);
}
