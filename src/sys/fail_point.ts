/**
 * Failure injection at the allocators, after fail(9) in spirit: every pool asks its fail point
 * before it hands something out, and a test arms the point for the k-th request. The names are
 * those of the pools; `failPointNames` lists them. Ours: FreeBSD's fail points are set by sysctl.
 */

/** One allocator's place to be told to fail. */
export class FailPoint {
  readonly name: string;
  /** Requests since it was armed, the refused ones included. */
  seen = 0;
  /** Requests refused since it was armed. */
  fired = 0;
  #first = 0;
  #last = 0;
  #armed = false;

  constructor(name: string) {
    this.name = name;
  }

  /** Refuses the `k`-th request from now on, 1 being the next, and the `n - 1` after it. */
  arm(k: number, n = 1): void {
    this.seen = 0;
    this.fired = 0;
    this.#first = k;
    this.#last = k + n - 1;
    this.#armed = true;
  }

  /** Refuses nothing any more; `seen` and `fired` stay to be read. */
  disarm(): void {
    this.#armed = false;
  }

  /** For the allocator: whether the request it is about to serve is to be refused. */
  refuses(): boolean {
    if (!this.#armed) return false;
    this.seen++;
    if (this.seen < this.#first || this.seen > this.#last) return false;
    this.fired++;
    return true;
  }
}

const points = new Map<string, FailPoint>();

/** The fail point called `name`, made on first use: the same one for allocator and test. */
export function failPoint(name: string): FailPoint {
  let point = points.get(name);
  if (point === undefined) {
    point = new FailPoint(name);
    points.set(name, point);
  }
  return point;
}

/** The names of all fail points there are. */
export function failPointNames(): string[] {
  return [...points.keys()];
}

/** Disarms all. The machine's boot calls this. */
export function failPointsReset(): void {
  for (const point of points.values()) point.disarm();
}
