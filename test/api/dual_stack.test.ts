/**
 * The same program on node:net and node:dgram over Linux's loopback, and on our sockets over lo0: both
 * see the same addresses, families and errors with IPv4, IPv6 and IPv4-mapped addresses.
 */

import { createSocket as nodeDgram, type RemoteInfo, type Socket as DgramSocket } from 'node:dgram';
import { once } from 'node:events';
import {
  type AddressInfo,
  connect as nodeConnect,
  createServer as nodeServer,
  type ListenOptions,
  type Socket,
  type TcpNetConnectOpts,
} from 'node:net';
import { expect } from 'chai';
import { type ConnectOptions, createStack, type DgramType, type Stack } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';

/** The part of node:net's server and socket that the program uses. */
interface AnyServer {
  on(event: 'connection', listener: (socket: Socket) => void): unknown;
  once(event: string, listener: (...args: never[]) => void): unknown;
  listen(options: ListenOptions): unknown;
  address(): unknown;
  close(): unknown;
}

interface Net {
  createServer(): AnyServer;
  connect(options: TcpNetConnectOpts): Promise<Socket>;
}

type Row = Record<string, unknown>;

/** What one end of a connection says about its addresses. */
const ends = (socket: Socket): Row => ({
  local: [socket.localAddress, socket.localFamily],
  remote: [socket.remoteAddress, socket.remoteFamily],
  address: [(socket.address() as AddressInfo).address, (socket.address() as AddressInfo).family],
});

const codeOf = (e: unknown): string => (e as NodeJS.ErrnoException).code ?? String(e);

/** Listens, connects to the port by each address, and returns what both ends see. */
async function netProgram(net: Net, options: ListenOptions, hosts: string[]): Promise<Row> {
  const server = net.createServer();
  const accepted: Socket[] = [];
  server.on('connection', (socket) => {
    accepted.push(socket);
    socket.on('error', () => undefined);
  });
  const failed = new Promise<string>((resolve) => server.once('error', (e) => resolve(codeOf(e))));
  const listens = new Promise<null>((resolve) => server.once('listening', () => resolve(null)));
  server.listen({ port: 0, ...options });
  const error = await Promise.race([failed, listens]);
  if (error !== null) return { listen: error };
  const { address, family, port } = server.address() as AddressInfo;
  const row: Row = { listen: [address, family] };
  for (const host of hosts) {
    try {
      const client = await net.connect({ port, host });
      client.write('x');
      while (accepted.length === 0) await new Promise((resolve) => setTimeout(resolve, 5));
      row[host] = [ends(client), ends(accepted[0]!)];
      const closed = once(client, 'close');
      client.destroy();
      accepted.shift()!.destroy();
      await closed;
    } catch (e) {
      row[host] = codeOf(e);
    }
  }
  server.close();
  return row;
}

interface Dgram {
  createSocket(options: { type: DgramType; ipv6Only?: boolean }): DgramSocket;
}

/** Sends; resolves with the error's code, or ''. */
function sends(socket: DgramSocket, data: string, port: number, address?: string): Promise<string> {
  return new Promise((resolve) => {
    const done = (e: Error | null): void => resolve(e === null ? '' : codeOf(e));
    if (address === undefined) socket.send(data, port, done);
    else socket.send(data, port, address, done);
  });
}

interface DgramScene {
  readonly type: DgramType;
  readonly ipv6Only?: boolean;
  readonly bind?: string;
}

