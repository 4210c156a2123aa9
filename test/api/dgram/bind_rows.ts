/** Programs that create, bind and close UDP sockets. */

import { openSync, closeSync } from 'node:fs';
import { invoke, type Program, settled } from './log.ts';

const LOOP = '127.0.0.1';

/** Options of bad types, and their errors. */
const badOptions: Program = (log) => {
  const types = ['test', ['udp4'], new String('udp4'), 1, {}, true, false, null, undefined];
  for (const type of [...types, { type: 'udp5' }])
    log.call(`createSocket ${JSON.stringify(type)}`, () => log.socket(type));
  for (const option of ['recvBufferSize', 'sendBufferSize', 'lookup', 'signal'])
    for (const value of ['x', -1, 1.5, {}])
      log.call(`${option} ${JSON.stringify(value)}`, () =>
        log.socket({ type: 'udp4', [option]: value }),
      );
};

const fields: Program = (log) => {
  for (const type of ['udp4', 'udp6'])
    for (const socket of [log.socket(type), log.socket({ type })])
      log.note(type, (socket as unknown as { type: unknown }).type, Object.keys(socket).length > 0);
  const socket = log.socket('udp4', log.noted('message'));
  log.note('listeners', socket.listenerCount('message'), socket.listenerCount('close'));
  log.note('listener of another type', log.socket('udp4', 'x' as never).listenerCount('message'));
};

const bindOrder: Program = async (log) => {
  const socket = log.socket();
  log.watch('a', socket);
  log.note('same', socket.bind() === socket);
  log.note('behind bind');
  process.nextTick(() => log.note('next tick'));
  setImmediate(() => log.note('immediate'));
  await settled();
  const { address, family, port } = socket.address();
  log.note('address', address, family, port > 0);
};

const bindForms: Program = async (log) => {
  const forms: [string, unknown[]][] = [
    ['port', [0]],
    ['callback', [log.noted('called back')]],
    ['port, callback', [0, log.noted('called back')]],
    ['port, address, callback', [0, LOOP, log.noted('called back')]],
    ['port, null', [0, null]],
    ['string', ['0', LOOP]],
    ['object', [{ port: 0, address: LOOP }, log.noted('called back')]],
    ['object without port', [{ address: LOOP, exclusive: true }]],
    ['empty object', [{}]],
    ['null', [null]],
    ['undefined', [undefined, undefined]],
  ];
  for (const [name, args] of forms) {
    const socket = log.socket();
    const listening = log.once(socket, 'listening');
    log.call(name, () => invoke(socket, 'bind', args) === socket);
    await listening;
    const { address, port } = socket.address();
    log.note('address', address, port > 0);
  }
};
const notBound: Program = (log) => {
  const socket = log.socket();
  log.call('address', () => socket.address());
  log.call('remoteAddress', () => socket.remoteAddress());
  log.call('disconnect', () => socket.disconnect());
  log.call('setTTL', () => socket.setTTL(5));
  log.call('setMulticastTTL', () => socket.setMulticastTTL(5));
  log.call('setMulticastLoopback', () => socket.setMulticastLoopback(true));
  log.call('setMulticastInterface', () => socket.setMulticastInterface(LOOP));
  log.call('setBroadcast', () => socket.setBroadcast(true));
  log.call('getRecvBufferSize', () => socket.getRecvBufferSize());
  log.call('setSendBufferSize', () => socket.setSendBufferSize(8192));
  log.call('getSendQueueSize', () => socket.getSendQueueSize());
  log.call('getSendQueueCount', () => socket.getSendQueueCount());
};

const twice: Program = async (log) => {
  const socket = log.socket();
  log.watch('a', socket);
  socket.bind(0, LOOP);
  log.call('while it binds', () => socket.bind(0));
  await log.once(socket, 'listening');
  log.call('when it is bound', () => socket.bind(0, () => log.note('callback')));
  await settled();
};

const inUse: Program = async (log) => {
  const [, port] = await log.bound(LOOP);
  const second = log.socket();
  log.watch('b', second);
  second.bind(port, LOOP, log.noted('callback'));
  log.note('behind bind');
  await log.once(second, 'error');
  log.note('listeners', second.listenerCount('listening'), second.listenerCount('error'));
  second.bind(0, LOOP);
  await log.once(second, 'listening');
};

