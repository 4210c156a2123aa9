/** `capture`: records capture points of a running instance, as tcpdump does an interface. */

import { extname } from 'node:path';
import { Writable } from 'node:stream';
import type { Command } from 'commander';
import { exitProcess } from '../host/exit.ts';
import type { KeyLog } from '../machine/key_log.ts';
import type { PlaceLine } from '../machine/live_captures.ts';
import {
  CliError,
  newCommand,
  print,
  printError,
  printJson,
  reportError,
  UsageError,
} from './command.ts';
import type { Rotation } from './capture_files.ts';
import {
  addClientOptions,
  ask,
  type ClientOptions,
  findInstance,
  openChannel,
} from './control_client.ts';
import { decimalNumber, wholeNumber } from './numbers.ts';
import { stopOnSignal } from './signals.ts';

interface Options extends ClientOptions {
  write?: string;
  list?: boolean;
  installWireshark?: boolean;
  verify?: string;
  with?: string;
  snaplen?: string;
  count?: string;
  bytes?: string;
  seconds?: string;
  files?: string;
  pen?: string;
  comment?: string;
  keylog?: string;
  nano?: boolean;
}

/** The answer of the request. */
interface Result {
  readonly packets: number;
  readonly received: number;
  readonly dropped: number;
  readonly ringDrops: number;
}

/** Bytes of a megabyte of -C, as tcpdump counts them. */
const MEGABYTE = 1_000_000;
export const SNAPLEN_MAX = 262_144;

/** Runs the check of an option; its error becomes a UsageError that names the option. */
function checked<T>(option: string, check: () => T): T {
  try {
    return check();
  } catch (e) {
    throw new UsageError(`${option}: ${(e as Error).message}`);
  }
}

/** The number of an option, from 1 to `max`. Throws UsageError. */
export function whole(option: string, text: string | undefined, max: number): number | undefined {
  return text === undefined ? undefined : checked(option, () => wholeNumber(text, 1, max));
}

function rotationOf({ bytes, seconds, files }: Options, file: string): Rotation {
  const size = bytes === undefined ? null : checked('-C', () => decimalNumber(bytes, 0.001, 1e9));
  const rotation = {
    bytes: size === null ? null : size * MEGABYTE,
    seconds: whole('-G', seconds, 1e9) ?? null,
    files: whole('-W', files, 1e6) ?? null,
  };
  if (rotation.files !== null && rotation.bytes === null && rotation.seconds === null)
    throw new UsageError('-W: it counts the files of -C or -G: give one of them');
  if (file === '-' && (rotation.bytes !== null || rotation.seconds !== null))
    throw new UsageError('-C and -G divide files: -w needs the name of a file');
  return rotation;
}

/** `pcap` for a name that ends so; else `pcapng`. */
function formatOf(file: string): 'pcap' | 'pcapng' {
  const name = file.endsWith('.gz') ? file.slice(0, -3) : file;
  return extname(name) === '.pcap' ? 'pcap' : 'pcapng';
}

async function listPlaces(options: Options): Promise<void> {
  const lines = await ask<PlaceLine[]>(options, 'captures', {});
  if (options.json === true) {
    printJson(lines);
    return;
  }
  const width = Math.max(...lines.map(({ place }) => place.length));
  for (const { place, tap, description, captures } of lines) {
    const notes = [tap === null ? '' : `TAP ${tap}`, captures === 0 ? '' : `${captures} running`];
    const more = notes.filter((note) => note !== '').join(', ');
    print(`${place.padEnd(width)}  ${description}${more === '' ? '' : ` (${more})`}\n`);
  }
}

/** Standard output. When its reader leaves, what follows is discarded and the capture ends. */
function stdoutSink(onGone: () => void): Writable {
  let gone = false;
  let waiting: (() => void) | null = null;
  process.stdout.once('error', () => {
    gone = true;
    waiting?.();
    onGone();
  });
  return new Writable({
    write: (chunk: Buffer, _encoding, done) => {
      if (gone || process.stdout.write(chunk)) return done();
      waiting = () => {
        waiting = null;
        done();
      };
      process.stdout.once('drain', () => waiting?.());
    },
  });
}

