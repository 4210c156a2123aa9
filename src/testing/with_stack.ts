/**
 * `withStack`: a test with a NIC on a TAP interface in a new network namespace, and Linux as its peer. While the test runs,
 * its thread is in that namespace, so sockets of node:net and programs that it starts are on the Linux side.
 */

import { closeSync, openSync, readFileSync } from 'node:fs';
import { threadId } from 'node:worker_threads';
import { enterNetns, netnsExists, netnsUsers, removeNetns } from '../host/netns.ts';
import { NetnsScope } from '../host/netns_scope.ts';
import { createStack } from '../index.ts';
import type { Leaked, Stack, StackOptions } from '../machine/stack.ts';
import { TapnicError } from '../sys/errno.ts';
import { fixture, type FixtureOptions, Missing, type TestFunction } from './fixture.ts';

/** Options of withStack: those of createStack without `netns`. */
export interface WithStackOptions extends Omit<StackOptions, 'netns'>, FixtureOptions {}

/** What a test gets. */
export interface StackTest {
  readonly stack: Stack;
  /** Address of the emulated host, without prefix length. */
  readonly addr: string;
  /** Name of the namespace, for `ip netns exec` in another process. */
  readonly netns: string;
}

type StackBody = (test: StackTest) => unknown;

const TUN = '/dev/net/tun';
const MEMORY = '64M';
const REFUSED = ['EPERM', 'EACCES', 'ENOENT', 'EROFS'];
let made = 0;

/** Throws Missing if the machine has no TAP interfaces. */
function needTun(): void {
  try {
    closeSync(openSync(TUN, 'r+'));
  } catch (e) {
    const { code } = e as NodeJS.ErrnoException;
    throw new Missing(`${TUN}: ${code}: run as root, in a container with --device ${TUN}`);
  }
}

/** Throws Missing if the process must not create namespaces. */
function newNamespace(name: string): NetnsScope {
  try {
    return new NetnsScope(name);
  } catch (e) {
    if (!(e instanceof TapnicError) || !REFUSED.includes(e.code)) throw e;
    throw new Missing(`network namespace: ${e.message}`);
  }
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/comm`, 'utf8').trim();
  } catch {
    return 'ended meanwhile';
  }
}

/** Ends the processes that the test left in its namespace. Returns them. */
function endProcesses(netns: string): string[] {
  return netnsUsers(netns).map((pid) => {
    const command = commandOf(pid);
    try {
      process.kill(pid, 'SIGKILL');
    } catch {
      // It has ended.
    }
    return `${pid} (${command})`;
  });
}

/** Closes the stack and removes the namespace. Rejects with TapnicError EBUSY if the test left processes in it. */
async function closeAll(stack: Stack, scope: NetnsScope, leave: () => void): Promise<Leaked> {
  const { name } = scope;
  leave();
  let processes: string[];
  let leaked: Leaked;
  try {
    processes = endProcesses(name);
    leaked = await stack.close();
  } finally {
    scope.close();
    if (netnsExists(name)) removeNetns(name);
  }
  if (processes.length === 0) return leaked;
  throw new TapnicError(
    'EBUSY',
    'leak check',
    `the test left processes in its namespace: ${processes.join(', ')}: end them in the test`,
  );
}

async function open(options: Omit<StackOptions, 'netns'>) {
  needTun();
  const netns = `tapnic-test-${process.pid}-${threadId}-${++made}`;
  const scope = newNamespace(netns);
  let stack: Stack | null = null;
  try {
    stack = await createStack({ memory: MEMORY, ...options, netns });
    const leave = enterNetns(netns);
    const opened = stack;
    return {
      context: { stack, netns, addr: stack.info.addr ?? '' },
      stacks: [{ name: 'stack', stack }],
      close: () => closeAll(opened, scope, leave),
      repeat: `seed of the stack: ${stack.info.seed}; \`seed\` repeats its random choices`,
    };
  } catch (e) {
    await stack?.close();
    scope.close();
    throw e;
  }
}

/**
 * A test function, for mocha, node:test and vitest, that creates the namespace and the stack, runs `body` and removes
 * both. The test fails if anything leaks. Where root or /dev/net/tun is missing, the test is skipped with a
 * line on stderr; with TAPNIC_REQUIRE=1 it fails. Throws TapnicError EINVAL: no function.
 */
export function withStack(body: StackBody): TestFunction;
export function withStack(options: WithStackOptions, body: StackBody): TestFunction;
export function withStack(first: WithStackOptions | StackBody, second?: StackBody): TestFunction {
  const body = typeof first === 'function' ? first : second;
  if (typeof body !== 'function')
    throw new TapnicError('EINVAL', 'withStack', 'a function that runs the test is needed');
  const { keepCapture = true, ...options } = typeof first === 'function' ? {} : first;
  if ('netns' in options)
    throw new TapnicError('EINVAL', 'withStack', 'netns: the fixture creates the namespace');
  return fixture({ keepCapture }, () => open(options), body);
}
