/** Programs that send and receive datagrams, also on connected sockets. */

import type { Socket } from 'node:dgram';
import { invoke, type Log, type Program, settled } from './log.ts';

const LOOP = '127.0.0.1';

/** Two bound sockets, the first one watched, and its port. */
async function pair(log: Log, options: unknown = 'udp4'): Promise<[Socket, Socket, number]> {
  const [a, port] = await log.bound(LOOP, options);
  log.watch('a', a);
  const [b] = await log.bound(LOOP, options);
  return [a, b, port];
}

/** Calls `send` with any arguments, and waits for the datagram. */
async function arrives(log: Log, to: Socket, from: Socket, what: string, args: unknown[]) {
  const message = log.once(to, 'message');
  log.call(what, () => invoke(from, 'send', args));
  await message;
  await settled();
}

const unbound: Program = async (log) => {
  const [a, , port] = await pair(log);
  const b = log.socket();
  log.watch('b', b);
  const message = log.once(a, 'message');
  log.note('result', b.send('hello', port, LOOP, log.noted('sent')));
  log.note('behind send');
  await message;
  await settled();
  log.note('bound to', b.address().address);
};

const forms: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const data = Buffer.from('0123456789');
  const done = log.noted('sent');
  for (const [what, args] of [
    ['message, port, address, callback', [data, port, LOOP, done]],
    ['message, port, address', [data, port, LOOP]],
    ['message, port, callback', [data, port, done]],
    ['message, port', [data, port]],
    ['offset, length, port, address, callback', [data, 2, 3, port, LOOP, done]],
    ['offset, length, port, address', [data, 2, 3, port, LOOP]],
    ['offset, length, port, callback', [data, 2, 3, port, done]],
    ['offset, length, port', [data, 2, 3, port]],
    ['string, port', ['text', port]],
    ['string, offset, length, port, address', ['text', 1, 2, port, LOOP]],
    ['string port', [data, String(port), LOOP]],
    ['address null', [data, port, null, done]],
    ['address empty', [data, port, '', done]],
    ['no length', [data, 3, 0, port, LOOP, done]],
    ['callback null', [data, port, LOOP, null]],
  ] as [string, unknown[]][])
    await arrives(log, a, b, what, args);
};

const contents: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const words = Uint16Array.of(0x3231, 0x3433, 0x3635);
  for (const [what, message] of [
    ['empty string', ''],
    ['empty buffer', Buffer.alloc(0)],
    ['Uint8Array', Uint8Array.of(65, 66)],
    ['Uint16Array', words],
    ['DataView', new DataView(words.buffer, 1, 3)],
    ['subarray', Buffer.from('abcdef').subarray(2, 4)],
    ['array', [Buffer.from('one'), Buffer.from('two')]],
    ['mixed array', ['a', Uint8Array.of(66), words, new DataView(words.buffer, 4)]],
    ['array of one', ['one']],
    ['empty array', []],
    ['array of empty strings', ['', '']],
  ] as [string, unknown][])
    await arrives(log, a, b, what, [message, port, LOOP, log.noted('sent')]);
  await arrives(log, a, b, 'part of words', [words, 2, 3, port, LOOP, log.noted('sent')]);
  await arrives(log, a, b, 'part of a view', [new DataView(words.buffer), 1, 2, port, LOOP]);
};

const outOfBounds: Program = async (log) => {
  const [, b, port] = await pair(log);
  const data = Buffer.from('hello');
  for (const [offset, length] of [
    [-1, 1],
    [1, -1],
    [5, 1],
    [4, 2],
    [6, 0],
    [0, 6],
    [0xffffffff, 1],
    [NaN, 6],
  ])
    log.call(`${offset} ${length}`, () => b.send(data, offset!, length!, port, LOOP));
};

const badMessages: Program = async (log) => {
  const [, b, port] = await pair(log);
  for (const message of [undefined, null, 7, true, {}, [1], ['x', null], Symbol.iterator, log]) {
    const name = Array.isArray(message) ? 'array' : typeof message;
    log.call(name, () => b.send(message as never, port, LOOP));
    if (!Array.isArray(message)) log.call(name, () => b.send(message as never, 0, 1, port, LOOP));
  }
};

const badPorts: Program = async (log) => {
  const [, b] = await pair(log);
  for (const port of [0, -1, 65536, 1.5, NaN, '', 'x', '70000', null, undefined, {}, [], true])
    log.call(`port ${JSON.stringify(port)}`, () => b.send('x', port as never, LOOP));
  log.call('no port', () => b.send('x'));
  log.call('callback only', () => b.send('x', () => log.note('callback')));
};

const badAddresses: Program = async (log) => {
  const [, b, port] = await pair(log);
  for (const address of [5, true, {}, []])
    log.call(`address ${JSON.stringify(address)}`, () => b.send('x', port, address as never));
};

const otherFamily: Program = async (log) => {
  const [, b, port] = await pair(log);
  b.send('x', port, '::1', log.noted('sent'));
  await settled();
  // Without a callback the error is not reported.
  log.watch('b', b);
  b.send('x', port, '::1');
  await settled();
};

