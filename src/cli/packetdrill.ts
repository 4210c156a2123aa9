/**
 * `packetdrill`: serves the stack that packetdrill scripts test on a Unix socket. The shared object
 * of native-bindings/packetdrill connects to it. With a command, runs it with the environment set
 * and exits with its status.
 */

import { spawn } from 'node:child_process';
import { existsSync, lstatSync, mkdtempSync, rmSync, unlinkSync } from 'node:fs';
import { constants, tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { Command } from 'commander';
import {
  CliError,
  newCommand,
  print,
  printJson,
  reportError,
  UsageError,
  warn,
} from './command.ts';
import { bindError } from './control_path.ts';
import { stopOnSignal } from './signals.ts';

interface PacketdrillFlags {
  socket?: string;
  addr: string;
  addr6: string;
  mtu: string;
  seed: string;
  json?: boolean;
}

/** How long the reader of standard output may delay the exit, ms. */
const OUTPUT_MS = 2000;
const MEMORY = 64 * 1024 * 1024;

/**
 * The output directory of scripts/build-packetdrill.mjs, in the package directory above this file.
 */
function buildDir(): string {
  let dir = dirname(fileURLToPath(import.meta.url));
  for (; dirname(dir) !== dir; dir = dirname(dir)) if (existsSync(join(dir, 'package.json'))) break;
  return join(dir, 'build/packetdrill');
}

function numberOf(flag: string, text: string, min: number, max: number): number {
  const n = /^\d+$/.test(text) ? Number(text) : NaN;
  if (!(n >= min && n <= max)) throw new UsageError(`--${flag}: ${text}: ${min} to ${max}`);
  return n;
}

/**
 * Removes the socket of a dead process. Throws CliError if a process listens there or the file is
 * not a socket.
 */
async function clear(path: string): Promise<void> {
  if (!existsSync(path)) return;
  if (!lstatSync(path).isSocket())
    throw new CliError(`${path}: EADDRINUSE: a file of that name is there`);
  const { isLive } = await import('./peer.ts');
  if (await isLive(path)) throw new CliError(`${path}: EADDRINUSE: a process listens there`);
  unlinkSync(path);
}

/** Listens at `path`. With `replace`, replaces the socket of a dead process. Throws CliError. */
async function listen(
  server: { listen(): Promise<void> },
  path: string,
  replace: boolean,
): Promise<void> {
  try {
    const { withSocketLock } = await import('./socket_lock.ts');
    await withSocketLock(path, async () => {
      if (replace) await clear(path);
      await server.listen();
    });
  } catch (e) {
    if (e instanceof CliError) throw e;
    throw new CliError(`${path}: ${bindError(path, e)}: choose another --socket`);
  }
}

/**
 * Runs `words` with the environment that scripts and the shared object need. Resolves with its exit
 * status.
 */
function run(words: readonly string[], path: string, stopping: AbortSignal): Promise<number> {
  const build = buildDir();
  const object = join(build, 'tapnic_packetdrill.so');
  if (!existsSync(object))
    throw new CliError(`${object}: missing: build it with node scripts/build-packetdrill.mjs`);
  const env = {
    ...process.env,
    TAPNIC_PACKETDRILL: path,
    TAPNIC_PACKETDRILL_SO: object,
    PATH: [join(build, 'bin'), process.env['PATH'] ?? ''].join(delimiter),
  };
  return new Promise((done, reject) => {
    const child = spawn(words[0]!, words.slice(1), { env, stdio: 'inherit' });
    stopping.addEventListener('abort', () => child.kill('SIGTERM'), { once: true });
    child.once('error', (e: NodeJS.ErrnoException) =>
      reject(new CliError(`${words[0]}: ${e.code ?? e.message}: cannot be run`)),
    );
    child.once('exit', (code, signal) =>
      done(code ?? 128 + (signal === null ? 0 : constants.signals[signal])),
    );
  });
}

async function packetdrill(words: string[], flags: PacketdrillFlags): Promise<void> {
  const [{ PacketdrillServer }, { parseInAddr }, { parseIn6 }, { exitProcess }] = await Promise.all(
    [
      import('../packetdrill/server.ts'),
      import('../netinet/in.ts'),
      import('../netinet6/in6.ts'),
      import('../host/exit.ts'),
    ],
  );
  const addr = parseInAddr(flags.addr);
  if (addr === null) throw new UsageError(`--addr: ${flags.addr}: not an IPv4 address`);
  const addr6 = parseIn6(flags.addr6);
  if (addr6 === null) throw new UsageError(`--addr6: ${flags.addr6}: not an IPv6 address`);
  const mtu = numberOf('mtu', flags.mtu, 72, 65535);
  const seed = numberOf('seed', flags.seed, 0, 0xffffffff);
  const stopping = stopOnSignal();
  const own = flags.socket === undefined ? mkdtempSync(join(tmpdir(), 'tapnic-pd-')) : null;
  const path = own === null ? resolve(flags.socket!) : join(own, 'sock');
  const server = new PacketdrillServer({ path, addr, addr6, mtu, memory: MEMORY, seed });
  let status = 0;
  try {
    await listen(server, path, own === null);
    if (words.length > 0) {
      status = await run(words, path, stopping.signal);
    } else {
      const build = buildDir();
      const ready = { event: 'ready', socket: path, shims: join(build, 'bin'), pid: process.pid };
      if (flags.json === true) printJson(ready);
      else print(`scripts are served at ${path}: TAPNIC_PACKETDRILL=${path}\n`);
      await new Promise<void>((done) => {
        if (stopping.signal.aborted) done();
        stopping.signal.addEventListener('abort', () => done(), { once: true });
      });
    }
  } catch (e) {
    status = reportError(e);
  }
  const leaked = server.close();
  // The server's close has removed the socket, if it was this process's.
  if (own !== null) rmSync(own, { recursive: true, force: true });
  if (flags.json === true) printJson({ event: 'exit', leaked, scripts: server.scripts });
  if (Object.keys(leaked).length > 0) {
    warn(`leaked: ${JSON.stringify(leaked)}`);
    status ||= 1;
  }
  await Promise.race([
    new Promise<void>((done) => process.stdout.write('', () => done())),
    new Promise<void>((done) => setTimeout(done, OUTPUT_MS)),
  ]);
  exitProcess(status);
}

export const packetdrillCommand: Command = newCommand('packetdrill')
  .description('serve the stack to packetdrill scripts, over a Unix socket and on virtual time')
  .argument(
    '[command...]',
    'after --: run this command with the environment set, and exit with its status',
  )
  .option('--socket <path>', 'socket to listen on (default, with a command: a temporary one)')
  .option('--addr <address>', "the emulated host's own IPv4 address", '192.168.0.1')
  .option('--addr6 <address>', "the emulated host's own IPv6 address", 'fd3d:a0b:17d6::1')
  .option('--mtu <bytes>', 'MTU of its interface', '1500')
  .option('--seed <n>', 'seed of every random choice', '1')
  .option('--json', 'print JSON')
  .action(packetdrill);
