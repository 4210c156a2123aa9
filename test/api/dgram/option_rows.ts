/** Programs that set options of UDP sockets, join groups, and use IPv6. */

import type { Socket } from 'node:dgram';
import { BlockList } from 'node:net';
import { invoke, type Log, type Program, settled } from './log.ts';

const LOOP = '127.0.0.1';
const GROUP = '239.9.8.7';

const ttls: Program = async (log) => {
  for (const [type, address] of [
    ['udp4', LOOP],
    ['udp6', '::1'],
  ]) {
    const [a] = await log.bound(address, type);
    for (const ttl of [1, 64, 255, 0, 256, -5, 1000])
      log.call(`setTTL ${ttl}`, () => a.setTTL(ttl));
    for (const ttl of [0, 1, 255, 256, 1000])
      log.call(`setMulticastTTL ${ttl}`, () => a.setMulticastTTL(ttl));
    for (const ttl of ['1', null, undefined, {}, true]) {
      log.call(`setTTL ${JSON.stringify(ttl)}`, () => a.setTTL(ttl as never));
      log.call(`setMulticastTTL ${JSON.stringify(ttl)}`, () => a.setMulticastTTL(ttl as never));
    }
  }
};

const flags: Program = async (log) => {
  const [a] = await log.bound(LOOP);
  for (const value of [true, false, 1, 0, 16, 'x', null, undefined]) {
    const text = JSON.stringify(value);
    log.call(`setBroadcast ${text}`, () => a.setBroadcast(value as boolean));
    log.call(`setMulticastLoopback ${text}`, () => a.setMulticastLoopback(value as boolean));
  }
};

const buffers: Program = async (log) => {
  const [a] = await log.bound(LOOP);
  for (const size of [-1, 1.5, 2 ** 31, 2 ** 32, NaN, Infinity, '5', null, undefined, {}]) {
    const text = JSON.stringify(size);
    log.call(`setRecvBufferSize ${text}`, () => a.setRecvBufferSize(size as number));
    log.call(`setSendBufferSize ${text}`, () => a.setSendBufferSize(size as number));
  }
  log.call('setRecvBufferSize', () => a.setRecvBufferSize(20_000));
  log.call('setSendBufferSize', () => a.setSendBufferSize(30_000));
  // Linux returns twice the size.
  log.note('receive', [20_000, 40_000].includes(a.getRecvBufferSize()));
  log.note('send', [30_000, 60_000].includes(a.getSendBufferSize()));
  const b = log.socket({ type: 'udp4', recvBufferSize: 11_111, sendBufferSize: 12_222 });
  const listening = log.once(b, 'listening');
  b.bind(0, LOOP);
  await listening;
  log.note('option', [11_111, 22_222].includes(b.getRecvBufferSize()));
  log.note('option', [12_222, 24_444].includes(b.getSendBufferSize()));
  log.note('queue', a.getSendQueueSize(), a.getSendQueueCount());
};

const hugeBuffers: Program = async (log) => {
  const [a] = await log.bound(LOOP, { type: 'udp4', recvBufferSize: 1 << 30 });
  log.note('limited', a.getRecvBufferSize() < 1 << 30, a.getRecvBufferSize() > 100_000);
};

