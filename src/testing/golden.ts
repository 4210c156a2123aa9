/**
 * Golden captures: the frames of a test against those of a capture file. What differs from run to run is normalised:
 * ports of the side that begins, initial sequence numbers, TCP timestamps, IP and ICMP ids, checksums, times.
 */

import { readFileSync, writeFileSync } from 'node:fs';
import type { Stack } from '../machine/stack.ts';
import { type ByteSink, PcapWriter } from '../pcap/pcap.ts';
import { readCapture } from '../pcap/read.ts';
import { TapnicError } from '../sys/errno.ts';
import { filterOf, type Ignore } from './chatter.ts';
import { Conversations } from './conversations.ts';
import { decodeFrame } from './decode.ts';
import { FrameMismatch } from './expect_frames.ts';
import type { Frame } from './frame.ts';
import { logOf } from './frame_log.ts';
import { frameText } from './frame_text.ts';
import { sideBySide } from './side_by_side.ts';

/** Options of expectCapture. */
export interface ExpectCaptureOptions {
  /** Frames that do not count, in the file too. Default `chatter`. */
  readonly ignore?: Ignore;
  /** False: payloads need only the same length. Default true. */
  readonly payload?: boolean;
  /** Writes the file instead. Default: TAPNIC_UPDATE=1, or `--update` among the arguments of the process. */
  readonly update?: boolean;
}

const CALL = 'expectCapture';
const SNAPLEN = 262_144;
const MS_PER_S = 1000;
const ECHO_TYPES = [0, 8, 128, 129];

/** A frame as the comparison sees it. */
interface Line {
  readonly text: string;
  readonly payload: Uint8Array;
}

/** Numbers the ports of the sides that begin. */
class Ports {
  readonly #names = new Map<string, string>();
  readonly #known = new Set<string>();

  /** The frame's ports as texts. */
  of({ src, dst, sport, dport, protocol }: Frame): [string, string] {
    const from = `${protocol} ${src}.${sport}`;
    const to = `${protocol} ${dst}.${dport}`;
    if (!this.#known.has(from) && !this.#names.has(to)) {
      this.#known.add(from).add(to);
      this.#names.set(from, `port${this.#names.size + 1}`);
    }
    return [this.#names.get(from) ?? String(sport), this.#names.get(to) ?? String(dport)];
  }
}

function lineOf(frame: Frame, ports: Ports): Line {
  const { payload, tcp, icmp } = frame;
  let text = frameText({
    ...frame,
    tcp: tcp && { ...tcp, options: tcp.options.map((o) => o.replace(/^TS .*/, 'TS')) },
    icmp: icmp && { ...icmp, id: ECHO_TYPES.includes(icmp.type) ? 0 : icmp.id },
  });
  if (frame.sport >= 0) {
    const [from, to] = ports.of(frame);
    const ends = `${frame.src}.${frame.sport} > ${frame.dst}.${frame.dport}`;
    text = text.replace(ends, `${frame.src}.${from} > ${frame.dst}.${to}`);
  }
  return { text, payload };
}

function linesOf(frames: readonly Frame[]): Line[] {
  const ports = new Ports();
  return frames.map((frame) => lineOf(frame, ports));
}

function bytesOf(frames: readonly Frame[]): Uint8Array {
  const parts: Uint8Array[] = [];
  const sink: ByteSink = {
    write: (bytes, off, len) => void parts.push(bytes.slice(off, off + len)),
  };
  const writer = new PcapWriter(sink, { snaplen: SNAPLEN });
  for (const { bytes, timeMs } of frames) {
    const sec = Math.floor(timeMs / MS_PER_S);
    const nsec = Math.round((timeMs - sec * MS_PER_S) * 1e6);
    writer.packet(sec, nsec, bytes, 0, bytes.length, bytes.length);
  }
  return Buffer.concat(parts);
}

async function framesIn(bytes: Uint8Array): Promise<Frame[]> {
  const numbers = new Conversations();
  const found: Frame[] = [];
  const chunks = (async function* () {
    yield bytes;
  })();
  for await (const item of readCapture(chunks))
    if (item.kind === 'packet') found.push(decodeFrame(item.bytes, 'out', 0, numbers));
  return found;
}

function readGolden(file: string | URL): Uint8Array {
  try {
    return readFileSync(file);
  } catch (e) {
    const { code = 'EIO' } = e as NodeJS.ErrnoException;
    const hint = `${String(file)} cannot be read: run the test with TAPNIC_UPDATE=1 to write it`;
    throw new TapnicError(code, CALL, hint);
  }
}

function writeGolden(file: string | URL, bytes: Uint8Array): void {
  try {
    writeFileSync(file, bytes);
  } catch (e) {
    const { code = 'EIO' } = e as NodeJS.ErrnoException;
    throw new TapnicError(code, CALL, `${String(file)} cannot be written`);
  }
}

function updates({ update }: ExpectCaptureOptions): boolean {
  return update ?? (process.env['TAPNIC_UPDATE'] === '1' || process.argv.includes('--update'));
}

/**
 * Checks that the frames of the stack since its fixture began are those of the capture file, pcap or pcapng. With
 * TAPNIC_UPDATE=1 it writes the file, as pcap. Rejects with FrameMismatch, and with TapnicError: EINVAL, ENOENT (the
 * file is missing) and other codes of the file system.
 */
export async function expectCapture(
  stack: Stack,
  file: string | URL,
  options: ExpectCaptureOptions = {},
): Promise<void> {
  const log = logOf(CALL, stack);
  const filter = filterOf(CALL, options.ignore ?? 'chatter');
  const counts = (frame: Frame): boolean => filter(frame) === null;
  const frames = log.frames().filter(counts);
  if (updates(options)) {
    writeGolden(file, bytesOf(frames));
    return;
  }
  let golden: Frame[];
  try {
    golden = await framesIn(readGolden(file));
  } catch (e) {
    if (e instanceof TapnicError) throw e;
    throw new TapnicError('EINVAL', CALL, `${String(file)}: ${(e as Error).message}`);
  }
  const expected = linesOf(golden.filter(counts));
  const actual = linesOf(frames);
  const samePayload = (a: Uint8Array, b: Uint8Array): boolean =>
    options.payload === false || Buffer.compare(a, b) === 0;
  const equal = (i: number, j: number): boolean =>
    expected[i]!.text === actual[j]!.text && samePayload(expected[i]!.payload, actual[j]!.payload);
  const length = Math.max(expected.length, actual.length);
  const at = Array.from({ length }, (_, i) => i).find(
    (i) => i >= expected.length || i >= actual.length || !equal(i, i),
  );
  if (at === undefined) return;
  const same = expected[at]?.text === actual[at]?.text;
  throw new FrameMismatch(
    [
      `${log.name}: frame ${at + 1} is not that of ${String(file)}${same ? ': the payload differs' : ''}`,
      sideBySide(
        expected.map(({ text }) => text),
        actual.map(({ text }) => text),
        equal,
      ),
      'TAPNIC_UPDATE=1 writes the file from this run',
    ].join('\n'),
  );
}
