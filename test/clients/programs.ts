/**
 * Runs client libraries in the namespace of the process: as client on the stack with a server on Linux, and
 * as server on the stack with a client on Linux. Prints one line of JSON: the results by library.
 *
 *     node programs.js CERT KEY REDIS      REDIS is empty if there is no redis-server
 */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import * as http from 'node:http';
import * as http2 from 'node:http2';
import * as https from 'node:https';
import { type AddressInfo, connect as connectLinux, type Server, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { AbstractConnector, Redis } from 'ioredis';
import * as undici from 'undici';
import { WebSocket, WebSocketServer } from 'ws';
import { createStack, type Stack } from '../../src/index.ts';

const LINUX = '192.0.2.1';
const US = '192.0.2.2';
const [certFile, keyFile, redisServer] = process.argv.slice(2) as [string, string, string];
const cert = readFileSync(certFile);
const tls = { cert, key: readFileSync(keyFile) };
const BODY = 'x'.repeat(100_000);

/** A server on Linux, or with a stack there; returns its port. */
async function listens(server: Server, stack?: Stack): Promise<number> {
  const listening = once(server, 'listening');
  if (stack === undefined) server.listen(0, LINUX);
  else stack.listen(server, { port: 0, host: US });
  await listening;
  return (server.address() as AddressInfo).port;
}

/** Node's TLS and HTTP/2 do not pass on the address of a socket that is not Linux's. */
function clientOf({ remoteAddress = 'unknown' }: { remoteAddress?: string | undefined }): string {
  return remoteAddress;
}

/** Answers with the method, the path, the address of the client, and the length of the body. */
function answer(req: http.IncomingMessage, res: http.ServerResponse): void {
  let n = 0;
  req.on('data', (data: Buffer) => (n += data.length));
  req.on('end', () => res.end(`${req.method} ${req.url} ${clientOf(req.socket)} ${n}`));
}

async function textOf(stream: AsyncIterable<unknown>): Promise<string> {
  let text = '';
  for await (const chunk of stream) text += String(chunk);
  return text;
}

/** Two requests, of node:http or node:https. */
async function requests(
  module: typeof http | typeof https,
  url: string,
  agent: http.Agent,
): Promise<string[]> {
  const results: string[] = [];
  for (const method of ['GET', 'POST']) {
    const request = module.request(`${url}/${method}`, { method, agent, ca: cert } as object);
    request.end(method === 'POST' ? BODY : undefined);
    const [response] = (await once(request, 'response')) as [http.IncomingMessage];
    results.push(`${await textOf(response)} ${request.reusedSocket}`);
  }
  agent.destroy();
  return results;
}

async function nodeHttp(stack: Stack): Promise<string[]> {
  const server = http.createServer(answer);
  const agent = stack.agent({ keepAlive: true });
  const out = await requests(http, `http://${LINUX}:${await listens(server)}`, agent);
  const ours = http.createServer(answer);
  const linux = new http.Agent({ keepAlive: true });
  const back = await requests(http, `http://${US}:${await listens(ours, stack)}`, linux);
  server.close();
  ours.close();
  const refused = await once(http.get(`http://${LINUX}:9/`, { agent: stack.agent() }), 'error');
  return [...out, ...back, String((refused[0] as NodeJS.ErrnoException).code)];
}

async function nodeHttps(stack: Stack): Promise<string[]> {
  const server = https.createServer(tls, answer);
  const agent = stack.agent({ protocol: 'https:', keepAlive: true });
  const out = await requests(https, `https://${LINUX}:${await listens(server)}`, agent);
  const ours = https.createServer(tls, answer);
  const linux = new https.Agent({ keepAlive: true });
  const back = await requests(https, `https://${US}:${await listens(ours, stack)}`, linux);
  server.close();
  ours.close();
  return [...out, ...back];
}

/** Two streams of one session. */
async function streams(session: http2.ClientHttp2Session): Promise<string[]> {
  const results = await Promise.all(
    ['/one', '/two'].map(async (path) => {
      const stream = session.request({ ':path': path });
      stream.setEncoding('utf8');
      return textOf(stream);
    }),
  );
  const closed = once(session, 'close');
  session.close();
  await closed;
  return results;
}

async function nodeHttp2(stack: Stack): Promise<string[]> {
  const answers = (req: http2.Http2ServerRequest, res: http2.Http2ServerResponse): void => {
    res.end(`${req.url} ${clientOf(req.socket)} ${req.httpVersion}`);
  };
  const server = http2.createServer(answers);
  const port = await listens(server);
  const socket = await stack.connect(port, LINUX);
  const session = http2.connect(`http://${LINUX}`, { createConnection: () => socket });
  const out = await streams(session);
  const ours = http2.createServer(answers);
  const back = await streams(http2.connect(`http://${US}:${await listens(ours, stack)}`));
  server.close();
  ours.close();
  return [...out, ...back];
}

async function undiciClient(stack: Stack): Promise<string[]> {
  const server = http.createServer(answer);
  const secure = https.createServer(tls, answer);
  const [port, securePort] = [await listens(server), await listens(secure)];
  const results: string[] = [];
  const dispatcher = stack.dispatcher({ connect: { ca: cert } }, undici);
  for (const url of [`http://${LINUX}:${port}/fetch`, `https://${LINUX}:${securePort}/fetch`]) {
    const response = await undici.fetch(url, { method: 'POST', body: BODY, dispatcher });
    results.push(`${response.status} ${await response.text()}`);
  }
  const { body } = await undici.request(`http://${LINUX}:${port}/request`, { dispatcher });
  results.push(await body.text());
  await dispatcher.close();
  // Loaded by the package.
  const loaded = stack.dispatcher() as undici.Dispatcher;
  const refused = await undici.request(`http://${LINUX}:9/`, { dispatcher: loaded }).then(
    () => 'connected',
    (e: NodeJS.ErrnoException) => e.code,
  );
  results.push(refused ?? '');
  await loaded.destroy();
  const ours = http.createServer(answer);
  const url = `http://${US}:${await listens(ours, stack)}/linux`;
  results.push(await (await undici.fetch(url)).text());
  server.close();
  secure.close();
  ours.close();
  return results;
}

/** Echoes what it receives, with the client's address. */
function echoes(server: http.Server): WebSocketServer {
  const sockets = new WebSocketServer({ server });
  sockets.on('connection', (socket, { socket: { remoteAddress } }) =>
    socket.on('message', (data, binary) => {
      const bytes = data as Buffer;
      socket.send(binary ? bytes : `${bytes.toString()} of ${remoteAddress}`, { binary });
    }),
  );
  return sockets;
}

async function talks(socket: WebSocket): Promise<string[]> {
  const got: string[] = [];
  await once(socket, 'open');
  for (const data of ['hello', Buffer.alloc(70_000, 7)]) {
    socket.send(data);
    const [message] = (await once(socket, 'message')) as [Buffer];
    got.push(message.length > 100 ? `${message.length}` : message.toString());
  }
  socket.close(1000);
  const [code] = (await once(socket, 'close')) as [number];
  return [...got, String(code)];
}

async function webSockets(stack: Stack): Promise<string[]> {
  const server = http.createServer();
  const sockets = echoes(server);
  const agent = stack.agent();
  const out = await talks(new WebSocket(`ws://${LINUX}:${await listens(server)}`, { agent }));
  const ours = http.createServer();
  const ourSockets = echoes(ours);
  const back = await talks(new WebSocket(`ws://${US}:${await listens(ours, stack)}`));
  for (const one of [server, ours, sockets, ourSockets]) one.close();
  return [...out, ...back];
}

async function redis(stack: Stack): Promise<string[]> {
  const args = '--port 6379 --save --protected-mode no --bind'.split(' ');
  args.splice(3, 0, '');
  const server = spawn(redisServer, [...args, LINUX], { stdio: 'ignore' });
  process.once('exit', () => server.kill('SIGKILL'));
  // Linux's own connection shows when it listens.
  for (let up = false; !up;) {
    const probe = connectLinux(6379, LINUX);
    up = await once(probe, 'connect').then(
      () => true,
      async () => sleep(20, false),
    );
    probe.destroy();
  }
  class StackConnector extends AbstractConnector {
    constructor() {
      super(0);
    }
    override async connect(): Promise<Socket> {
      const socket = (await stack.connect({ port: 6379, host: LINUX })) as unknown as Socket;
      this.stream = socket;
      return socket;
    }
  }
  const client = new Redis({ Connector: StackConnector, retryStrategy: () => 100 });
  client.on('error', () => undefined);
  const results: string[] = [];
  results.push(await client.set('key', BODY));
  results.push(String((await client.get('key')) === BODY));
  const values = await client.pipeline().incr('n').incrby('n', 41).get('n').exec();
  results.push(JSON.stringify(values));
  const list = String(await client.client('LIST'));
  results.push(/ addr=([\d.]+):/.exec(list)![1]!);
  results.push(await client.quit());
  server.kill();
  await once(server, 'exit');
  return results;
}

/** The codes of what wrong calls throw. */
function codesOf(...calls: (() => unknown)[]): unknown[] {
  return calls.map((call) => {
    try {
      return call();
    } catch (e) {
      return (e as NodeJS.ErrnoException).code;
    }
  });
}

/** A request that fails because the stack is closed, or its agent's connection. */
async function failed(agent: http.Agent): Promise<unknown> {
  const [error] = (await once(http.get(`http://${LINUX}:1/`, { agent }), 'error')) as [
    NodeJS.ErrnoException,
  ];
  return error.code;
}

const programs: Readonly<Record<string, (stack: Stack) => Promise<string[]>>> = {
  http: nodeHttp,
  https: nodeHttps,
  http2: nodeHttp2,
  undici: undiciClient,
  ws: webSockets,
  ...(redisServer === '' ? {} : { redis }),
};

const stack = await createStack({ memory: '64M' });
const results: Record<string, unknown> = {};
for (const [name, program] of Object.entries(programs)) {
  const late = sleep(20_000, 'it does not end', { ref: false });
  results[name] = await Promise.race([program(stack), late]).catch(
    (e: Error) => `${e.message} ${String(e.cause)}`,
  );
}
results['wrong'] = codesOf(
  () => stack.agent({ protocol: 'ftp:' as 'http:' }),
  () => stack.dispatcher({}, {} as typeof undici),
  () => stack.dispatcher({}, null as never),
);
const agent = stack.agent();
results['leaked'] = await stack.close();
results['closed'] = [
  ...codesOf(
    () => stack.agent(),
    () => stack.dispatcher(),
  ),
  await failed(agent),
];
console.log(JSON.stringify(results));
process.exit(0);
