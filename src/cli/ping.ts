/** `ping`: sends echo requests from the emulated host of a running instance, or with its own NIC. */

import { isIP } from 'node:net';
import type { Command } from 'commander';
import type { IcmpError } from '../apps/ping/packet.ts';
import type { PingListener, PingReply, PingStatistics } from '../apps/ping/ping.ts';
import { DAY_MS, PING6_SIZE_MAX, PING_SIZE_MAX, type PingRequest } from '../ctl/stream_request.ts';
import { newCommand, print, printError, printJson, UsageError } from './command.ts';
import { openChannel, type Target } from './control_client.ts';
import { ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type OwnTexts, type RawFlags } from './nic_flags.ts';
import { decimalNumber, wholeNumber } from './numbers.ts';
import { addNewOption, ownTexts, runningInstance } from './running.ts';
import { stopOnSignal } from './signals.ts';

const OWN = ['count', 'interval', 'size', 'wait', 'timeout', 'ttl'] as const;

function settingsOf(host: string, own: OwnTexts, raw: RawFlags): PingRequest {
  const family = isIP(host);
  if (family === 0)
    throw new UsageError(`${host}: an IP address is needed: the emulated host resolves no names`);
  for (const [option, wanted] of [
    ['4', 4],
    ['6', 6],
  ] as const)
    if (raw[option] === true && family !== wanted)
      throw new UsageError(`-${option}: ${host}: not an IPv${wanted} address`);
  const whole = (name: string, fallback: string, min: number, max: number): number =>
    ownOption(own, name, fallback, (text) => wholeNumber(text, min, max));
  const seconds = (name: string, fallback: string, min: number): number =>
    1000 * ownOption(own, name, fallback, (text) => decimalNumber(text, min, DAY_MS / 1000));
  return {
    host,
    count: whole('count', '0', 0, Number.MAX_SAFE_INTEGER),
    intervalMs: seconds('interval', '1', 0.001),
    size:
      family === 6 ? whole('size', '8', 0, PING6_SIZE_MAX) : whole('size', '56', 0, PING_SIZE_MAX),
    waitMs: own['wait'] === undefined ? null : whole('wait', '', 1, DAY_MS),
    timeoutMs: seconds('timeout', '0', 0),
    ttl: own['ttl'] === undefined ? null : whole('ttl', '', 1, 255),
    dontFragment: raw['dontFragment'] === true,
  };
}

/** Prints the events of a run as text or JSON. */
interface Printer extends PingListener {
  /** `ready`: the line of the instance. */
  ready(ready: object): void;
  /** @param source our address; null with IPv4 */
  begin(source: string | null): void;
  /** Returns the exit status. */
  end(statistics: PingStatistics): number;
}

async function printerOf(host: string, size: number, raw: RawFlags): Promise<Printer> {
  const text = await import('../apps/ping/print.ts');
  const json = raw['json'] === true;
  const quiet = raw['quiet'] === true;
  return {
    ready(ready) {
      if (json) printJson(ready);
    },
    begin(source) {
      if (!json) print(text.printBegin(host, size, source));
    },
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
      else printError(text.printSendError(code));
    },
    end(statistics) {
      const loss_percent = text.lossPercent(statistics);
      if (json) printJson({ event: 'statistics', ...statistics, loss_percent });
      else print(text.printStatistics(host, statistics));
      return statistics.received > 0 ? 0 : 1;
    },
  };
}

/** Runs on a running instance. Resolves with the exit status. */
async function pingFrom(target: Target, settings: PingRequest, raw: RawFlags): Promise<number> {
  const stopping = stopOnSignal();
  const [printer, channel] = await Promise.all([
    printerOf(settings.host, settings.size, raw),
    openChannel(target),
  ]);
  try {
    printer.ready((await channel.request('info', {})) as object);
    const statistics = await channel.stream('ping', settings, {
      // The instance is of the same version, so its events have the listener's types.
      event: ({ event, ...rest }) => {
        if (event === 'begin') printer.begin(rest['source'] as string | null);
        else if (event === 'reply') printer.reply(rest as unknown as PingReply);
        else if (event === 'icmp_error') printer.icmpError(rest as unknown as IcmpError);
        else if (event === 'send_error') printer.sendError(String(rest['code']));
      },
      signal: stopping.signal,
    });
    return printer.end(statistics as PingStatistics);
  } finally {
    channel.close();
  }
}

async function ping(host: string, raw: RawFlags): Promise<void> {
  const target = await runningInstance(raw, () => settingsOf(host, ownTexts(raw, OWN), raw));
  if (target !== null) {
    process.exitCode = await pingFrom(target.instance, target.settings, raw);
    return;
  }
  const [{ RawSocket }, { Ping }, { pingSocket, sourceOf }] = await Promise.all([
    import('../api/raw.ts'),
    import('../apps/ping/ping.ts'),
    import('./control_jobs.ts'),
  ]);
  let settings: PingRequest | null = null;
  await runNicCommand(raw, {
    own: OWN,
    check: (own) => void (settings = settingsOf(host, own, raw)),
    async run(instance, stopping) {
      const options = settings!;
      const printer = await printerOf(host, options.size, raw);
      const socket = pingSocket(RawSocket, instance.vnet, options);
      const run = new Ping(socket, options, printer);
      instance.run({ close: () => run.stop(), destroy: () => run.stop() });
      stopping.addEventListener('abort', () => run.stop(), { once: true });
      printer.ready(instance.ready());
      printer.begin(sourceOf(instance.vnet, host));
      if (stopping.aborted) return 1;
      return printer.end(await run.run());
    },
  });
}

export const pingCommand: Command = addNicFlags(
  addNewOption(
    newCommand('ping')
      .description(
        'send ICMP echo requests from the emulated host of the running instance, or, if there is none,\n' +
          'from one that is brought up for it; exit status 0 if any request was answered',
      )
      .argument(
        '<host>',
        "the peer's IPv4 or IPv6 address; a link-local one with a zone: fe80::1%tn0",
      )
      .option('-4', 'IPv4 only')
      .option('-6', 'IPv6 only')
      .option('-c, --count <n>', 'requests to send (default: until a signal)')
      .option('-i, --interval <seconds>', 'time between requests (default: 1)')
      .option('-s, --size <bytes>', 'bytes of data (default: 56, with IPv6 8)')
      .option('-W, --wait <ms>', 'time to wait for an answer (default: 10000)')
      .option('-t, --timeout <seconds>', 'end after this time, regardless of answers')
      .option(
        '-m, --ttl <n>',
        'time to live, hop limit (default: net.inet.ip.ttl, net.inet6.ip6.hlim)',
      )
      .option('-D, --dont-fragment', 'set the DF bit; with IPv6 do not send fragments')
      .option('-q, --quiet', 'print only the first line and the statistics'),
  ),
).action(ping);
