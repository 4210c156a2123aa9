/** `ping`: sends echo requests from an emulated host, which it starts with its own NIC. */

import { isIP } from 'node:net';
import type { Command } from 'commander';
import type { PingOptions } from '../apps/ping/ping.ts';
import { newCommand, print, printJson, UsageError } from './command.ts';
import { ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type OwnTexts, type RawFlags } from './nic_flags.ts';
import { decimalNumber, wholeNumber } from './numbers.ts';

/** The largest data that fits into an IP packet with IP and ICMP headers. */
const SIZE_MAX = 65535 - 20 - 8;
const DAY_S = 86400;

const OWN = ['count', 'interval', 'size', 'wait', 'timeout', 'ttl'] as const;

interface Settings extends PingOptions {
  readonly ttl: number | null;
}

function settingsOf(host: string, own: OwnTexts): Settings {
  if (isIP(host) !== 4)
    throw new UsageError(`${host}: an IPv4 address is needed: the emulated host resolves no names`);
  const whole = (name: string, fallback: string, min: number, max: number): number =>
    ownOption(own, name, fallback, (text) => wholeNumber(text, min, max));
  const seconds = (name: string, fallback: string, min: number): number =>
    1000 * ownOption(own, name, fallback, (text) => decimalNumber(text, min, DAY_S));
  return {
    host,
    count: whole('count', '0', 0, Number.MAX_SAFE_INTEGER),
    intervalMs: seconds('interval', '1', 0.001),
    size: whole('size', '56', 0, SIZE_MAX),
    waitMs: own['wait'] === undefined ? null : whole('wait', '', 1, DAY_S * 1000),
    timeoutMs: seconds('timeout', '0', 0),
    ttl: own['ttl'] === undefined ? null : whole('ttl', '', 1, 255),
  };
}

async function ping(host: string, raw: RawFlags): Promise<void> {
  const [{ RawSocket }, { Ping }, text] = await Promise.all([
    import('../api/raw.ts'),
    import('../apps/ping/ping.ts'),
    import('../apps/ping/print.ts'),
  ]);
  const json = raw['json'] === true;
  const quiet = raw['quiet'] === true;
  let settings: Settings | null = null;
  await runNicCommand(raw, {
    own: OWN,
    check: (own) => void (settings = settingsOf(host, own)),
    async run(instance, stopping) {
      const options = settings!;
      const socket = new RawSocket(instance.vnet, {
        ...(options.ttl === null ? {} : { ttl: options.ttl }),
        dontFragment: raw['dontFragment'] === true,
      });
      const run = new Ping(socket, options, {
        reply(reply) {
          if (quiet) return;
          if (json) printJson({ event: 'reply', ...reply });
          else print(text.printReply(reply));
        },
        icmpError(error) {
          if (quiet) return;
          if (json) printJson({ event: 'icmp_error', ...error });
          else print(text.printIcmpError(error));
        },
        sendError(code) {
          if (json) printJson({ event: 'send_error', code });
          else process.stderr.write(text.printSendError(code));
        },
      });
      instance.run({ close: () => run.stop(), destroy: () => run.stop() });
      stopping.addEventListener('abort', () => run.stop(), { once: true });
      if (json) printJson(instance.ready());
      else print(text.printBegin(host, options.size));
      if (stopping.aborted) return 1;
      const statistics = await run.run();
      const loss_percent = text.lossPercent(statistics);
      if (json) printJson({ event: 'statistics', ...statistics, loss_percent });
      else print(text.printStatistics(host, statistics));
      return statistics.received > 0 ? 0 : 1;
    },
  });
}

export const pingCommand: Command = addNicFlags(
  newCommand('ping')
    .description(
      'send ICMP echo requests from the emulated host, which is started for it;\n' +
        'exit status 0 if any request was answered',
    )
    .argument('<host>', "the peer's IPv4 address")
    .option('-c, --count <n>', 'requests to send (default: until a signal)')
    .option('-i, --interval <seconds>', 'time between requests (default: 1)')
    .option('-s, --size <bytes>', 'bytes of data (default: 56)')
    .option('-W, --wait <ms>', 'time to wait for an answer (default: 10000)')
    .option('-t, --timeout <seconds>', 'end after this time, regardless of answers')
    .option('-m, --ttl <n>', 'time to live (default: net.inet.ip.ttl)')
    .option('-D, --dont-fragment', 'set the DF bit')
    .option('-q, --quiet', 'print only the first line and the statistics'),
).action(ping);
