/** A line with a limited rate, which sends one frame at a time, and its queue. */
export class RateLine {
  /** The departure time of each queued frame, in ns. */
  readonly #departures: number[] = [];
  #busyUntilNs = 0;

  /** The number of frames that have not left at `nowNs`. */
  waiting(nowNs: number): number {
    const queue = this.#departures;
    while (queue.length > 0 && queue[0]! <= nowNs) queue.shift();
    return queue.length;
  }

  /** The departure time of the oldest frame, in ns. The queue must not be empty. */
  get nextNs(): number {
    return this.#departures[0]!;
  }

  /** Queues a frame at `nowNs`. Returns when its last bit leaves, at `rateBps` bits per second. */
  send(nowNs: number, bytes: number, rateBps: number): number {
    const takesNs = Math.ceil((bytes * 8e9) / rateBps);
    this.#busyUntilNs = Math.max(nowNs, this.#busyUntilNs) + takesNs;
    this.#departures.push(this.#busyUntilNs);
    return this.#busyUntilNs;
  }
}