const tooLong: Program = async (log) => {
  const [, b, port] = await pair(log, { type: 'udp4', sendBufferSize: 60_000 });
  log.watch('b', b);
  b.send(Buffer.alloc(65_508), port, LOOP, log.noted('sent'));
  await settled();
  b.send(Buffer.alloc(65_508), port, LOOP);
  await settled();
};

const long: Program = async (log) => {
  const options = { type: 'udp4', sendBufferSize: 65_535, recvBufferSize: 200_000 };
  const [a, port] = await log.bound(LOOP, options);
  const [b] = await log.bound(LOOP, options);
  const data = Buffer.from(Array.from({ length: 60_000 }, (_, i) => i % 251));
  const message = log.once(a, 'message');
  b.send(data, port, LOOP, log.noted('sent'));
  const [received] = (await message) as [Buffer];
  log.note('received', received.length, received.equals(data));
};

const order: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const c = log.socket();
  for (let i = 0; i < 5; i++) b.send(`b${i}`, port, LOOP, () => log.note(`sent ${i}`));
  for (let i = 0; i < 20 && log.lines.filter((line) => line.includes('a message')).length < 5; i++)
    await settled();
  // Before it is bound.
  const got: Buffer[] = [];
  a.on('message', (data) => got.push(data));
  for (let i = 0; i < 5; i++) c.send(`c${i}`, port, LOOP);
  for (let i = 0; i < 20 && got.length < 5; i++) await settled();
};

const copied: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const kept: Buffer[] = [];
  a.on('message', (data) => kept.push(data));
  for (let i = 0; i < 3; i++) await arrives(log, a, b, `${i}`, [`message ${i}`, port, LOOP]);
  log.note('kept', ...kept);
};

const lookupFails: Program = async (log) => {
  const lookup = (host: string, _family: unknown, done: (...args: unknown[]) => void): void => {
    const error = Object.assign(new Error('lookup'), { code: 'ENOTFOUND', hostname: host });
    process.nextTick(done, host === 'x.example' ? error : null, host, 4);
  };
  const socket = log.socket({ type: 'udp4', lookup });
  log.watch('a', socket);
  socket.send('x', 5000, 'x.example', log.noted('sent'));
  await settled();
  socket.send('x', 5000, 'x.example');
  await settled();
};

const localhost: Program = async (log) => {
  const [a, b, port] = await pair(log);
  await arrives(log, a, b, 'localhost', ['hello', port, 'localhost', log.noted('sent')]);
};

const sendto: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const legacy = b as unknown as { sendto(...args: unknown[]): void };
  const message = log.once(a, 'message');
  log.call('sendto', () => legacy.sendto('hello', 1, 3, port, LOOP, log.noted('sent')));
  await message;
  for (const args of [['x'], ['x', 0], ['x', 0, 1], ['x', 0, 1, port], ['x', 0, 1, port, 5]])
    log.call(`${args.length} arguments`, () => legacy.sendto(...args));
};

const throwing: Program = async (log) => {
  const [a, b, port] = await pair(log);
  const others = process.listeners('uncaughtException');
  process.removeAllListeners('uncaughtException');
  let caught = (): void => undefined;
  process.on('uncaughtException', (e) => {
    log.note('uncaught', e.message);
    caught();
  });
  a.on('message', (data) => {
    throw new Error(`listener of ${data.toString()}`);
  });
  for (const text of ['one', 'two']) {
    const thrown = new Promise<void>((resolve) => (caught = resolve));
    b.send(text, port, LOOP);
    await thrown;
  }
  process.removeAllListeners('uncaughtException');
  for (const listener of others) process.on('uncaughtException', listener);
};

const answers: Program = async (log) => {
  const [a, b, port] = await pair(log);
  a.on('message', (data, from) => a.send(`re: ${data.toString()}`, from.port, from.address));
  const message = log.once(b, 'message');
  b.send('question', port, LOOP);
  const [answer, from] = (await message) as [Buffer, { port: number }];
  log.note('answer', answer, from, from.port === port);
};

const closeAfterSend: Program = async (log) => {
  const [a, , port] = await pair(log);
  const b = log.socket();
  log.watch('b', b);
  // Both wait until the socket is bound.
  b.send('last', port, LOOP, log.noted('sent'));
  b.close();
  await log.once(b, 'close');
  await settled();
  log.note('listeners', a.listenerCount('message'));
  const c = log.socket();
  log.watch('c', c);
  c.send('callback', port, LOOP, () => c.close());
  await log.once(c, 'close');
  await settled();
};

export const sendRows: Readonly<Record<string, Program>> = {
  'send: binds a socket that is not bound': unbound,
  'send: all forms of its arguments': forms,
  'send: strings, buffers, views and arrays': contents,
  'send: offset and length out of bounds': outOfBounds,
  'send: messages of wrong types': badMessages,
  'send: invalid ports': badPorts,
  'send: addresses of wrong types': badAddresses,
  'send: an address of the other family': otherFamily,
  'send: a datagram that is too long': tooLong,
  'send: a long datagram': long,
  'send: the order of datagrams and callbacks': order,
  'send: a name that is not found': lookupFails,
  'send: to localhost': localhost,
  'send: close behind it, and in its callback': closeAfterSend,
  'sendto: the older form': sendto,
  'message: the data is a copy': copied,
  'message: an answer to its sender': answers,
  'message: a listener that throws': throwing,
};
