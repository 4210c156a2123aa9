/** The messages between the main thread of `serve --workers` and its other threads. */

import type { QueueHandle } from '../host/exchange.ts';
import type { ControlRequest, ControlResponse } from '../ctl/protocol.ts';
import type { StackSettings } from '../machine/host_stack.ts';
import type { FlowRule } from '../net/flow_owner.ts';
import type { ServeJob } from './serve_app.ts';

/** What a worker starts with. */
export interface WorkerStart {
  readonly worker: number;
  readonly rule: FlowRule;
  readonly exchange: number;
  readonly queue: QueueHandle;
  readonly settings: StackSettings;
  readonly job: ServeJob;
}

export type ToWorker =
  | { readonly op: 'link'; readonly up: boolean }
  | { readonly op: 'request'; readonly req: ControlRequest; readonly tag: number }
  | { readonly op: 'stop' };

export type FromWorker =
  /** It serves. */
  | { readonly op: 'ready' }
  | { readonly op: 'answer'; readonly tag: number; readonly answer: ControlResponse }
  /** A line of the log, as pino formats it. */
  | { readonly op: 'log'; readonly line: string }
  /** It has stopped, and will end. */
  | { readonly op: 'stopped'; readonly leaked: Record<string, number> };
