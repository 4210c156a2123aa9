#!/usr/bin/env node
/**
 * The program `tapnic-extcap`: Wireshark and tshark run it to list the capture points of all running
 * instances, to describe the fields of the dialog, and to capture. extcap(4) describes the arguments.
 * What it prints on stderr, Wireshark shows when the status is not 0.
 */

import { createWriteStream } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { exitProcess } from '../host/exit.ts';
import type { PlaceLine } from '../machine/live_captures.ts';
import { capturePlacesOf } from '../machine/option_texts.ts';
import { filterArgs, SNAPLEN_MAX, whole } from './capture.ts';
import { CliError, ownPackage, packageVersion, print, reportError, UsageError } from './command.ts';
import { findInstance, openChannel, type Target } from './control_client.ts';
import { findSockets, type FoundSocket, netnsInode, netnsName } from './control_path.ts';

/** The interface whose instance the dialog selects. */
const ANY = 'tapnic';
/** An instance that does not answer delays the list of interfaces by this time, ms. */
const LIST_MS = 2000;
/** After a stop: time for the last packets, ms. */
const STOP_MS = 2000;

/** An interface of Wireshark. */
interface Offer {
  readonly value: string;
  readonly display: string;
  /** `POINT@IF`, separated by commas. */
  readonly points: string;
  readonly target: Target | null;
}

const ANY_OFFER: Offer = {
  value: ANY,
  display: 'tapnic: an instance chosen in the dialog',
  points: 'wire',
  target: null,
};

type Args = ReadonlyMap<string, string>;

/** Options without a value. */
const SWITCHES = new Set(['extcap-interfaces', 'extcap-dlts', 'extcap-config', 'capture']);

/** Reads `--name value` and `--name=value`. Throws UsageError. */
function argsOf(words: readonly string[]): Args {
  const args = new Map<string, string>();
  for (let i = 0; i < words.length; i++) {
    const [, name, value] = /^--([a-z-]+)(?:=(.*))?$/s.exec(words[i]!) ?? [];
    if (name === undefined) throw new UsageError(`${words[i]}: not an option`);
    if (SWITCHES.has(name)) args.set(name, '');
    else if (value !== undefined) args.set(name, value);
    else if (i + 1 < words.length) args.set(name, words[++i]!);
    else throw new UsageError(`--${name}: a value is needed`);
  }
  return args;
}

/** A text in an answer: braces and line ends would end it. */
const plain = (text: string): string => text.replace(/[^ -~]|[{}]/g, '_');
/** A part of an interface's name. */
const word = (text: string): string => text.replace(/[^\w.@-]/g, '_');

/** Settles as `work`, but rejects after LIST_MS. */
async function soon<T>(work: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new CliError('no answer')), LIST_MS);
  });
  try {
    return await Promise.race([work, late]);
  } finally {
    clearTimeout(timer);
  }
}

async function placesAt(target: Target): Promise<PlaceLine[]> {
  const channel = await openChannel(target);
  try {
    return (await channel.request('captures', {})) as PlaceLine[];
  } finally {
    channel.close();
  }
}

/** The interfaces of one instance; none if it does not answer. */
async function offersOf(target: FoundSocket, own: number): Promise<Offer[]> {
  let lines: PlaceLine[];
  try {
    lines = await soon(placesAt(target));
  } catch {
    return [];
  }
  const { inode, tap } = target;
  const netns = inode === own ? null : (netnsName(inode) ?? String(inode));
  const prefix = netns === null ? `tapnic-${tap}` : `tapnic-${netns}-${tap}`;
  const where = netns === null ? tap : `${tap} in netns ${netns}`;
  const first = lines.filter((line) => line.if === lines[0]?.if);
  const all = { point: 'all points', place: first.map(({ place }) => place).join(',') };
  const offer = (name: string, what: string, points: string): Offer => ({
    value: word(`${prefix}-${name}`),
    display: plain(`tapnic ${where}: ${what}`),
    points,
    target,
  });
  return [
    ...lines.map(({ place, description }) => offer(place, `${place}, ${description}`, place)),
    ...(first.length === 0
      ? []
      : [offer('all', `${all.point} of ${first[0]!.if}, one packet id`, all.place)]),
  ];
}

/** Every interface, the one of the dialog first. */
async function allOffers(): Promise<Offer[]> {
  const own = netnsInode(null);
  const { sockets } = findSockets();
  const found = await Promise.all(sockets.map((socket) => offersOf(socket, own)));
  return [ANY_OFFER, ...found.flat()];
}

async function offerOf(args: Args): Promise<Offer> {
  const name = args.get('extcap-interface');
  if (name === undefined) throw new UsageError('--extcap-interface is needed');
  const offers = name === ANY ? [ANY_OFFER] : await allOffers();
  const offer = offers.find(({ value }) => value === name);
  if (offer === undefined)
    throw new CliError(
      `${name}: no such capture point: its instance has ended, or does not answer`,
    );
  return offer;
}

