/**
 * Filter expressions of pcap-filter(7), compiled by libpcap. Without the library, or if the
 * expression has a name that libpcap would ask a name server for, the tcpdump program compiles it:
 * a program can be ended when it takes too long, a call of the library cannot.
 */

import { execFile } from 'node:child_process';
import { isIPv6 } from 'node:net';
import { constants } from 'node:os';
import { loadAddon } from '../../native-bindings/index.ts';

/**
 * An empty capture of Ethernet frames. With a file as input, tcpdump needs no interface and no
 * privilege.
 */
function emptyPcap(): Buffer {
  const header = Buffer.alloc(24);
  header.writeUInt32LE(0xa1b2c3d4, 0);
  header.writeUInt16LE(2, 4);
  header.writeUInt16LE(4, 6);
  header.writeUInt32LE(65_535, 16);
  header.writeUInt32LE(1, 20);
  return header;
}

/** tcpdump takes 10 ms, but a name server can make it slow. */
const COMPILE_MS = 2000;
/** Instructions of the longest program; tcpdump's output is limited likewise. */
const INSNS_MAX = 16_384;
const WHY_BYTES = 256;

/** Why tcpdump failed, in one line. */
function cause(error: Error & { code?: unknown; killed?: boolean }, stderr: string): string {
  if (error.name === 'AbortError') return 'canceled';
  if (error.code === 'ERR_CHILD_PROCESS_STDIO_MAXBUFFER') return 'the filter is too long';
  if (error.killed === true) return 'tcpdump took too long: use addresses, not names';
  const last = stderr.trim().split('\n').at(-1) ?? '';
  return last === '' ? error.message : last.replace(/^tcpdump: /, '');
}

/** The instructions in the output of `tcpdump -ddd`. */
function insnsOf(stdout: string): number[][] {
  return stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(' ').map(Number));
}

/** Compiles with tcpdump. Rejects with Error. */
function runTcpdump(expression: string, signal: AbortSignal | undefined): Promise<number[][]> {
  return new Promise((resolve, reject) => {
    const failed = (why: string): void => reject(new Error(`match: ${why}`));
    const missing = (e: unknown): void =>
      failed(`tcpdump is needed to compile it: ${(e as Error).message}`);
    try {
      const child = execFile(
        'tcpdump',
        ['-ddd', '-r', '-', '--', expression],
        {
          env: { ...process.env, RES_OPTIONS: 'timeout:1 attempts:1' },
          timeout: COMPILE_MS,
          killSignal: 'SIGKILL',
          ...(signal === undefined ? {} : { signal }),
        },
        (error, stdout, stderr) => {
          process.off('exit', kill);
          if (error === null) resolve(insnsOf(stdout));
          else if ('syscall' in error) missing(error);
          else failed(`${expression}: ${cause(error, stderr)}`);
        },
      );
      const kill = (): void => void child.kill('SIGKILL');
      // A process that ends leaves no tcpdump behind.
      process.once('exit', kill);
      // EPIPE: tcpdump ended before it read its input; its status says why.
      child.stdin?.on('error', () => undefined);
      child.stdin?.end(emptyPcap());
    } catch (e) {
      missing(e); // such as E2BIG
    }
  });
}

/** Words of the language that are no names. libpcap asks no server for any of them. */
const KEYWORDS = new Set(
  (
    'dst src link ether ppp slip fddi tr wlan arp rarp ip sctp tcp udp icmp igmp igrp pim vrrp carp ip6 ' +
    'icmp6 ah esp atalk aarp decnet lat sca moprc mopdl iso clnp stp ipx netbeui host net mask port ' +
    'portrange proto protochain less greater byte broadcast multicast and or not len length inbound ' +
    'outbound vlan mpls pppoed pppoes geneve llc tcpflags tcp-fin tcp-syn tcp-rst tcp-push tcp-ack ' +
    'tcp-urg tcp-ece tcp-cwr icmptype icmpcode icmp-echoreply icmp-unreach icmp-sourcequench ' +
    'icmp-redirect icmp-echo icmp-routeradvert icmp-routersolicit icmp-timxceed icmp-paramprob ' +
    'icmp-tstamp icmp-tstampreply icmp-ireq icmp-ireqreply icmp-maskreq icmp-maskreply icmp6type ' +
    'icmp6code'
  ).split(' '),
);
const NUMBER = /^(0x[0-9a-f]+|\d+(\.\d+){0,3})$/i;
const MAC = /^[0-9a-f]{1,2}([:.-][0-9a-f]{1,2}){5}$/i;

/** An offset and a size, as in `ip[2:2]`. */
const SLICE = /^\d+:[124]?$/;

/** Whether `expression` surely has no name that a name server resolves. */
function withoutNames(expression: string): boolean {
  let before = '';
  for (const word of expression.match(/[\w\\:][\w.:\\-]*/g) ?? []) {
    // Names of ports and protocols are in files.
    const named = /^(port|portrange|proto|protochain)$/.test(before);
    const known = KEYWORDS.has(word) || NUMBER.test(word) || MAC.test(word) || isIPv6(word);
    if (!known && !named && !SLICE.test(word)) return false;
    before = word;
  }
  return !/[^\x20-\x7e\t\n\r]/.test(expression);
}

/**
 * Compiles with libpcap, on libuv's pool. Resolves with null if there is no library, or a compilation
 * that took too long still runs. Rejects with Error.
 */
function runLibrary(
  expression: string,
  signal: AbortSignal | undefined,
): Promise<number[][] | null> {
  const addon = loadAddon();
  const { EINVAL, E2BIG } = constants.errno;
  return new Promise((resolve, reject) => {
    const failed = (why: string): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', canceled);
      reject(new Error(`match: ${expression}: ${why}`));
    };
    const canceled = (): void => failed('canceled');
    const done = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', canceled);
      const words = new Uint32Array(4 * INSNS_MAX);
      const why = Buffer.alloc(WHY_BYTES);
      const n = addon.filterResult(words, why);
      if (n === -EINVAL) failed(why.toString('utf8', 0, why.indexOf(0)));
      else if (n === -E2BIG) failed('the filter is too long');
      else if (n < 0) resolve(null);
      else resolve(Array.from({ length: n }, (_, i) => [...words.subarray(4 * i, 4 * i + 4)]));
    };
    const timer = setTimeout(() => failed('it takes too long to compile'), COMPILE_MS);
    signal?.addEventListener('abort', canceled);
    const error = addon.filterCompile(Buffer.from(expression), done);
    if (error === 0) return;
    clearTimeout(timer);
    signal?.removeEventListener('abort', canceled);
    resolve(null);
  });
}

async function run(expression: string, signal: AbortSignal | undefined): Promise<number[][]> {
  // A text with NUL cannot be an argument of a program.
  if (expression.includes('\0'))
    throw new Error(`match: ${JSON.stringify(expression)}: not a filter`);
  if (signal?.aborted === true) throw new Error(`match: ${expression}: canceled`);
  const insns = withoutNames(expression) ? await runLibrary(expression, signal) : null;
  return insns ?? runTcpdump(expression, signal);
}

/** The compilation that was started last. */
let last: Promise<unknown> = Promise.resolve();

/**
 * Compiles `expression` to BPF instructions [code, jt, jf, k], off the event loop and one at a
 * time. Rejects with Error with a one-line message, at most two seconds after the compilations
 * before it.
 */
export function compileFilterInsns(expression: string, signal?: AbortSignal): Promise<number[][]> {
  const program = last.then(() => run(expression, signal));
  last = program.catch(() => undefined);
  return program;
}
