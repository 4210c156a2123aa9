/** Filter expressions of pcap-filter(7), compiled by the tcpdump program. */

import { spawnSync } from 'node:child_process';

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

/** The event loop waits for tcpdump: 10 ms, but a name server can make it slow. */
const COMPILE_MS = 2000;

/**
 * Compiles `expression` to BPF instructions [code, jt, jf, k]. Throws Error with a one-line
 * message. Blocks the event loop for at most two seconds.
 */
export function compileFilterInsns(expression: string): number[][] {
  const run = spawnSync('tcpdump', ['-ddd', '-r', '-', '--', expression], {
    input: emptyPcap(),
    encoding: 'utf8',
    env: { ...process.env, RES_OPTIONS: 'timeout:1 attempts:1' },
    timeout: COMPILE_MS,
    killSignal: 'SIGKILL',
  });
  const { error }: { error?: NodeJS.ErrnoException } = run;
  if (error?.code === 'ETIMEDOUT')
    throw new Error(`match: ${expression}: tcpdump took too long: use addresses, not names`);
  if (error !== undefined)
    throw new Error(`match: tcpdump is needed to compile it: ${error.message}`);
  if (run.status !== 0) {
    const last = run.stderr.trim().split('\n').at(-1) ?? '';
    throw new Error(`match: ${expression}: ${last.replace(/^tcpdump: /, '')}`);
  }
  return run.stdout
    .trim()
    .split('\n')
    .slice(1)
    .map((line) => line.split(' ').map(Number));
}
