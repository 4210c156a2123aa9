/** Waits until the DHCP client has an address, for at most 30 seconds of the machine's clock. */

import type { Task } from '../../sys/clock.ts';
import { TapnicError } from '../../sys/errno.ts';
import { Callout, callout_reset, callout_stop } from '../../kern/kern_timeout.ts';
import { type EndWait, untilStopped } from '../until_stopped.ts';
import type { DhcpClient } from './dhcp_client.ts';

const LIMIT_S = 30;

export class DhcpWait implements Task {
  readonly #client: DhcpClient;
  readonly #tap: string;
  readonly #ifname: string;
  readonly #callout = new Callout(this);
  #end: EndWait | null = null;

  /** @param tap Linux's interface, for the message */
  constructor(client: DhcpClient, tap: string, ifname: string) {
    this.#client = client;
    this.#tap = tap;
    this.#ifname = ifname;
  }

  /** Resolves with true: there is an address. False: `stopping` was aborted. Rejects with ETIMEDOUT. */
  wait(stopping: AbortSignal | null): Promise<boolean> {
    return untilStopped(
      stopping,
      (end) => {
        this.#end = end;
        callout_reset(this.#callout, LIMIT_S * 1e9);
        this.#client.whenBound(() => end(true));
      },
      () => {
        this.#end = null;
        callout_stop(this.#callout);
      },
    );
  }

  /** Timer: the time is over. */
  run(): void {
    const { lastProblem } = this.#client;
    const why = lastProblem === '' ? `no server answers on ${this.#tap}` : lastProblem;
    this.#end?.(
      new TapnicError(
        'ETIMEDOUT',
        'dhcp',
        `${this.#ifname} has no address after ${LIMIT_S} s: ${why}: ` +
          `connect ${this.#tap} to a network with a DHCP server, or choose a fixed address (addr)`,
      ),
    );
  }
}
