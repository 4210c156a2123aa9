/** Programs that connect UDP sockets. */

import { invoke, type Program, settled } from './log.ts';

const LOOP = '127.0.0.1';

const connects: Program = async (log) => {
  const [a, port] = await log.bound(LOOP);
  log.watch('a', a);
  const [b] = await log.bound(LOOP);
  log.watch('b', b);
  log.note('result', b.connect(port, LOOP, log.noted('callback')));
  log.note('behind connect');
  log.call('remoteAddress', () => b.remoteAddress());
  await log.once(b, 'connect');
  log.note('remote', b.remoteAddress());
  const message = log.once(a, 'message');
  b.send('to the peer', log.noted('sent'));
  await message;
};

const forms: Program = async (log) => {
  const [, port] = await log.bound();
  for (const [what, args] of [
    ['port', [port]],
    ['port, callback', [port, log.noted('callback')]],
    ['port, address', [port, LOOP]],
    ['port, localhost', [port, 'localhost']],
    ['port, empty address', [port, '']],
    ['port, undefined, callback', [port, undefined, log.noted('callback')]],
    ['string port', [String(port), LOOP]],
  ] as [string, unknown[]][]) {
    const socket = log.socket();
    log.watch('b', socket);
    const connected = log.once(socket, 'connect');
    log.call(what, () => invoke(socket, 'connect', args));
    await connected;
    log.note('remote', socket.remoteAddress());
  }
};

const sendForms: Program = async (log) => {
  const [a, port] = await log.bound(LOOP);
  log.watch('a', a);
  const b = log.socket();
  const connected = log.once(b, 'connect');
  b.connect(port, LOOP);
  await connected;
  const data = Buffer.from('0123456789');
  const done = log.noted('sent');
  for (const [what, args] of [
    ['message', [data]],
    ['message, callback', [data, done]],
    ['string', ['text']],
    ['array', [['a', 'b'], done]],
    ['offset, length', [data, 2, 3]],
    ['offset, length, callback', [data, 2, 3, done]],
    ['message, undefined, undefined, callback', [data, undefined, undefined, undefined]],
  ] as [string, unknown[]][]) {
    const message = log.once(a, 'message');
    log.call(what, () => invoke(b, 'send', args));
    await message;
    await settled();
  }
  for (const [what, args] of [
    ['offset, length, port', [data, 0, 1, port]],
    ['offset, length, port, address', [data, 0, 1, port, LOOP]],
    ['offset, length, port, address, callback', [data, 0, 1, port, LOOP, done]],
    ['length too long', [data, 5, 6]],
    ['offset too long', [data, 11, 0]],
    ['a number', [7]],
    ['an array of numbers', [[7]]],
  ] as [string, unknown[]][])
    log.call(what, () => invoke(b, 'send', args));
};

const states: Program = async (log) => {
  const [, port] = await log.bound(LOOP);
  const b = log.socket();
  log.watch('b', b);
  log.call('disconnect', () => b.disconnect());
  log.call('remoteAddress', () => b.remoteAddress());
  b.connect(port, LOOP);
  log.call('connect while it connects', () => b.connect(port, LOOP));
  log.call('disconnect while it connects', () => b.disconnect());
  await log.once(b, 'connect');
  log.call('connect again', () => b.connect(port, LOOP));
  log.call('disconnect', () => b.disconnect());
  log.call('remoteAddress', () => b.remoteAddress());
  log.call('disconnect again', () => b.disconnect());
  b.connect(port, LOOP);
  await log.once(b, 'connect');
  log.note('remote', b.remoteAddress());
};

const badArguments: Program = (log) => {
  const b = log.socket();
  for (const port of [0, -1, 65536, 1.5, NaN, 'x', '', null, undefined, {}, true])
    log.call(`port ${JSON.stringify(port)}`, () => b.connect(port as never));
  for (const address of [5, true, null, {}, []])
    log.call(`address ${JSON.stringify(address)}`, () => b.connect(5000, address as never));
};

const lookupFails: Program = async (log) => {
  const lookup = (host: string, _family: unknown, done: (...args: unknown[]) => void): void => {
    const error = Object.assign(new Error('lookup'), { code: 'ENOTFOUND', hostname: host });
    process.nextTick(done, host === 'x.example' ? error : null, host, 4);
  };
  const b = log.socket({ type: 'udp4', lookup });
  log.watch('b', b);
  b.connect(5000, 'x.example', log.noted('callback'));
  await settled();
  b.connect(5000, 'x.example');
  await settled();
  log.note('listeners', b.listenerCount('connect'));
  b.connect(5000, LOOP);
  await log.once(b, 'connect');
};

const otherFamily: Program = async (log) => {
  for (const [type, address] of [
    ['udp4', '::1'],
    ['udp6', LOOP],
  ]) {
    const socket = log.socket(type);
    log.watch(type!, socket);
    socket.connect(5000, address, log.noted('callback'));
    await settled();
    log.call('remoteAddress', () => socket.remoteAddress());
  }
};

const onlyPeer: Program = async (log) => {
  const [a, port] = await log.bound(LOOP);
  const [b, peer] = await log.bound(LOOP);
  const [c] = await log.bound(LOOP);
  log.watch('a', a);
  const connected = log.once(a, 'connect');
  a.connect(peer, LOOP);
  await connected;
  await log.sent(c, 'stranger', port, LOOP);
  const message = log.once(a, 'message');
  await log.sent(b, 'peer', port, LOOP);
  await message;
};

const refused: Program = async (log) => {
  const [gone, port] = await log.bound(LOOP);
  gone.close();
  const b = log.socket();
  log.watch('b', b);
  const connected = log.once(b, 'connect');
  b.connect(port, LOOP);
  await connected;
  const error = log.once(b, 'error');
  b.send('nobody', log.noted('sent'));
  await error;
  await settled();
  // Without a peer the error is lost.
  b.disconnect();
  b.send('nobody', port, LOOP, log.noted('sent'));
  await settled();
};

const closes: Program = async (log) => {
  const b = log.socket();
  log.watch('b', b);
  b.connect(5000, LOOP, log.noted('callback'));
  b.close();
  await log.once(b, 'close');
  log.call('connect', () => b.connect(5000, LOOP));
  const c = log.socket();
  log.watch('c', c);
  c.on('connect', () => c.close());
  c.connect(5000, LOOP);
  await log.once(c, 'close');
};

export const connectRows: Readonly<Record<string, Program>> = {
  'connect: the event, the callback and the peer': connects,
  'connect: all forms of its arguments': forms,
  'connect: invalid arguments': badArguments,
  'connect: connected, disconnected and again': states,
  'connect: a name that is not found': lookupFails,
  'connect: an address of the other family': otherFamily,
  'connect: only datagrams of the peer are received': onlyPeer,
  'connect: a peer that refuses': refused,
  'connect: close behind it, and in its event': closes,
  'send: all forms of its arguments when connected': sendForms,
};
