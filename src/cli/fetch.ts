/** `fetch`: one HTTP GET from an emulated host, which it starts with its own NIC. */

import { createWriteStream } from 'node:fs';
import { Writable } from 'node:stream';
import type { Command } from 'commander';
import { CliError, newCommand, printJson, UsageError } from './command.ts';
import { ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type RawFlags } from './nic_flags.ts';
import { wholeNumber } from './numbers.ts';

const DEFAULT_IDLE_S = 60;
const REDIRECTS = 5;

/** A stream to standard output that does not close it at the end. */
function stdoutSink(): Writable {
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => void process.stdout.write(chunk, done),
  });
}

async function fetch(text: string, raw: RawFlags): Promise<void> {
  const [{ connect }, { checkUrl, fetchUrl }] = await Promise.all([
    import('../api/server.ts'),
    import('../apps/fetch/fetch.ts'),
  ]);
  const json = raw['json'] === true;
  const file = typeof raw['output'] === 'string' ? raw['output'] : '-';
  let url: URL;
  let idleMs = 0;
  await runNicCommand(raw, {
    own: ['timeout'],
    check(own) {
      try {
        url = checkUrl(text);
      } catch (e) {
        throw new UsageError((e as Error).message);
      }
      idleMs =
        1000 * ownOption(own, 'timeout', String(DEFAULT_IDLE_S), (n) => wholeNumber(n, 1, 86400));
      // Standard output cannot carry both JSON and the body.
      if (json && file === '-') throw new UsageError('--json needs --output FILE');
    },
    async run(instance, stopping) {
      instance.run({ close: () => undefined, destroy: () => undefined });
      if (json) printJson(instance.ready());
      try {
        const result = await fetchUrl((port, host) => connect(instance.vnet, port, host), {
          url,
          idleMs,
          redirects: REDIRECTS,
          output: () => (file === '-' ? stdoutSink() : createWriteStream(file)),
          signal: stopping,
        });
        const { status, statusText, bytes, seconds } = result;
        if (json) printJson({ event: 'fetched', ...result, file });
        const rate = (bytes / seconds / 1e6).toFixed(1);
        process.stderr.write(
          `${result.url}: ${status} ${statusText}, ${bytes} bytes in ${seconds.toFixed(3)} s (${rate} MB/s)\n`,
        );
        return status >= 200 && status < 300 ? 0 : 1;
      } catch (e) {
        const { code, message } = e as NodeJS.ErrnoException;
        if (code === 'ABORT_ERR') throw new CliError(`${text}: stopped by a signal`);
        throw new CliError(message.startsWith(text) ? message : `${text}: ${message}`);
      }
    },
  });
}

export const fetchCommand: Command = addNicFlags(
  newCommand('fetch')
    .description(
      'fetch a URL with HTTP from the emulated host, which is started for it;\n' +
        'exit status 0 for a complete 2xx response',
    )
    .argument('<url>', 'such as http://192.0.2.1:8080/file')
    .option('-o, --output <file>', 'output file of the body (default: -, standard output)')
    .option('-T, --timeout <seconds>', `time-out without traffic (default: ${DEFAULT_IDLE_S})`),
).action(fetch);