const memberships: Program = async (log) => {
  const [a] = await log.bound();
  for (const value of [undefined, null, '', 0]) {
    log.call(`addMembership ${JSON.stringify(value)}`, () => a.addMembership(value as never));
    log.call(`dropMembership ${JSON.stringify(value)}`, () => a.dropMembership(value as never));
  }
  for (const value of ['x', '192.0.2.1', '256.1.1.1', 5]) {
    log.call(`addMembership ${value}`, () => a.addMembership(value as string, LOOP));
    // FreeBSD returns EADDRNOTAVAIL for an address that is not a group, Linux EINVAL.
    if (value !== '192.0.2.1')
      log.call(`dropMembership ${value}`, () => a.dropMembership(value as string, LOOP));
  }
  log.call('bad interface', () => a.addMembership(GROUP, 'x'));
  log.call('drop, not a member', () => a.dropMembership(GROUP, LOOP));
  log.call('add', () => a.addMembership(GROUP, LOOP));
  log.call('add again', () => a.addMembership(GROUP, LOOP));
  log.call('another', () => a.addMembership('239.9.8.6', LOOP));
  log.call('drop', () => a.dropMembership(GROUP, LOOP));
  log.call('drop again', () => a.dropMembership(GROUP, LOOP));
  const b = log.socket();
  log.call('not bound', () => b.addMembership(GROUP, LOOP));
  log.note('bound now', b.address().address, b.address().port > 0);
};

const sources: Program = async (log) => {
  const [a] = await log.bound();
  for (const args of [[], [LOOP], [5, GROUP], [LOOP, 5], [null, null]] as never[][]) {
    log.call(`add ${args.length}`, () => invoke(a, 'addSourceSpecificMembership', args));
    log.call(`drop ${args.length}`, () => invoke(a, 'dropSourceSpecificMembership', args));
  }
  for (const [source, group] of [
    ['x', GROUP],
    [LOOP, 'x'],
    ['', ''],
  ] as const) {
    log.call(`add ${source}, ${group}`, () => a.addSourceSpecificMembership(source, group, LOOP));
    log.call(`drop ${source}, ${group}`, () => a.dropSourceSpecificMembership(source, group, LOOP));
  }
  log.call('add', () => a.addSourceSpecificMembership(LOOP, GROUP, LOOP));
  log.call('drop', () => a.dropSourceSpecificMembership(LOOP, GROUP, LOOP));
};

/** Whether `to` receives a datagram of `from` to the group. */
async function reaches(log: Log, to: Socket, from: Socket, port: number): Promise<boolean> {
  const got: string[] = [];
  const all = new Promise<void>((resolve) => {
    to.on('message', (data) => {
      got.push(data.toString());
      if (got.at(-1) === 'last') resolve();
    });
  });
  await log.sent(from, 'group', port, GROUP);
  await log.sent(from, 'last', port, LOOP);
  await all;
  to.removeAllListeners('message');
  return got.includes('group');
}

const delivery: Program = async (log) => {
  const [a, port] = await log.bound();
  const [b] = await log.bound(LOOP);
  log.call('setMulticastInterface', () => b.setMulticastInterface(LOOP));
  log.note('not a member', await reaches(log, a, b, port));
  a.addMembership(GROUP, LOOP);
  log.note('a member', await reaches(log, a, b, port));
  a.dropMembership(GROUP, LOOP);
  log.note('no member again', await reaches(log, a, b, port));
  a.addSourceSpecificMembership(LOOP, GROUP, LOOP);
  log.note('member for the source', await reaches(log, a, b, port));
  a.dropSourceSpecificMembership(LOOP, GROUP, LOOP);
  a.addSourceSpecificMembership('192.0.2.77', GROUP, LOOP);
  log.note('member for another source', await reaches(log, a, b, port));
};

const interfaces: Program = async (log) => {
  const [a] = await log.bound();
  for (const value of [5, null, undefined, {}, true])
    log.call(`interface ${JSON.stringify(value)}`, () => a.setMulticastInterface(value as never));
  for (const value of ['', 'x', '256.1.1.1', LOOP, '0.0.0.0', '198.51.100.77'])
    log.call(`interface ${value}`, () => a.setMulticastInterface(value));
  const [b] = await log.bound('::', 'udp6');
  for (const value of ['', 'x', '::', '::1'])
    log.call(`interface6 ${value}`, () => b.setMulticastInterface(value));
};

