/**
 * Agents of node:http and node:https, and a dispatcher of undici, whose connections go through a stack.
 * undici is an optional peer dependency: it is passed, or loaded when it is needed.
 */

import { Agent as HttpAgent, type AgentOptions } from 'node:http';
import { Agent as HttpsAgent, type AgentOptions as HttpsAgentOptions } from 'node:https';
import { createRequire } from 'node:module';
import { isIP } from 'node:net';
import type { Duplex } from 'node:stream';
import { connect as connectTls, type ConnectionOptions } from 'node:tls';
import { TapnicError } from '../sys/errno.ts';

export type { Agent as HttpAgent, AgentOptions } from 'node:http';
export type { Agent as HttpsAgent, AgentOptions as HttpsAgentOptions } from 'node:https';

/** Connects a stack to `host` and `port`; other options are those of net.connect. */
type ConnectStack = (options: { host: string; port: number }) => Promise<Duplex>;

type Done = (error: Error | null, socket?: Duplex) => void;

/** The options that an agent passes on; `path`, for example, is that of the request. */
const PASSED = [
  'family',
  'hints',
  'lookup',
  'localAddress',
  'localPort',
  'autoSelectFamily',
  'autoSelectFamilyAttemptTimeout',
  'noDelay',
  'keepAlive',
  'keepAliveInitialDelay',
] as const;

function dial(connect: ConnectStack, target: object, done: Done, use: (socket: Duplex) => void) {
  const options = target as Record<string, unknown>;
  const passed = PASSED.filter((name) => options[name] !== undefined && options[name] !== null);
  const where = { host: String(options['host']), port: Number(options['port']) };
  const extra = Object.fromEntries(passed.map((name) => [name, options[name]]));
  connect({ ...where, ...extra }).then(use, (e: unknown) => done(e as Error));
}

/** An agent for requests with `http:`. */
export function httpAgent(connect: ConnectStack, options: AgentOptions): HttpAgent {
  const createConnection = (target: object, done: Done): void =>
    dial(connect, target, done, (socket) => done(null, socket));
  return Object.assign(new HttpAgent(options), { createConnection });
}

/** An agent for requests with `https:`. */
export function httpsAgent(connect: ConnectStack, options: HttpsAgentOptions): HttpsAgent {
  const agent = new HttpsAgent(options);
  // Node's own function makes the TLS connection, and keeps the sessions of the agent.
  const node = agent as unknown as { createConnection: (target: object) => Duplex };
  const secure = node.createConnection.bind(agent);
  const createConnection = (target: object, done: Done): void =>
    dial(connect, target, done, (socket) =>
      done(null, secure({ ...target, path: undefined, socket })),
    );
  return Object.assign(agent, { createConnection });
}

/** The part of undici that a dispatcher needs. */
export interface Undici<A> {
  readonly Agent: new (options: never) => A;
}

/** A dispatcher of undici that was not passed: its types are those of undici. */
export interface LoadedDispatcher {
  dispatch(options: never, handler: never): boolean;
  close(): Promise<void>;
  destroy(): Promise<void>;
}

/** Options of undici's Agent. */
export interface DispatcherOptions {
  /** Options of tls.connect, such as `ca`. */
  readonly connect?: ConnectionOptions;
  readonly allowH2?: boolean;
  readonly [option: string]: unknown;
}

/** What undici asks its connector for. */
interface UndiciTarget {
  readonly hostname: string;
  readonly port: string;
  readonly protocol: string;
  readonly servername?: string | null;
  readonly localAddress?: string | null;
}

/** Throws TapnicError ENOENT: undici is not installed. */
function loadUndici(): Undici<LoadedDispatcher> {
  try {
    return createRequire(import.meta.url)('undici') as Undici<LoadedDispatcher>;
  } catch {
    const hint = 'undici cannot be loaded: npm install undici, or pass the module';
    throw new TapnicError('ENOENT', 'dispatcher', hint);
  }
}

/** A new Agent of undici. Throws TapnicError ENOENT; EINVAL: `undici` is not that module. */
export function undiciAgent<A>(
  connect: ConnectStack,
  options: DispatcherOptions,
  undici: Undici<A> | Undici<LoadedDispatcher> = loadUndici(),
): A | LoadedDispatcher {
  if (typeof undici?.Agent !== 'function')
    throw new TapnicError('EINVAL', 'dispatcher', 'pass the module undici, which has Agent');
  const { connect: tls = {}, allowH2 = false } = options;
  const secured = (socket: Duplex, { hostname, servername }: UndiciTarget, done: Done): void => {
    const name = servername ?? (isIP(hostname) === 0 ? hostname : undefined);
    const secure = connectTls({
      // The name that the certificate must have.
      host: hostname,
      ALPNProtocols: allowH2 ? ['http/1.1', 'h2'] : ['http/1.1'],
      ...(name === undefined ? {} : { servername: name }),
      ...tls,
      socket,
    });
    secure.once('error', done);
    secure.once('secureConnect', () => {
      secure.off('error', done);
      done(null, secure);
    });
  };
  const connector = (target: UndiciTarget, done: Done): void => {
    const secure = target.protocol === 'https:';
    const host = target.hostname.replace(/^\[(.*)\]$/, '$1');
    const port = target.port || (secure ? 443 : 80);
    dial(connect, { host, port, localAddress: target.localAddress }, done, (socket) => {
      if (secure) secured(socket, { ...target, hostname: host }, done);
      else done(null, socket);
    });
  };
  return new undici.Agent({ ...options, connect: connector } as never);
}