/** The arguments `filter` and `program` of a request; none for an empty filter. Rejects with UsageError. */
export async function filterArgs(filter: string): Promise<object> {
  if (filter === '') return {};
  const { compileFilterInsns } = await import('../host/pcap_filter.ts');
  try {
    return { filter, program: await compileFilterInsns(filter) };
  } catch (e) {
    throw new UsageError(`capture: ${(e as Error).message.replace(/^match: /, '')}`);
  }
}

function summary({ packets, received, dropped, ringDrops }: Result): string {
  const word = packets === 1 ? 'packet' : 'packets';
  return (
    `${packets} ${word} captured\n${received} received at the capture points\n` +
    `${dropped} dropped: reader too slow\n${ringDrops} dropped: capture ring full\n`
  );
}

async function verify(points: string | undefined, options: Options): Promise<void> {
  if (options.verify === undefined) throw new UsageError('capture: --with needs --verify FILE');
  if (points !== undefined) throw new UsageError('capture: --verify records nothing: omit points');
  const { verifyCommand } = await import('./capture_verify.ts');
  return verifyCommand(options.verify, options.with ?? null, options.json === true);
}

/** The key log `path`, with the keys that it has. Rejects with CliError if it cannot be used. */
async function openKeyLog(path: string, file: string): Promise<{ keys: KeyLog; first: Buffer[] }> {
  const { KeyLog: Log } = await import('../machine/key_log.ts');
  const keys = new Log(path);
  try {
    const first = await keys.poll();
    if (file !== '-' && (await keys.isFile(file)))
      throw new UsageError(`--keylog: ${path}: the capture would overwrite it`);
    if (keys.missing) printError(`capture: ${path}: waiting for this key log\n`);
    return { keys, first };
  } catch (e) {
    if (e instanceof UsageError) throw e;
    throw new CliError(`--keylog: ${(e as Error).message}`);
  }
}

/** The line of the summary about a key log. */
function keysText({ counts: { keys, leftOut, skipped }, missing }: KeyLog): string {
  const notes = [
    leftOut === 0 ? '' : `${leftOut} other ${leftOut === 1 ? 'line' : 'lines'} left out`,
    skipped === 0 ? '' : `${skipped} bytes before them skipped`,
    missing ? 'the file is missing' : '',
  ].filter((note) => note !== '');
  return `${keys} TLS keys${notes.length === 0 ? '' : ` (${notes.join(', ')})`}\n`;
}

/** Sends the request and writes its answer to `file` until the capture ends. */
async function record(
  request: { readonly format: string },
  points: string,
  file: string,
  rotation: Rotation,
  options: Options,
): Promise<void> {
  const log = options.keylog === undefined ? null : await openKeyLog(options.keylog, file);
  const channel = await openChannel(await findInstance(options));
  const stopping = stopOnSignal();
  const stop = (): void => stopping.abort();
  /** Why the reader got no more. */
  let gone: string | null = null;
  const onGone = (): void => {
    gone = 'the reader has left';
    stop();
  };
  const { CaptureFiles: Files } = await import('./capture_files.ts');
  const { SecretsOutput: Secrets } = await import('./capture_secrets.ts');
  let failure: Error | null = null;
  try {
    const result = (await channel.stream('capture', request, {
      event: () => undefined,
      output: () => {
        const ready = (): void =>
          printError(`capture: ${points}, ${request.format}: until Ctrl-C\n`);
        const last = (left: boolean): void => (left ? onGone() : stop());
        if (file === '-') ready();
        const files = file === '-' ? null : new Files(file, rotation, { ready, last });
        const unread = (): void => {
          if (files?.discardUnread() === true) gone = `no program has read ${file}`;
        };
        stopping.signal.addEventListener('abort', unread, { once: true });
        const sink = files ?? stdoutSink(onGone);
        const output = log === null ? sink : new Secrets(log.keys, log.first, sink);
        return output.once('error', (e: Error) => (failure = e));
      },
      signal: stopping.signal,
    })) as Result;
    const counts = log === null ? {} : { keylog: log.keys.counts };
    if (options.json === true) printJson({ event: 'captured', ...result, ...counts, file });
    else if (gone !== null) printError(`capture: ${gone as string}\n`);
    else printError(`${summary(result)}${log === null ? '' : keysText(log.keys)}`);
  } catch (e) {
    if (failure === null) throw e;
    const error = new CliError(`capture: ${(failure as Error).message}`);
    // Node would wait until the reader takes what it was given.
    if (file === '-') exitProcess(reportError(error));
    throw error;
  } finally {
    channel.close();
  }
}

