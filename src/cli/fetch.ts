/** `fetch`: one HTTP GET from the emulated host of a running instance, or with its own NIC. */

import { createWriteStream } from 'node:fs';
import { Writable } from 'node:stream';
import type { Command } from 'commander';
import type { FetchResult, FetchUrl } from '../apps/fetch/fetch.ts';
import { FETCH_REDIRECTS } from '../ctl/stream_request.ts';
import { exitProcess } from '../host/exit.ts';
import { poolCall } from '../host/pool_gate.ts';
import {
  CliError,
  fileError,
  newCommand,
  printError,
  printJson,
  reportError,
  UsageError,
} from './command.ts';
import { openChannel, type Target } from './control_client.ts';
import { escapeField } from './escape.ts';
import { ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type OwnTexts, type RawFlags } from './nic_flags.ts';
import { wholeNumber } from './numbers.ts';
import { addNewOption, ownTexts, runningInstance } from './running.ts';
import { stopOnSignal } from './signals.ts';

const DEFAULT_IDLE_S = 60;
const OWN = ['timeout'] as const;
/** Bytes that wait for the file: it gets them in few calls. */
const FILE_AHEAD = 1 << 20;

interface Settings {
  readonly url: FetchUrl;
  readonly idleMs: number;
  /** `-`: standard output. */
  readonly file: string;
}

/**
 * Standard output has ended: its reader has closed it, as head(1) does, or a write failed. The common
 * code of all commands reports a failure, so `fetch` ends quietly.
 */
let stdoutEnded = false;
/** The error of the output file, in words. */
let fileFailure: string | null = null;

/** A stream to standard output that does not close it at the end. */
function stdoutSink(): Writable {
  return new Writable({
    write(chunk: Buffer, _encoding, done) {
      const written = (e?: Error | null): void => {
        if (e) stdoutEnded = true;
        done(e);
      };
      process.stdout.write(chunk, written);
    },
  });
}

/** The calls on the file are on libuv's threads. A FIFO without a reader blocks them. */
function fileSink(file: string): Writable {
  const stream = createWriteStream(file, { highWaterMark: FILE_AHEAD });
  stream.once('error', (e) => (fileFailure = `${file}: ${fileError(e)}`));
  poolCall(`fetch ${file}`, (done) => (stream.closed ? done() : void stream.once('close', done)));
  return stream;
}

const sinkOf = (file: string): Writable => (file === '-' ? stdoutSink() : fileSink(file));

async function settingsOf(text: string, own: OwnTexts, raw: RawFlags): Promise<Settings> {
  const { checkUrl } = await import('../apps/fetch/fetch.ts');
  let url: FetchUrl;
  try {
    url = checkUrl(text);
  } catch (e) {
    throw new UsageError((e as Error).message);
  }
  const seconds = ownOption(own, 'timeout', String(DEFAULT_IDLE_S), (n) =>
    wholeNumber(n, 1, 86400),
  );
  const file = typeof raw['output'] === 'string' ? raw['output'] : '-';
  if (file === '') throw new UsageError("--output: '': the name of a file is needed");
  // Standard output cannot carry both JSON and the body.
  if (raw['json'] === true && file === '-') throw new UsageError('--json needs --output FILE');
  return { url, idleMs: 1000 * seconds, file };
}

/** Prints the result and returns the exit status. */
function report(result: FetchResult, file: string, raw: RawFlags): number {
  const { status, statusText, bytes, seconds } = result;
  if (raw['json'] === true) printJson({ event: 'fetched', ...result, file });
  const rate = (bytes / seconds / 1e6).toFixed(1);
  printError(
    `${result.url}: ${status} ${escapeField(statusText)}, ${bytes} bytes in ${seconds.toFixed(3)} s (${rate} MB/s)\n`,
  );
  return status >= 200 && status < 300 ? 0 : 1;
}

/** Returns the error of a fetch as a line that begins with the URL. */
function explained(text: string, e: unknown, signal: AbortSignal): CliError {
  const { message } = e as Error;
  if (signal.aborted) return new CliError(`${text}: stopped by a signal`);
  if (fileFailure !== null) return new CliError(`${text}: ${fileFailure}`);
  return new CliError(message.startsWith(text) ? message : `${text}: ${message}`);
}

/** Runs on a running instance. Resolves with the exit status. */
async function fetchFrom(
  target: Target,
  text: string,
  { url, idleMs, file }: Settings,
  raw: RawFlags,
): Promise<number> {
  const { signal } = stopOnSignal();
  const { hrefOf } = await import('../apps/fetch/fetch.ts');
  const channel = await openChannel(target);
  try {
    if (raw['json'] === true) printJson(await channel.request('info', {}));
    const result = await channel.stream(
      'fetch',
      { url: hrefOf(url), idleMs },
      { event: () => undefined, output: () => sinkOf(file), signal },
    );
    return report(result as FetchResult, file, raw);
  } catch (e) {
    if (stdoutEnded) return 1;
    const error = explained(text, e, signal);
    // A reader of standard output may have stalled. Node would wait for it.
    if (signal.aborted) exitProcess(reportError(error));
    throw error;
  } finally {
    channel.close();
  }
}

async function fetch(text: string, raw: RawFlags): Promise<void> {
  const target = await runningInstance(raw, () => settingsOf(text, ownTexts(raw, OWN), raw));
  if (target !== null) {
    process.exitCode = await fetchFrom(target.instance, text, target.settings, raw);
    return;
  }
  const [{ connect }, { NetHost }, { fetchUrl }] = await Promise.all([
    import('../api/server.ts'),
    import('../api/net_host.ts'),
    import('../apps/fetch/fetch.ts'),
  ]);
  let settings: Settings | null = null;
  await runNicCommand(raw, {
    own: OWN,
    async check(own) {
      settings = await settingsOf(text, own, raw);
    },
    async run(instance, signal) {
      const { url, idleMs, file } = settings!;
      instance.run({ close: () => undefined, destroy: () => undefined });
      if (raw['json'] === true) printJson(instance.ready());
      try {
        const result = await fetchUrl(
          (port, host) => connect(new NetHost(instance.vnet), port, host),
          {
            url,
            idleMs,
            redirects: FETCH_REDIRECTS,
            output: () => sinkOf(file),
            signal,
          },
        );
        return report(result, file, raw);
      } catch (e) {
        if (stdoutEnded) return 1;
        throw explained(text, e, signal);
      }
    },
  });
}

export const fetchCommand: Command = addNicFlags(
  addNewOption(
    newCommand('fetch')
      .description(
        'fetch a URL with HTTP from the emulated host of the running instance, or, if there is none,\n' +
          'from one that is brought up for it; exit status 0 for a complete 2xx response',
      )
      .argument('<url>', 'such as http://192.0.2.1:8080/file, http://[2001:db8::1]/file')
      .option('-o, --output <file>', 'output file of the body (default: -, standard output)')
      .option('-T, --timeout <seconds>', `time-out without traffic (default: ${DEFAULT_IDLE_S})`),
  ),
).action(fetch);
