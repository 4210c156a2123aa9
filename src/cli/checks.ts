/** The checks of `doctor`. A check changes nothing and names the remedy. */

import { accessSync, closeSync, constants, existsSync, openSync, readFileSync } from 'node:fs';
import { release } from 'node:os';
import { delimiter, dirname, join } from 'node:path';
import { linuxErrnoName, loadAddon } from '../../native-bindings/index.ts';
import { allocArena } from '../host/arena.ts';
import { controlDirs, dirProblem } from './control_path.ts';

/** One line of the report. */
export interface Check {
  name: string;
  ok: boolean;
  /** What was found. */
  detail: string;
  /** Whether `serve` needs it. Otherwise only some features are missing. */
  required: boolean;
  /** What to do; empty if `ok`. */
  remedy: string;
}

/** A check's outcome: what was found, and the remedy if the check failed. */
interface Outcome {
  readonly detail: string;
  readonly remedy?: string;
}

const TAP_REMEDY = 'modprobe tun; in a container: --device /dev/net/tun --cap-add NET_ADMIN';
const ROOT_REMEDY = 'run as root, or in a container with --cap-add';
const NODE_MIN = [20, 19] as const;
/** Bits of CapEff, from linux/capability.h. */
const CAP_NET_ADMIN = 12;
const CAP_SYS_ADMIN = 21;

const codeOf = (e: unknown): string =>
  (e as NodeJS.ErrnoException).code ?? (e instanceof Error ? e.message : String(e));

function nodeVersion(): Outcome {
  const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
  const old = major < NODE_MIN[0] || (major === NODE_MIN[0] && minor < NODE_MIN[1]);
  return {
    detail: process.version,
    ...(old ? { remedy: `install Node ${NODE_MIN.join('.')} or later` } : {}),
  };
}

function addon(): Outcome {
  try {
    loadAddon();
    return { detail: 'loads' };
  } catch (e) {
    return { detail: (e as Error).message, remedy: 'node scripts/build-addon.mjs' };
  }
}

/** Allocates the arena of a small machine. */
function memory(): Outcome {
  try {
    allocArena(32 * 1024 * 1024);
    return { detail: 'memfd and its mapping work' };
  } catch (e) {
    return { detail: codeOf(e), remedy: 'allow memfd_create, or more memory' };
  }
}

function deviceNode(): Outcome {
  try {
    closeSync(openSync('/dev/net/tun', 'r+'));
    return { detail: '/dev/net/tun opens' };
  } catch (e) {
    return { detail: `/dev/net/tun: ${codeOf(e)}`, remedy: TAP_REMEDY };
  }
}

function capability(bit: number, name: string): Outcome {
  const status = readFileSync('/proc/self/status', 'utf8');
  const mask = BigInt(`0x${/^CapEff:\s*([0-9a-f]+)$/m.exec(status)?.[1] ?? '0'}`);
  return (mask & (1n << BigInt(bit))) !== 0n
    ? { detail: `CAP_${name}` }
    : { detail: `no CAP_${name}`, remedy: `${ROOT_REMEDY} ${name}` };
}

/** Creates a TAP interface, down and without addresses, and removes it. */
function tapProbe(): Outcome {
  const failure = (step: string, error: number): Outcome => ({
    detail: `${step}: ${linuxErrnoName(-error)}`,
    remedy: TAP_REMEDY,
  });
  try {
    const native = loadAddon();
    const fd = native.tunOpen();
    if (fd < 0) return failure('open', fd);
    const made = native.tapAttach(fd, new TextEncoder().encode(`tnprobe${process.pid}`), 12, 0);
    native.fdClose(fd);
    return made < 0 ? failure('TUNSETIFF', made) : { detail: 'an interface can be made' };
  } catch (e) {
    return { detail: codeOf(e), remedy: 'build the addon first' };
  }
}

function ipv6(): Outcome {
  const file = '/proc/sys/net/ipv6/conf/all/disable_ipv6';
  const remedy =
    'sysctl -w net.ipv6.conf.all.disable_ipv6=0 net.ipv6.conf.default.disable_ipv6=0; ' +
    'without it neither side has an IPv6 address (addr6 is null)';
  if (!existsSync(file)) return { detail: 'not in this kernel', remedy };
  // A new interface takes the value of `default`.
  const off = ['all', 'default'].find(
    (conf) => readFileSync(file.replace('/all/', `/${conf}/`), 'utf8').trim() !== '0',
  );
  return off === undefined
    ? { detail: 'enabled' }
    : { detail: `disabled by sysctl net.ipv6.conf.${off}.disable_ipv6`, remedy };
}

function controlDir(): Outcome {
  const problems: string[] = [];
  for (const dir of controlDirs())
    try {
      // A missing directory is created if its parent is writable.
      const there = existsSync(dir);
      const problem = there ? dirProblem(dir) : null;
      accessSync(there ? dir : dirname(dir), constants.W_OK | constants.X_OK);
      if (problem === null) return { detail: dir };
      problems.push(`${dir}: ${problem}`);
    } catch (e) {
      problems.push(`${dir}: ${codeOf(e)}`);
    }
  return { detail: problems.join('; '), remedy: 'use --control PATH' };
}

function tool(program: string, debian: string): Outcome {
  const found = (process.env['PATH'] ?? '')
    .split(delimiter)
    .map((dir) => join(dir, program))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
  return found === undefined
    ? { detail: 'not found', remedy: `apt-get install ${debian}` }
    : { detail: found };
}

/** Only reported: tapnic injects faults itself and does not need netem. */
function netem(): Outcome {
  const lists = ['modules.builtin', 'modules.dep'].map((f) => join('/lib/modules', release(), f));
  const listed = lists.some((f) => existsSync(f) && readFileSync(f, 'utf8').includes('sch_netem'));
  return existsSync('/sys/module/sch_netem') || listed
    ? { detail: 'there' }
    : { detail: 'absent; not needed' };
}

const CHECKS: readonly (readonly [name: string, required: boolean, run: () => Outcome])[] = [
  ['node', true, nodeVersion],
  ['addon', true, addon],
  ['memory', true, memory],
  ['device node', true, deviceNode],
  ['NET_ADMIN', true, () => capability(CAP_NET_ADMIN, 'NET_ADMIN')],
  ['tap', true, tapProbe],
  ['control socket', true, controlDir],
  ['SYS_ADMIN (for --netns)', false, () => capability(CAP_SYS_ADMIN, 'SYS_ADMIN')],
  ['IPv6', false, ipv6],
  ['netem', false, netem],
  ['ip', false, () => tool('ip', 'iproute2')],
  ['curl', false, () => tool('curl', 'curl')],
  ['tcpdump', false, () => tool('tcpdump', 'tcpdump')],
  ['tshark', false, () => tool('tshark', 'tshark')],
];

/** Runs every check, in order. */
export function runChecks(): Check[] {
  return CHECKS.map(([name, required, run]) => {
    const { detail, remedy } = run();
    return { name, ok: remedy === undefined, detail, required, remedy: remedy ?? '' };
  });
}

/** Formats one line per check; a failure is followed by its remedy. */
export function formatChecks(checks: readonly Check[]): string {
  const width = Math.max(...checks.map(({ name }) => name.length));
  const lines = checks.flatMap(({ name, ok, detail, required, remedy }) => {
    const verdict = ok ? 'ok  ' : required ? 'FAIL' : 'warn';
    const line = `${verdict}  ${name.padEnd(width)}  ${detail}`;
    return ok ? [line] : [line, `${' '.repeat(width + 8)}${remedy}`];
  });
  return lines.map((line) => `${line}\n`).join('');
}
