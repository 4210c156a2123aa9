/** Collects what contradicts a claim about a path, and refuses the figure with all of it. */
export class Claims {
  readonly #wrong: string[] = [];

  /** Records `what` unless it holds: `conversions of unmapped mbufs: 12`. */
  must(holds: boolean, what: string): this {
    if (!holds) this.#wrong.push(what);
    return this;
  }

  /** Throws if something did not hold. @param title of the figure: mode, build, family */
  check(title: string): void {
    if (this.#wrong.length > 0)
      throw new Error(`${title}: the path is not the claimed one: ${this.#wrong.join('; ')}`);
  }
}
