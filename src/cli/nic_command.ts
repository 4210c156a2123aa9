/** Common part of the commands that bring up a NIC: signals, options, stop, exit. */

import { exitProcess } from '../host/exit.ts';
import { outputProblem, outputWritten, unblockOutput } from '../host/out_stream.ts';
import { printJson, reportError, UsageError, warn } from './command.ts';
import type { Instance } from './instance.ts';
import type { OwnTexts, RawFlags } from './nic_flags.ts';
import type { WorkersJob } from './serve_workers.ts';
import { stopOnSignal } from './signals.ts';

/** The part that differs between the commands. */
interface NicJob {
  /** Names of the command's own options, which a --config file may also have. */
  readonly own: readonly string[];
  /**
   * Checks the command's own arguments before the NIC is brought up. Throws UsageError, CliError.
   */
  check?(own: OwnTexts): void | Promise<void>;
  /** After `check`: what several workers serve; null: one stack. */
  workers?(): WorkersJob | null;
  /**
   * Runs on the instance and prints the ready line. Resolves with the exit status when its work is
   * done or `stopping` is aborted.
   */
  run(instance: Instance, stopping: AbortSignal): Promise<number>;
}

/** Resolves when `signal` is aborted. */
export function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve();
    else signal.addEventListener('abort', () => resolve(), { once: true });
  });
}

/** Parses a command's own option with `read`, whose errors become UsageErrors. */
export function ownOption<T>(
  own: OwnTexts,
  name: string,
  fallback: string,
  read: (text: string) => T,
): T {
  try {
    return read(own[name]?.text ?? fallback);
  } catch (e) {
    throw new UsageError(`${own[name]?.where ?? `--${name}`}: ${(e as Error).message}`);
  }
}

/** Milliseconds that a stop and the last output take, and the least that the output has. */
const STOP_MS = 1900;
const OUTPUT_MS_MIN = 200;

/** Starts an instance, runs `job` on it, stops it, and ends the process. */
export async function runNicCommand(raw: RawFlags, job: NicJob): Promise<void> {
  const [{ resolveNicOptions }, { Instance, models }] = await Promise.all([
    import('./nic_options.ts'),
    import('./instance.ts'),
  ]);
  const settings = await resolveNicOptions(raw, models, job.own).compiled();
  await job.check?.(settings.own);
  unblockOutput();
  // Until here a signal ends the process at once, also while a --config file is a FIFO without a
  // writer. A signal during the start stops the instance after the start.
  const stopping = stopOnSignal();
  const json = raw['json'] === true;
  const instance = await Instance.open(settings, json, job.workers?.() ?? null);
  let lost = false;
  void instance.gone.then((why) => {
    lost = true;
    instance.log.error(`${instance.ready().tap}: the interface is gone: ${why}`);
    stopping.abort();
  });
  void instance.died?.then((why) => {
    lost = true;
    instance.log.error(why);
    stopping.abort();
  });
  let status: number;
  try {
    const configured = await instance.configured(stopping.signal);
    status = configured ? await job.run(instance, stopping.signal) : 0;
  } catch (e) {
    status = reportError(e);
  }
  const begun = performance.now();
  const leaked = await instance.stop();
  const clean = Object.keys(leaked).length === 0;
  if (json) printJson({ event: 'exit', leaked });
  if (!clean) instance.log.error({ leaked }, 'leaked');
  // Wait until the output is written, but not for other work on the event loop, such as a slow disk
  // read. After a signal the two seconds of the stop are a limit for a reader that stalls, too.
  const left = Math.max(OUTPUT_MS_MIN, begun + STOP_MS - performance.now());
  await outputWritten(stopping.signal.aborted ? left : null);
  const problem = outputProblem();
  if (problem !== null) {
    warn(problem.message);
    await outputWritten(OUTPUT_MS_MIN);
  }
  const failed = instance.captureFailed || problem?.failed === true;
  exitProcess(clean && !lost && !failed ? status : 1);
}
