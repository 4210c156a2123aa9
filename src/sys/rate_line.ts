/** A line of a limited rate, which sends one frame after the other, and the queue in front of it. */
export class RateLine {
  /** When the frames in the queue will have left. */
  readonly #departures: number[] = [];
  #busyUntilNs = 0;

  /** Frames that have not left at `nowNs`. */
  waiting(nowNs: number): number {
    const queue = this.#departures;
    while (queue.length > 0 && queue[0]! <= nowNs) queue.shift();
    return queue.length;
  }

  /** When the oldest frame that waits will have left; one does. */
  get nextNs(): number {
    return this.#departures[0]!;
  }

  /** Queues a frame at `nowNs`: when its last bit has left at `rateBps` bits a second. */
  send(nowNs: number, bytes: number, rateBps: number): number {
    const takesNs = Math.ceil((bytes * 8e9) / rateBps);
    this.#busyUntilNs = Math.max(nowNs, this.#busyUntilNs) + takesNs;
    this.#departures.push(this.#busyUntilNs);
    return this.#busyUntilNs;
  }
}