const inUseForms: Program = async (log) => {
  const [, port] = await log.bound(LOOP);
  for (const args of [[String(port), LOOP], [{ port, address: LOOP }], [port], [{ port }]]) {
    const socket = log.socket();
    const error = log.once(socket, 'error');
    invoke(socket, 'bind', args);
    log.note('error', ...(await error));
  }
};

const foreign: Program = async (log) => {
  for (const [type, address] of [
    ['udp4', '198.51.100.77'],
    ['udp6', '2001:db8:77::1'],
  ]) {
    const socket = log.socket(type);
    const error = log.once(socket, 'error');
    socket.bind(0, address);
    log.note(`bind ${address}`, ...(await error));
  }
};

const otherFamily: Program = async (log) => {
  for (const [type, address] of [
    ['udp4', '::1'],
    ['udp6', '127.0.0.1'],
  ]) {
    const socket = log.socket(type);
    const error = log.once(socket, 'error');
    socket.bind(0, address);
    log.note(`bind ${address}`, ...(await error));
  }
};

const shared: Program = async (log) => {
  const options = { type: 'udp4', reuseAddr: true };
  const [first, port] = await log.bound(LOOP, options);
  const second = log.socket(options);
  log.watch('b', second);
  second.bind(port, LOOP);
  await log.once(second, 'listening');
  log.note('ports', first.address().port, second.address().port);
  // Without the option on one of them it is an error.
  const third = log.socket();
  const error = log.once(third, 'error');
  third.bind(port, LOOP);
  log.note('third', ...(await error));
};

const lookups: Program = async (log) => {
  for (const type of ['udp4', 'udp6']) {
    const lookup = (...[host, family, done]: [unknown, unknown, (...args: unknown[]) => void]) => {
      log.note('lookup', host, family, typeof done);
      process.nextTick(done, null, type === 'udp4' ? LOOP : '::1', family);
    };
    const socket = log.socket({ type, lookup });
    log.watch(type, socket);
    for (const host of ['test.example', 'localhost']) {
      const one = log.socket({ type, lookup });
      const listening = log.once(one, 'listening');
      one.bind(0, host);
      await listening;
      log.note('bound', one.address().address);
    }
    socket.bind(0);
    await log.once(socket, 'listening');
  }
};

const lookupFails: Program = async (log) => {
  const wrong = Object.assign(new Error('not found'), { code: 'ENOTFOUND' });
  let fails = true;
  const lookup = (host: string, _family: unknown, done: (...args: unknown[]) => void): void => {
    process.nextTick(done, fails ? wrong : null, host === 'x.example' ? LOOP : host, 4);
  };
  const socket = log.socket({ type: 'udp4', lookup });
  log.watch('a', socket);
  socket.bind(0, 'x.example');
  await log.once(socket, 'error');
  fails = false;
  socket.bind(0, 'x.example');
  await log.once(socket, 'listening');
  log.note('bound', socket.address().address);
};

const closedInLookup: Program = async (log) => {
  const socket = log.socket();
  log.watch('a', socket);
  socket.bind(0, LOOP);
  socket.close();
  await settled();
};

const localhost: Program = async (log) => {
  const [socket] = await log.bound('localhost');
  log.note('bound', socket.address().address);
};

const descriptors: Program = (log) => {
  const fd = openSync('/dev/null', 'r');
  const socket = log.socket();
  log.call('file', () => socket.bind({ fd } as object as { port: number }));
  closeSync(fd);
};

