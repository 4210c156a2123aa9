/** The web server of `serve` on a stack, in the main thread or in a worker. */

import type { Logger, Limits } from '../apps/http/limits.ts';
import { HttpApp } from '../apps/http/serve.ts';
import { NativeFolder } from '../host/native_folder.ts';
import type { Vnet } from '../kern/vnet.ts';

/** What `serve` serves: a real path, a TCP port, and the limits of clients. */
export interface ServeJob {
  readonly dir: string;
  readonly port: number;
  readonly limits: Limits;
}

/** Starts the server. Throws TapnicError EADDRINUSE. */
export function startServe(vnet: Vnet, { dir, port, limits }: ServeJob, log: Logger): HttpApp {
  return new HttpApp(vnet, { port }, { folder: new NativeFolder(dir), log, limits });
}
