/** The UDP sockets of a stack do what those of node:dgram do: the same programs have the same logs. */

import * as linux from 'node:dgram';
import type { RemoteInfo } from 'node:dgram';
import { once } from 'node:events';
import { expect } from 'chai';
import { createStack, type Stack } from '../../../src/index.ts';
import { needs } from '../../support/needs.ts';
import { Netns } from '../../support/netns.ts';
import { bindRows } from './bind_rows.ts';
import { connectRows } from './connect_rows.ts';
import { type Dgram, Log, type Program } from './log.ts';
import { blockLists, optionRows } from './option_rows.ts';
import { sendRows } from './send_rows.ts';

const ROWS = { ...bindRows, ...sendRows, ...connectRows, ...optionRows };

async function logOf(program: Program, dgram: Dgram): Promise<string[]> {
  const log = new Log(dgram);
  await program(log);
  return log.end();
}

describe('api: UDP sockets as those of node:dgram', function () {
  this.timeout(60_000);
  needs('root', 'tap', 'netns');
  let ns: Netns;
  let stack: Stack;
  let ours: Dgram;

  before(async () => {
    ns = new Netns('dgram');
    stack = await createStack({ netns: ns.name, memory: '64M' });
    ours = { createSocket: stack.createSocket.bind(stack) as Dgram['createSocket'] };
  });
  after(async () => {
    expect(await stack.close()).to.eql({});
    ns[Symbol.dispose]();
  });

  it('has at least 60 programs', () => {
    expect(Object.keys(ROWS)).to.have.length.above(59);
  });

  for (const [title, program] of Object.entries(ROWS))
    it(title, async () => {
      const node = await logOf(program, linux);
      const own = await logOf(program, ours);
      expect(own, 'ours, and that of node:dgram').to.eql(node);
      expect(node).not.to.eql([]);
    });

  it('receiveBlockList and sendBlockList, also with a Node.js that does not have them', async () => {
    const own = await logOf(blockLists, ours);
    expect(own).to.eql([
      'c listening',
      'codes "ERR_IP_BLOCKED" "ERR_IP_BLOCKED"',
      'receiveBlockList "ERR_INVALID_ARG_TYPE"',
      'sendBlockList "ERR_INVALID_ARG_TYPE"',
    ]);
    if (Number.parseInt(process.versions.node, 10) < 24) return;
    expect(own, 'ours, and that of node:dgram').to.eql(await logOf(blockLists, linux));
  });

  it('ttl and dontFragment, the options that node:dgram does not have', async () => {
    for (const ttl of [0, 256, 1.5, '5'])
      expect(() => stack.createSocket({ type: 'udp4', ttl: ttl as number })).to.throw(
        /options\.ttl/,
      );
    const socket = stack.createSocket({ type: 'udp4', ttl: 7, dontFragment: true });
    try {
      socket.bind(0);
      await once(socket, 'listening');
      const big = Buffer.alloc(20_000);
      socket.setSendBufferSize(30_000);
      const error = await new Promise<unknown>((resolve) =>
        socket.send(big, 9, '192.0.2.1', resolve),
      );
      expect(error).to.include({
        code: 'EMSGSIZE',
        syscall: 'send',
        address: '192.0.2.1',
        port: 9,
      });
    } finally {
      socket.close();
    }
  });

  it('localhost is lo0 of the stack in both families', async () => {
    for (const [type, address] of [
      ['udp4', '127.0.0.1'],
      ['udp6', '::1'],
    ] as const) {
      const socket = stack.createSocket(type).bind(0, 'localhost');
      await once(socket, 'listening');
      expect(socket.address().address).to.equal(address);
      socket.close();
    }
  });

  it('udp6: link-local addresses with the zone of the stack', async () => {
    const own = stack.ifconfig('tn0').inet6.find(({ addr }) => addr.startsWith('fe80:'))!;
    const address = `${own.addr.split('%')[0]}%tn0`;
    const socket = stack.createSocket('udp6').bind(0, address);
    await once(socket, 'listening');
    expect(socket.address()).to.include({ address, family: 'IPv6' });
    const message = once(socket, 'message');
    const sender = stack.createSocket('udp6');
    sender.send('hello', socket.address().port, address);
    const [data, from] = (await message) as [Buffer, RemoteInfo];
    expect([data.toString(), from.address, from.size]).to.eql(['hello', address, 5]);
    const none = address.replace('%tn0', '%none');
    const error = await new Promise((resolve) => sender.send('x', 9, none, resolve));
    expect(error).to.include({ code: 'ENXIO', syscall: 'send', address: none, port: 9 });
    sender.close();
    socket.close();
  });
});