const closing: Program = async (log) => {
  const [socket, port] = await log.bound(LOOP);
  log.watch('a', socket);
  log.note('same', socket.close(log.noted('callback')) === socket);
  log.note('behind close');
  log.call('close', () => socket.close());
  log.call('close with a callback', () => socket.close(log.noted('second callback')));
  log.call('address', () => socket.address());
  log.call('remoteAddress', () => socket.remoteAddress());
  log.call('bind', () => socket.bind(0));
  log.call('send', () => socket.send('x', port, LOOP));
  log.call('setMulticastInterface', () => socket.setMulticastInterface(LOOP));
  log.call('addMembership', () => socket.addMembership('239.1.2.3'));
  log.call('dropMembership', () => socket.dropMembership('239.1.2.3'));
  log.call('setTTL', () => socket.setTTL(5));
  log.call('setBroadcast', () => socket.setBroadcast(true));
  log.call('getRecvBufferSize', () => socket.getRecvBufferSize());
  log.call('ref', () => socket.ref() === socket);
  log.call('unref', () => socket.unref() === socket);
  await settled();
  // The port is free again.
  const next = log.socket();
  const listening = log.once(next, 'listening');
  next.bind(port, LOOP);
  await listening;
};

const closeInEvents: Program = async (log) => {
  const first = log.socket();
  log.watch('a', first);
  first.on('listening', () => first.close());
  first.bind(0, LOOP);
  await log.once(first, 'close');
  const [second, port] = await log.bound(LOOP);
  log.watch('b', second);
  second.on('message', () => second.close());
  const [sender] = await log.bound(LOOP);
  for (let i = 0; i < 3; i++) sender.send(String(i), port, LOOP);
  await log.once(second, 'close');
  await settled();
};

const closeNeverBound: Program = async (log) => {
  const socket = log.socket();
  log.watch('a', socket);
  socket.close(log.noted('callback'));
  await settled();
};

const dispose: Program = async (log) => {
  const symbol = (Symbol as { asyncDispose?: symbol }).asyncDispose;
  const [socket] = await log.bound(LOOP);
  log.watch('a', socket);
  const end = (socket as unknown as Record<symbol, (() => Promise<unknown>) | undefined>)[symbol!];
  log.note('result', await end?.call(socket));
  log.note('again', await end?.call(socket));
};

const signals: Program = async (log) => {
  const early = log.socket({ type: 'udp4', signal: AbortSignal.abort() });
  log.watch('a', early);
  log.call('bind', () => early.bind(0));
  await settled();
  const controller = new AbortController();
  const late = log.socket({ type: 'udp4', signal: controller.signal });
  log.watch('b', late);
  late.bind(0, LOOP);
  await log.once(late, 'listening');
  controller.abort();
  log.call('close', () => late.close());
  await settled();
  const unused = new AbortController();
  const closed = log.socket({ type: 'udp4', signal: unused.signal });
  log.watch('c', closed);
  closed.close();
  unused.abort();
  await settled();
};

const references: Program = async (log) => {
  const socket = log.socket();
  log.note('unbound', socket.ref() === socket, socket.unref() === socket);
  const listening = log.once(socket, 'listening');
  socket.bind(0, LOOP);
  await listening;
  log.note('bound', socket.unref() === socket, socket.ref() === socket);
};

const wildcard: Program = async (log) => {
  const [, port] = await log.bound();
  const other = log.socket();
  const error = log.once(other, 'error');
  other.bind(port, LOOP);
  log.note('specific', ...(await error));
};

export const bindRows: Readonly<Record<string, Program>> = {
  'createSocket: options of wrong types': badOptions,
  'createSocket: properties and listeners': fields,
  'createSocket: aborted signals': signals,
  "bind: 'listening' comes later": bindOrder,
  'bind: all forms of its arguments': bindForms,
  'bind: a second time': twice,
  'bind: the port is in use': inUse,
  'bind: the port is in use, all forms of arguments': inUseForms,
  'bind: one address of a port that is bound to all': wildcard,
  'bind: an address of another host': foreign,
  'bind: an address of the other family': otherFamily,
  'bind: several sockets with reuseAddr': shared,
  'bind: the function lookup': lookups,
  'bind: a name that is not found': lookupFails,
  'bind: closed before it is bound': closedInLookup,
  'bind: localhost': localhost,
  'bind: a descriptor that is no UDP socket': descriptors,
  'calls before bind': notBound,
  'close: and calls behind it': closing,
  'close: in listeners': closeInEvents,
  'close: a socket that was never bound': closeNeverBound,
  'close: Symbol.asyncDispose': dispose,
  'ref and unref': references,
};
