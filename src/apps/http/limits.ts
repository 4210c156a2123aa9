/** Limits of what a client can occupy, and of the log. */

import { count, R_HTTP_LOG_LIMIT } from '../../sys/reason.ts';

/** Receives reports of problems; pino's loggers fit. */
export interface Logger {
  info(fields: object, message: string): void;
  warn(fields: object, message: string): void;
}

/** Limits of a server. Times are milliseconds. */
export interface Limits {
  /** Connections at a time. */
  readonly connections: number;
  /** From the first byte of a request, or from the start of the connection, to the end of its head. */
  readonly headMs: number;
  /** The same to the end of its body. */
  readonly requestMs: number;
  /** From a response to the first byte of the next request. */
  readonly idleMs: number;
  /** Without progress of what is sent. */
  readonly stallMs: number;
}

export const DEFAULT_LIMITS: Limits = {
  connections: 1024,
  headMs: 20_000,
  requestMs: 30_000,
  idleMs: 15_000,
  stallMs: 30_000,
};

/** Bytes of a request's head; of a body that is read and ignored. */
export const HEAD_MAX = 16384;
export const BODY_MAX = 65536;

/** Lines a second, and lines at once. */
const LINES_PER_S = 10;
const BURST = 20;

/** Passes a limited number of lines per second to a logger, and counts the rest. */
export class LimitedLog implements Logger {
  readonly #log: Logger;
  #left = BURST;
  #suppressed = 0;

  constructor(log: Logger) {
    this.#log = log;
  }

  info(fields: object, message: string): void {
    if (this.#take()) this.#log.info(fields, message);
  }

  warn(fields: object, message: string): void {
    if (this.#take()) this.#log.warn(fields, message);
  }

  #take(): boolean {
    if (this.#left > 0) {
      this.#left--;
      return true;
    }
    this.#suppressed++;
    count(R_HTTP_LOG_LIMIT);
    return false;
  }

  /** To be called once a second, and at the end. Reports how many lines were not passed on. */
  second(): void {
    this.#left = Math.min(this.#left + LINES_PER_S, BURST);
    if (this.#suppressed === 0) return;
    this.#log.warn({ lines: this.#suppressed }, 'log lines suppressed');
    this.#suppressed = 0;
  }
}