async function interfaces(): Promise<string> {
  const lines = (await allOffers()).map(
    ({ value, display }) => `interface {value=${value}}{display=${display}}`,
  );
  const dir = ownPackage()?.dir;
  const help =
    dir === undefined ? '' : `{help=${pathToFileURL(join(dir, 'docs/capture.md')).href}}`;
  return [`extcap {version=${packageVersion()}}{display=tapnic}${help}`, ...lines].join('\n');
}

/** Fields of the dialog: name, type, default, texts. */
function config({ points, target, value }: Offer): string {
  const fields = [
    [
      'points',
      'Points',
      'string',
      points,
      'POINT[@IF][,POINT...], as in tapnic capture',
      'Capture',
    ],
    ['filter', 'Filter', 'string', '', 'a pcap-filter expression', 'Capture'],
    ['snaplen', 'Snap length', 'unsigned', String(SNAPLEN_MAX), 'bytes of a packet', 'Capture'],
    ['comment', 'Comment', 'string', '', 'comment of the file', 'Capture'],
    ['netns', 'Network namespace', 'string', '', 'a name of ip netns list', 'Instance'],
    ['tap', 'TAP interface', 'string', '', 'Linux name of the interface', 'Instance'],
    [
      'control',
      'Control socket',
      'string',
      target === null ? '' : target.path,
      'its path',
      'Instance',
    ],
  ] as const;
  return fields
    .filter(([, , , , , group]) => group === 'Capture' || value === ANY)
    .map(([call, display, type, preset, tip, group], number) => {
      const range = call === 'snaplen' ? `{range=1,${SNAPLEN_MAX}}` : '';
      const start = preset === '' ? '' : `{default=${plain(preset)}}`;
      return (
        `arg {number=${number}}{call=--${call}}{display=${display}}{type=${type}}${start}` +
        `{tooltip=${tip}}{group=${group}}${range}`
      );
    })
    .join('\n');
}

/** The expression of Wireshark's own filter line and of the dialog. */
function expressionOf(args: Args): string {
  const parts = [args.get('extcap-capture-filter'), args.get('filter')].map((text) => text?.trim());
  const given = parts.filter((text): text is string => text !== undefined && text !== '');
  return given.length < 2 ? (given[0] ?? '') : given.map((text) => `(${text})`).join(' and ');
}

/** Prints why the filter is not valid; nothing if it is: so Wireshark asks for it. */
async function validation(args: Args): Promise<string> {
  try {
    await filterArgs(expressionOf(args));
    return '';
  } catch (e) {
    return (e as Error).message;
  }
}

const given = (args: Args, name: string): string | undefined => args.get(name) || undefined;

async function targetOf(args: Args, { target }: Offer): Promise<Target> {
  if (target !== null) return target;
  const options: { control?: string; tap?: string; netns?: string } = {};
  for (const name of ['control', 'tap', 'netns'] as const) {
    const text = given(args, name);
    if (text !== undefined) options[name] = text;
  }
  return findInstance(options);
}

async function capture(args: Args): Promise<void> {
  const fifo = given(args, 'fifo');
  if (fifo === undefined) throw new UsageError('--fifo is needed');
  const offer = await offerOf(args);
  const snaplen = given(args, 'snaplen');
  const comment = given(args, 'comment');
  const request = {
    places: capturePlacesOf(given(args, 'points') ?? offer.points),
    format: 'pcapng',
    ...(snaplen === undefined ? {} : { snaplen: whole('--snaplen', snaplen, SNAPLEN_MAX) }),
    ...(comment === undefined ? {} : { comment }),
    ...(await filterArgs(expressionOf(args))),
  };
  const stopping = new AbortController();
  const channel = await openChannel(await targetOf(args, offer));
  let gone = false;
  // Wireshark sends SIGTERM and closes the FIFO; a write may then wait without end.
  const stop = (): void => {
    stopping.abort();
    setTimeout(() => exitProcess(0), STOP_MS).unref();
  };
  for (const signal of ['SIGTERM', 'SIGINT', 'SIGHUP'] as const) process.on(signal, stop);
  try {
    await channel.stream('capture', request, {
      event: () => undefined,
      output: () =>
        createWriteStream(fifo, { flags: 'w' }).once('error', (e: NodeJS.ErrnoException) => {
          gone = e.code === 'EPIPE';
        }),
      signal: stopping.signal,
    });
  } catch (e) {
    if (!gone && !stopping.signal.aborted) throw e;
  } finally {
    channel.close();
  }
}

/** The text that the arguments ask for; null: it was a capture. */
async function answer(args: Args): Promise<string | null> {
  if (args.has('extcap-interfaces')) return interfaces();
  if (args.has('capture')) {
    await capture(args);
    return null;
  }
  if (args.has('extcap-dlts')) return 'dlt {number=1}{name=EN10MB}{display=Ethernet}';
  if (args.has('extcap-config')) return config(await offerOf(args));
  if (args.has('extcap-capture-filter')) return validation(args);
  throw new UsageError('Wireshark runs this program: see `tapnic capture --install-wireshark`');
}

process.stdout.on('error', () => undefined);
try {
  const text = await answer(argsOf(process.argv.slice(2)));
  if (text !== null && text !== '') print(`${text}\n`);
  if (text === null) exitProcess(0);
} catch (e) {
  process.exitCode = reportError(e);
}