const six: Program = async (log) => {
  const [a, port] = await log.bound('::1', 'udp6');
  log.watch('a', a);
  const { address, family } = a.address();
  log.note('bound', address, family);
  const [b] = await log.bound('::1', 'udp6');
  for (const to of ['::1', '0:0:0:0:0:0:0:1', undefined]) {
    const message = log.once(a, 'message');
    log.note('sent', (await log.sent(b, 'six', port, to)) ?? null);
    await message;
  }
  const connected = log.once(b, 'connect');
  b.connect(port, '::1');
  await connected;
  log.note('remote', b.remoteAddress());
  const gone = log.once(b, 'error');
  a.close();
  b.send('nobody');
  log.note('refused', ...(await gone));
};

const mapped: Program = async (log) => {
  const [a, port] = await log.bound(undefined, 'udp6');
  log.watch('a', a);
  log.note('bound', a.address().address, a.address().family);
  const [four, port4] = await log.bound(LOOP);
  log.watch('four', four);
  const message = log.once(a, 'message');
  await log.sent(four, 'from IPv4', port, LOOP);
  await message;
  const answer = log.once(four, 'message');
  log.note('sent', (await log.sent(a, 'answer', port4, '::ffff:127.0.0.1')) ?? null);
  await answer;
  const refused = log.socket('udp6');
  refused.send('x', port4, LOOP, log.noted('to an IPv4 address'));
  await settled();
};

const onlySix: Program = async (log) => {
  const [a, port] = await log.bound('::', { type: 'udp6', ipv6Only: true });
  log.watch('a', a);
  const four = log.socket();
  const listening = log.once(four, 'listening');
  four.bind(port, '0.0.0.0');
  await listening;
  log.note('same port', four.address().port === port);
  const other = log.socket({ type: 'udp6', ipv6Only: true });
  const error = log.once(other, 'error');
  other.bind(port);
  log.note('again', ...(await error));
  const [b] = await log.bound('::1', 'udp6');
  const message = log.once(a, 'message');
  await log.sent(b, 'six', port, '::1');
  await message;
};

const groups6: Program = async (log) => {
  const [a] = await log.bound('::', 'udp6');
  for (const value of ['x', '2001:db8::1', '::1', '239.1.2'])
    log.call(`addMembership ${value}`, () => a.addMembership(value));
  log.call('bad interface', () => a.addMembership('ff02::77', 'x'));
  log.call('drop', () => a.dropMembership('ff02::77', '::'));
};

/** Only newer versions of Node.js have these options. */
export const blockLists: Program = async (log) => {
  const list = new BlockList();
  list.addAddress(LOOP);
  const [a, port] = await log.bound(LOOP, { type: 'udp4', receiveBlockList: list });
  log.watch('a', a);
  const [b] = await log.bound(LOOP);
  await log.sent(b, 'blocked', port, LOOP);
  await settled();
  const c = log.socket({ type: 'udp4', sendBlockList: list });
  log.watch('c', c);
  const codes: unknown[] = [];
  const done = (e: unknown): void => void codes.push((e as { code?: unknown } | null)?.code);
  c.send('blocked', port, LOOP, done);
  await settled();
  c.connect(port, LOOP, done as () => void);
  await settled();
  log.note('codes', ...codes);
  for (const name of ['receiveBlockList', 'sendBlockList'])
    try {
      log.socket({ type: 'udp4', [name]: 5 });
    } catch (e) {
      log.note(name, (e as { code?: unknown }).code);
    }
};

export const optionRows: Readonly<Record<string, Program>> = {
  'setTTL and setMulticastTTL': ttls,
  'setBroadcast and setMulticastLoopback': flags,
  'sizes of buffers': buffers,
  'sizes of buffers above the limit': hugeBuffers,
  'addMembership and dropMembership': memberships,
  'addSourceSpecificMembership and dropSourceSpecificMembership': sources,
  'groups: what is received': delivery,
  setMulticastInterface: interfaces,
  'udp6: addresses': six,
  'udp6: IPv4 by mapped addresses': mapped,
  'udp6: ipv6Only': onlySix,
  'udp6: invalid groups': groups6,
};
