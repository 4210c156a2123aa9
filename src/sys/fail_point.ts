/**
 * Failure injection at the allocators, similar to fail(9). Every pool checks its fail point before
 * it allocates, and a test arms the point for the k-th request. The names are those of the pools;
 * `failPointNames` lists them. Unlike FreeBSD: fail points are not set by sysctl.
 */

/** The fail point of one allocator. */
export class FailPoint {
  readonly name: string;
  /** Requests since `arm`, including refused ones. */
  seen = 0;
  /** Refused requests since `arm`. */
  fired = 0;
  #first = 0;
  #last = 0;
  #armed = false;

  constructor(name: string) {
    this.name = name;
  }

  /** Refuses `n` requests, starting with the `k`-th from now; `k` is 1 for the next request. */
  arm(k: number, n = 1): void {
    this.seen = 0;
    this.fired = 0;
    this.#first = k;
    this.#last = k + n - 1;
    this.#armed = true;
  }

  /** Stops refusing; `seen` and `fired` keep their values. */
  disarm(): void {
    this.#armed = false;
  }

  /** Called by the allocator for each request. Returns whether it must refuse the request. */
  refuses(): boolean {
    if (!this.#armed) return false;
    this.seen++;
    if (this.seen < this.#first || this.seen > this.#last) return false;
    this.fired++;
    return true;
  }
}

const points = new Map<string, FailPoint>();

/** Returns the fail point `name`, shared by allocator and test; creates it on first use. */
export function failPoint(name: string): FailPoint {
  let point = points.get(name);
  if (point === undefined) {
    point = new FailPoint(name);
    points.set(name, point);
  }
  return point;
}

/** The names of all existing fail points. */
export function failPointNames(): string[] {
  return [...points.keys()];
}

/** Disarms all fail points. The machine calls this at boot. */
export function failPointsReset(): void {
  for (const point of points.values()) point.disarm();
}
