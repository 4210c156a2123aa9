/**
 * Echo requests from the emulated host, after sbin/ping: sends them, matches the replies, keeps the
 * statistics. `print.ts` formats the output. Left out: name resolution, sweeps, floods, patterns
 * chosen by the user, record route.
 */

import { randomInt } from 'node:crypto';
import { errorCode, IcmpPacket, type IcmpError, makeEcho, patternMismatch } from './packet.ts';
import { Icmp6Message } from './packet6.ts';

/** The socket underneath: a RawSocket of src/api. */
export interface PingSocket {
  /** 4: ICMP; 6: ICMPv6, whose packets have no IPv6 header. */
  readonly family: 4 | 6;
  send(message: Uint8Array, host: string): void;
  on(
    event: 'message',
    listener: (packet: Buffer, from: string, hops: number | null) => void,
  ): unknown;
  close(): void;
}

export interface PingOptions {
  readonly host: string;
  /** Requests to send; 0 means until stopped. */
  readonly count: number;
  /** Milliseconds between requests. */
  readonly intervalMs: number;
  /** Bytes of data after the ICMP header, 0 to 65507; with IPv6 to 65527. */
  readonly size: number;
  /** Milliseconds to wait for a reply; later replies are counted separately. */
  readonly waitMs: number | null;
  /** Milliseconds after which the run ends in any case; 0 means never. */
  readonly timeoutMs: number;
}

/** A reply to one of our requests. */
export interface PingReply {
  readonly seq: number;
  readonly from: string;
  /** Bytes of the ICMP message. */
  readonly bytes: number;
  readonly ttl: number;
  readonly timeMs: number;
  /** An earlier reply to the same request was received. */
  readonly duplicate: boolean;
  /** The first changed data byte, or null. */
  readonly wrong: { readonly at: number; readonly sent: number; readonly got: number } | null;
}

/** The results of a run. Times are in milliseconds; null if no reply was received. */
export interface PingStatistics {
  readonly transmitted: number;
  readonly received: number;
  readonly duplicates: number;
  /** Replies that took longer than the wait time. */
  readonly late: number;
  readonly rttMs: { min: number; avg: number; max: number; stddev: number } | null;
}

/** Events during a run. */
export interface PingListener {
  reply(reply: PingReply): void;
  /** An ICMP error about one of our requests. */
  icmpError(error: IcmpError): void;
  /** A request could not be sent. */
  sendError(code: string): void;
}

const SEQS = 65536;
/** How long to wait for the last replies if none has come yet, as ping does. */
const MAXWAIT_MS = 10_000;
/** The least time to wait for the last replies if others have come. */
const LINGER_MS = 1000;

/** One run. */
export class Ping {
  readonly #socket: PingSocket;
  readonly #options: PingOptions;
  readonly #listener: PingListener;
  readonly #ident = randomInt(0x10000);
  /** When each request was sent, by sequence number, in milliseconds; NaN if it was not sent. */
  readonly #sentMs = new Float64Array(SEQS).fill(Number.NaN);
  readonly #answered = new Uint8Array(SEQS);
  #transmitted = 0;
  #received = 0;
  #duplicates = 0;
  #late = 0;
  #min = Infinity;
  #max = 0;
  #sum = 0;
  #sumsq = 0;
  #timers: NodeJS.Timeout[] = [];
  #done: (() => void) | null = null;

  /** Takes over `socket`. */
  constructor(socket: PingSocket, options: PingOptions, listener: PingListener) {
    this.#socket = socket;
    this.#options = options;
    this.#listener = listener;
    socket.on('message', (packet, from, hops) => this.#message(packet, from, hops));
  }

  /**
   * Sends requests; resolves with the statistics when all are answered, the wait is over, or it is
   * stopped.
   */
  async run(): Promise<PingStatistics> {
    const { timeoutMs } = this.#options;
    await new Promise<void>((resolve) => {
      this.#done = resolve;
      if (timeoutMs > 0) this.#timers.push(setTimeout(() => this.stop(), timeoutMs));
      this.#next(performance.now());
    });
    for (const timer of this.#timers) clearTimeout(timer);
    this.#socket.close();
    return this.#statistics();
  }

  /** Stops the run: `run` resolves with the statistics so far. */
  stop(): void {
    this.#done?.();
    this.#done = null;
  }

  /** Sends the request that was due at `dueMs` and schedules the next one. */
  #next(dueMs: number): void {
    if (this.#done === null) return;
    const { host, size, count, intervalMs } = this.#options;
    const seq = this.#transmitted++ % SEQS;
    this.#answered[seq] = 0;
    const message = makeEcho(this.#socket.family, this.#ident, seq, size);
    this.#sentMs[seq] = performance.now();
    try {
      this.#socket.send(message, host);
    } catch (e) {
      this.#listener.sendError(errorCode(e));
    }
    if (count > 0 && this.#transmitted >= count) {
      this.#timers.push(setTimeout(() => this.stop(), this.#lastWaitMs()));
      return;
    }
    // A late timer must neither add to later delays nor cause a burst.
    const now = performance.now();
    const nextMs = Math.max(dueMs + intervalMs, now);
    this.#timers = [setTimeout(() => this.#next(nextMs), nextMs - now)];
  }

  #lastWaitMs(): number {
    if (this.#received === 0) return this.#options.waitMs ?? MAXWAIT_MS;
    return Math.max(2 * this.#max, LINGER_MS);
  }

  #message(packet: Buffer, from: string, hops: number | null): void {
    const now = performance.now();
    const icmp =
      this.#socket.family === 6 ? Icmp6Message.parse(packet, hops) : IcmpPacket.parse(packet);
    if (icmp === null || this.#done === null) return;
    if (icmp.isReplyTo(this.#ident)) this.#reply(icmp, from, now);
    else {
      const error = icmp.errorAbout(this.#ident, this.#options.host, from);
      if (error !== null) this.#listener.icmpError(error);
    }
  }

  #reply(icmp: IcmpPacket | Icmp6Message, from: string, now: number): void {
    const { seq } = icmp;
    const timeMs = now - this.#sentMs[seq]!;
    if (Number.isNaN(timeMs)) return; // no request with that number was sent
    const duplicate = this.#answered[seq] === 1;
    this.#answered[seq] = 1;
    if (duplicate) this.#duplicates++;
    else this.#received++;
    this.#sum += timeMs;
    this.#sumsq += timeMs * timeMs;
    this.#min = Math.min(this.#min, timeMs);
    this.#max = Math.max(this.#max, timeMs);
    const { waitMs, count } = this.#options;
    if (waitMs !== null && timeMs > waitMs) {
      this.#late++;
    } else {
      const wrong = patternMismatch(icmp.data, this.#options.size);
      const { bytes, ttl } = icmp;
      this.#listener.reply({ seq, from, bytes, ttl, timeMs, duplicate, wrong });
    }
    if (count > 0 && this.#received >= count) this.stop();
  }

  #statistics(): PingStatistics {
    const n = this.#received + this.#duplicates;
    const avg = this.#sum / n;
    return {
      transmitted: this.#transmitted,
      received: this.#received,
      duplicates: this.#duplicates,
      late: this.#late,
      rttMs:
        n === 0
          ? null
          : {
              min: this.#min,
              avg,
              max: this.#max,
              stddev: Math.sqrt(Math.max(this.#sumsq / n - avg * avg, 0)),
            },
    };
  }
}
