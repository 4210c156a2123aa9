/** The main module of the worker of `stackInWorker`: opens the stack, runs the program, answers calls. */

import { threadSide } from '../host/thread_call.ts';
import type { FaultKind } from '../fault/fault.ts';
import type { FaultLine } from '../ctl/fault.ts';
import { TapnicError } from '../sys/errno.ts';
import type { NetstatReports } from '../ctl/netstat.ts';
import { type FaultOptions, type Leaked, openStack, type Stack } from './stack.ts';
import type { StackProgram, WorkerStackReady, WorkerStackStart } from './worker_stack.ts';

const side = threadSide();
const { options, program, data } = side.data as WorkerStackStart;

/** Runs the default export of the program. */
async function runProgram(stack: Stack, url: string): Promise<void> {
  const module = (await import(url)) as { default?: unknown };
  if (typeof module.default !== 'function')
    throw new TapnicError(
      'EINVAL',
      'stackInWorker',
      `program: ${url}: no function as default export`,
    );
  await (module.default as StackProgram)(stack, data, side.port);
}

async function start(): Promise<Stack> {
  const stack = await openStack(options);
  try {
    if (program !== null) await runProgram(stack, program);
  } catch (e) {
    await stack.close();
    throw e;
  }
  return stack;
}

try {
  const stack = await start();
  const { info, warnings } = stack;
  side.ready({ info, warnings } satisfies WorkerStackReady, {
    ifconfig: (...words: [string]) => stack.ifconfig(...words),
    sysctl: (name: string, value?: string | number) => stack.sysctl(name, value),
    netstat: (report: keyof NetstatReports) => stack.netstat(report),
    addFault: async (kind: FaultKind, of?: FaultOptions): Promise<FaultLine> => {
      const fault = stack.addFault(kind, of);
      await fault.ready;
      return fault;
    },
    faults: () => stack.faults(),
    removeFault: (id: number | 'all') => stack.removeFault(id),
    close: async (): Promise<Leaked> => {
      try {
        return await stack.close();
      } finally {
        side.leave();
      }
    },
  });
} catch (e) {
  side.failed(e);
  side.leave();
}
