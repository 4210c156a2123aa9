/**
 * A further stack of `serve --workers`: the main module of its thread. It serves the same directory at
 * the same address on its own queue of the TAP, answers the main thread's control requests, and sends
 * it its log.
 */

import { parentPort, workerData } from 'node:worker_threads';
import { dmaCheck } from '../bus/busdma_check.ts';
import { QueueWire } from '../host/exchange.ts';
import { HostStack } from '../machine/host_stack.ts';
import { lineLogger } from './log.ts';
import { startServe } from './serve_app.ts';
import { workerAnswer } from './worker_control.ts';
import type { FromWorker, ToWorker, WorkerStart } from './worker_messages.ts';

const port = parentPort!;
const send = (message: FromWorker): void => port.postMessage(message);
const log = lineLogger((line) => send({ op: 'log', line }));
// ifConsole stays silent: all workers see the same packets, and the main thread reports them.
dmaCheck.console = (line) => log.warn(line);

const { worker, rule, exchange, queue, settings, job } = workerData as WorkerStart;
let wire: QueueWire | null = null;

const stack = await HostStack.open(settings, null, {
  rule,
  worker,
  wire({ arena }) {
    wire = new QueueWire(arena, queue);
    wire.joinExchange(exchange, worker);
    return wire;
  },
});
await stack.configured();
const app = startServe(stack.vnet, job, log);

async function stop(): Promise<void> {
  const leaked = await stack.stop({
    finish: () => app.close(),
    reset: () => app.destroy(),
  });
  send({ op: 'stopped', leaked });
}

port.on('message', (message: ToWorker) => {
  switch (message.op) {
    case 'link':
      wire?.linkChanged(message.up);
      break;
    case 'request': {
      const target = { vnet: stack.vnet, info: {}, faults: stack.faultPlaces };
      send({ op: 'answer', tag: message.tag, answer: workerAnswer(target, message.req) });
      break;
    }
    case 'stop':
      void stop();
      break;
  }
});
send({ op: 'ready' });
