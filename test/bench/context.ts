/** What a row works with while it is measured: programs, namespaces and instances, removed after it. */

import { Instance } from '../support/instance.ts';
import { Netns } from '../support/netns.ts';
import { cliMain } from '../support/root.ts';
import type { Baselines } from './cc.ts';
import { useCubic } from './cubic.ts';
import { Pins, type Who } from './pins.ts';
import type { Effort } from './rounds.ts';

/** The default effort of a row. */
const EFFORT: Effort = { warmUps: 3, rounds: 5, seconds: 20 };
/** Enough for the counters to prove the path, not for a figure. */
const QUICK_EFFORT: Effort = { warmUps: 1, rounds: 1, seconds: 0 };

export interface ContextOptions {
  readonly quick: boolean;
  readonly progress: (text: string) => void;
  readonly baselines: Baselines;
  /** The command line of `start`; ours if not given. */
  readonly cli?: string;
}

export class BenchContext implements AsyncDisposable {
  /** Use a tiny size; the figures mean nothing. */
  readonly quick: boolean;
  readonly progress: (text: string) => void;
  /** Compiles `baseline/NAME.c`; `baselines.dir` is scratch space. */
  readonly baselines: Baselines;
  readonly pins = new Pins();
  readonly #cli: string;
  readonly #cleanUps: (() => void | Promise<void>)[] = [];

  constructor({ quick, progress, baselines, cli }: ContextOptions) {
    this.quick = quick;
    this.progress = progress;
    this.baselines = baselines;
    this.#cli = cli ?? cliMain;
  }

  /** `effort` where the row's differs from the default; always the tiny effort of --quick. */
  effort(effort: Partial<Effort> = {}): Effort {
    return this.quick ? QUICK_EFFORT : { ...EFFORT, ...effort };
  }

  /** Runs `cleanUp` after the row; the last one given runs first. */
  defer(cleanUp: () => void | Promise<void>): void {
    this.#cleanUps.push(cleanUp);
  }

  /** A namespace that is removed after the row, with every program started in it. */
  netns(tag: string): Netns {
    const ns = new Netns(tag);
    this.defer(() => ns[Symbol.dispose]());
    return ns;
  }

  /**
   * Starts `tapnic ARGS`, pinned to the CPU of ours. The kernel at the other end uses cubic. Stops the
   * instance after the row, and fails the row if it does not stop with status 0, as after a leak.
   */
  async start(
    ns: Netns,
    args: string[],
    { who = 'ours', wrapper = [] }: { who?: Who; wrapper?: string[] } = {},
  ): Promise<Instance> {
    const instance = await Instance.start(ns, args, wrapper, this.#cli);
    this.defer(async () => {
      const { code, leaked, stderr } = await instance.stop();
      if (code !== 0)
        throw new Error(`tapnic ended with ${code}: ${JSON.stringify(leaked)} ${stderr}`);
    });
    this.pins.move(instance.ready.pid, who);
    useCubic(ns, instance.ready.tap);
    return instance;
  }

  /** Cleans up everything; rejects with the first error after all of it is done. */
  async [Symbol.asyncDispose](): Promise<void> {
    const errors: unknown[] = [];
    for (const cleanUp of this.#cleanUps.splice(0).toReversed()) {
      try {
        await cleanUp();
      } catch (e) {
        errors.push(e);
      }
    }
    if (errors.length > 0) throw errors[0];
  }
}