async function capture(
  points: string | undefined,
  words: string[],
  options: Options,
): Promise<void> {
  if (options.list === true) return listPlaces(options);
  if (options.installWireshark === true) {
    const { installWireshark } = await import('./install_wireshark.ts');
    return installWireshark();
  }
  if (options.verify !== undefined || options.with !== undefined) return verify(points, options);
  const { capturePlacesOf } = await import('../machine/option_texts.ts');
  const { capturePoints } = await import('../sys/capture.ts');
  const names = capturePoints.join(', ');
  if (points === undefined) throw new UsageError(`capture: a point is needed: ${names}, or --list`);
  const places = capturePlacesOf(points);
  const bad = places.find(({ point }) => !(capturePoints as readonly string[]).includes(point));
  if (bad !== undefined)
    throw new UsageError(`capture: ${bad.point}: not a capture point: ${names}`);
  const file = options.write;
  if (file === undefined || file === '')
    throw new UsageError('capture: -w FILE is needed, or -w - for standard output');
  if (file === '-' && process.stdout.isTTY)
    throw new UsageError('capture: -w -: standard output is a terminal: pipe it into a reader');
  if (options.json === true && file === '-') throw new UsageError('--json needs -w FILE');
  if (options.keylog === '') throw new UsageError('--keylog: the name of a file is needed');
  if (options.keylog !== undefined && formatOf(file) === 'pcap')
    throw new UsageError('--keylog: a .pcap file has no keys: use .pcapng');
  const rotation = rotationOf(options, file);
  const snaplen = whole('-s', options.snaplen, SNAPLEN_MAX);
  const count = whole('-c', options.count, Number.MAX_SAFE_INTEGER);
  const pen = whole('--pen', options.pen, 0xffffffff);
  const request = {
    places,
    format: formatOf(file),
    nanoseconds: options.nano === true,
    ...(snaplen === undefined ? {} : { snaplen }),
    ...(count === undefined ? {} : { count }),
    ...(pen === undefined ? {} : { pen }),
    ...(options.comment === undefined ? {} : { comment: options.comment }),
    ...(await filterArgs(words.join(' '))),
  };
  return record(request, points, file, rotation, options);
}

export const captureCommand: Command = addClientOptions(
  newCommand('capture')
    .description('record capture points of a running instance as pcapng or pcap')
    .argument('[points]', 'POINT[@IF][,POINT…]; --list prints them')
    .argument('[filter...]', 'a pcap-filter(7) expression')
    .option('-w, --write <file>', 'output: .pcapng, .pcap, also .gz; - for standard output')
    .option('--verify <file>', 'check a capture: packets against its statistics and counters')
    .option('--with <file>', "with --verify: another program's capture of the TAP")
    .option('--list', 'print the places where a capture can record')
    .option('--install-wireshark', "install extcap, dissector and profile in the user's Wireshark")
    .option('-s, --snaplen <bytes>', `bytes kept of a packet (default: ${SNAPLEN_MAX})`)
    .option('-c, --count <packets>', 'end after that many packets')
    .option('-C, --bytes <megabytes>', 'begin another file after that many 1,000,000 bytes')
    .option(
      '-G, --seconds <seconds>',
      'begin another file after that time; FILE may have strftime(3) words',
    )
    .option('-W, --files <files>', 'with -C: a ring of that many files; with -G: end after them')
    .option('--nano', 'nanoseconds in .pcap files; .pcapng always has them')
    .option('--pen <number>', 'private enterprise number of the metadata (default: 32473)')
    .option('--comment <text>', 'comment of the file')
    .option('--keylog <file>', 'add the keys of a TLS key log (SSLKEYLOGFILE) to .pcapng files'),
).action(capture);
