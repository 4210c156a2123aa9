/**
 * A program that writes bytes without a file, for the row `bulk-tx-write`: answers the first request
 * of each connection with a short header and a body of a number of bytes, which it writes from one
 * buffer of 1 MB that it reuses, and ends the connection.
 *
 *   node write_program.js BYTES     `GET /BYTES` overrides the number
 *
 * Prints a line of JSON when it serves, and its counters after SIGUSR2.
 */

import { createHash } from 'node:crypto';
import { createServer, createStack, type Socket } from '../../../src/index.ts';

const BUFFER = 1 << 20;
/** Written at once: more of the stream's memory than this waits for 'drain'. */
const HIGH_WATER = 2 * BUFFER;

/** The same bytes in every run, of no pattern. */
function fill(): Buffer {
  const bytes = Buffer.alloc(BUFFER);
  let x = 1;
  for (let i = 0; i < BUFFER; i += 4) {
    x ^= x << 13;
    x ^= x >>> 17;
    x ^= x << 5;
    bytes.writeInt32LE(x | 0, i);
  }
  return bytes;
}

const bytes = fill();

/** Writes the body; continues when the stream has room. */
class Body {
  readonly #socket: Socket;
  #left: number;

  constructor(socket: Socket, left: number) {
    this.#socket = socket;
    this.#left = left;
    socket.on('drain', () => this.write());
  }

  write(): void {
    while (this.#left > 0) {
      const chunk = this.#left < BUFFER ? bytes.subarray(0, this.#left) : bytes;
      this.#left -= chunk.length;
      if (!this.#socket.write(chunk)) return;
    }
    if (!this.#socket.writableEnded) this.#socket.end();
  }
}

const total = Number(process.argv[2]);
const stack = await createStack({
  mode: 'wire',
  engine: 'native',
  memory: '256M',
  sysctl: { 'net.inet6.ip6.dad_count': 0 },
});
const server = createServer(stack, { highWaterMark: HIGH_WATER }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('data', (request: Buffer) => {
    const asked = /^GET \/(\d+) /.exec(request.toString('latin1'))?.[1];
    const length = asked === undefined ? total : Number(asked);
    socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${length}\r\nConnection: close\r\n\r\n`);
    new Body(socket, length).write();
  });
});
stack.listen(server, { port: 80 });

function print(line: object): void {
  process.stdout.write(`${JSON.stringify(line)}\n`);
}

process.on('SIGUSR2', () => {
  const [nic] = stack.ifconfig().filter(({ name }) => name !== 'lo0');
  const { emulator, sendfile } = stack.netstat('m');
  print({
    options: nic!.options_names,
    opackets: nic!.counters['opackets'],
    conversions: emulator.conversions,
    dmaBounced: emulator.dma.bounced,
    dmaFaults: emulator.dma.faults,
    sendfileCalls: sendfile.sf_syscalls,
  });
});
process.on('SIGTERM', () => void stack.close());
const { tap, addr, mode, engine, napi } = stack.info;
const sha256 = createHash('sha256').update(bytes).digest('hex');
print({ pid: process.pid, tap, addr, mode, engine, napi, sha256, bufferBytes: BUFFER });