/** Binds a socket, sends a datagram to it by each address, and returns what it receives. */
async function dgramProgram(
  dgram: Dgram,
  { bind, ...options }: DgramScene,
  senders: [DgramType, string?][],
): Promise<Row> {
  const socket = dgram.createSocket(options);
  const got: RemoteInfo[] = [];
  socket.on('message', (_data, from) => got.push(from));
  const failed = new Promise<string>((resolve) => socket.once('error', (e) => resolve(codeOf(e))));
  const listens = new Promise<null>((resolve) => socket.once('listening', () => resolve(null)));
  try {
    socket.bind(0, bind);
  } catch (e) {
    socket.close();
    return { bind: codeOf(e) };
  }
  const error = await Promise.race([failed, listens]);
  if (error !== null) return { bind: error };
  const { address, family, port } = socket.address();
  const row: Row = { bind: [address, family] };
  for (const [type, to] of senders) {
    const sender = dgram.createSocket({ type });
    sender.once('error', () => undefined);
    const code = await sends(sender, 'hello', port, to);
    const wait = code === '' ? 20 : 0;
    for (let i = 0; i < wait && got.length === 0; i++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    const from = got.shift();
    row[`${type} ${to}`] = code === '' ? from && [from.address, from.family, from.size] : code;
    sender.close();
  }
  socket.close();
  return row;
}

/** The addresses of a name, an error, or something wrong. */
type Found = [string, number][] | Error;

interface NameScene {
  readonly title: string;
  readonly listen: string;
  readonly found: Found;
  readonly options?: Partial<TcpNetConnectOpts>;
}

/** Connects to a name; returns the query, and the address or the errors. */
async function nameProgram(net: Net, { listen, found, options }: NameScene): Promise<Row> {
  const server = net.createServer();
  server.on('connection', (socket) => void socket.on('error', () => undefined));
  const listens = new Promise((resolve) => server.once('listening', () => resolve(null)));
  server.listen({ port: 0, host: listen });
  await listens;
  const { port } = server.address() as AddressInfo;
  const row: Row = {};
  const lookup = (
    _host: string,
    query: { all?: boolean; family?: number | string },
    done: (error: Error | null, address?: unknown, family?: number) => void,
  ): void => {
    row['query'] = [query.all === true, query.family ?? 0];
    if (found instanceof Error) done(found);
    else if (query.all === true)
      done(
        null,
        found.map(([address, family]) => ({ address, family })),
      );
    else done(null, ...found[0]!);
  };
  try {
    const wanted = { port, host: 'name.example', lookup, ...options } as TcpNetConnectOpts;
    const client = await net.connect(wanted);
    row['peer'] = client.remoteAddress;
    const closed = once(client, 'close');
    client.destroy();
    await closed;
  } catch (e) {
    row['error'] = codeOf(e);
    if (e instanceof AggregateError) row['errors'] = e.errors.map(codeOf);
  }
  server.close();
  return row;
}

const NAMES: NameScene[] = [
  { title: 'one address', listen: '::1', found: [['::1', 6]] },
  {
    title: 'the second address',
    listen: '127.0.0.1',
    found: [
      ['::1', 6],
      ['127.0.0.1', 4],
    ],
  },
  {
    title: 'the other family before the next address of the same one',
    listen: '::1',
    found: [
      ['127.0.0.1', 4],
      ['127.0.0.1', 4],
      ['::1', 6],
    ],
  },
  {
    title: 'one address twice',
    listen: '::1',
    found: [
      ['127.0.0.1', 4],
      ['127.0.0.1', 4],
    ],
  },
  {
    title: 'no address answers',
    listen: '::1',
    found: [
      ['127.0.0.1', 4],
      ['::ffff:127.0.0.1', 6],
    ],
  },
  { title: 'one address, which refuses', listen: '::1', found: [['127.0.0.1', 4]] },
  { title: 'family 6', listen: '::1', found: [['::1', 6]], options: { family: 6 } },
  {
    title: 'without autoSelectFamily',
    listen: '127.0.0.1',
    found: [
      ['::1', 6],
      ['127.0.0.1', 4],
    ],
    options: { autoSelectFamily: false },
  },
  {
    title: 'with a local address',
    listen: '127.0.0.1',
    found: [['127.0.0.1', 4]],
    options: { localAddress: '127.0.0.1' },
  },
  {
    title: 'an unknown name',
    listen: '::1',
    found: Object.assign(new Error('unknown'), { code: 'ENOTFOUND' }),
  },
  { title: 'no IP address', listen: '::1', found: [['localhost', 4]] },
  { title: 'an unknown family', listen: '::1', found: [['::1', 5]] },
  {
    title: 'an address, which is not looked up',
    listen: '::1',
    found: new Error('looked up'),
    options: { host: '::1', family: 4 },
  },
];

const LISTENS: ListenOptions[] = [
  {},
  { host: '::' },
  { host: '::', ipv6Only: true },
  { host: '::1' },
  { host: '0.0.0.0' },
  { host: '127.0.0.1' },
  { host: '::ffff:127.0.0.1' },
  { host: '2001:db8:99::1' },
];

const DGRAMS: DgramScene[] = [
  { type: 'udp4' },
  { type: 'udp6' },
  { type: 'udp6', ipv6Only: true },
  { type: 'udp4', bind: '127.0.0.1' },
  { type: 'udp6', bind: '::1' },
  { type: 'udp6', bind: '::ffff:127.0.0.1' },
  { type: 'udp6', bind: '127.0.0.1' },
  { type: 'udp4', bind: '::1' },
  { type: 'udp6', bind: '2001:db8:99::1' },
];

describe('api: addresses as those of node:net and node:dgram', function () {
  needs('root', 'tap', 'netns', 'loopback6');
  this.timeout(30_000);
  let ns: Netns;
  let stack: Stack;

  before(async () => {
    ns = new Netns('dual');
    stack = await createStack({ netns: ns.name, memory: '64M' });
  });
  after(async () => {
    if (stack === undefined) return;
    expect(await stack.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  const linuxNet: Net = {
    createServer: () => nodeServer(),
    connect: async (options) => {
      const socket = nodeConnect(options);
      await once(socket, 'connect');
      return socket;
    },
  };
  const ourNet = (): Net => ({
    createServer: () => stack.createServer() as unknown as AnyServer,
    connect: async (options) =>
      (await stack.connect(options as ConnectOptions)) as unknown as Socket,
  });

  for (const options of LISTENS)
    it(`listen ${JSON.stringify(options)}`, async () => {
      const hosts = ['127.0.0.1', '::1', '::ffff:127.0.0.1'];
      const node = await netProgram(linuxNet, options, hosts);
      const ours = await netProgram(ourNet(), options, hosts);
      expect(ours, 'ours, and those of node:net').to.eql(node);
    });

  for (const scene of NAMES)
    it(`lookup of a name: ${scene.title}`, async () => {
      const node = await nameProgram(linuxNet, scene);
      const ours = await nameProgram(ourNet(), scene);
      expect(ours, 'ours, and those of node:net').to.eql(node);
    });

  const linuxDgram: Dgram = { createSocket: nodeDgram };
  const ourDgram = (): Dgram => ({ createSocket: (options) => stack.createSocket(options) });

  for (const scene of DGRAMS)
    it(`datagrams to ${JSON.stringify(scene)}`, async () => {
      const senders: [DgramType, string?][] = [
        ['udp4', '127.0.0.1'],
        ['udp4'],
        ['udp6', '::1'],
        ['udp6'],
        ['udp6', '::ffff:127.0.0.1'],
        ['udp4', '::1'],
        ['udp6', '127.0.0.1'],
      ];
      const node = await dgramProgram(linuxDgram, scene, senders);
      const ours = await dgramProgram(ourDgram(), scene, senders);
      expect(ours, 'ours, and those of node:dgram').to.eql(node);
    });
});
