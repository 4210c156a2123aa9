/** UDP sockets and servers of the library under floods: what waits, and what a slow program misses. */

import { once } from 'node:events';
import { expect } from 'chai';
import { DgramHandle } from '../../src/api/dgram_handle.ts';
import { RawSocket } from '../../src/api/raw.ts';
import { NetHost } from '../../src/api/net_host.ts';
import { Server } from '../../src/api/server.ts';
import type { Socket } from '../../src/api/socket.ts';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { calloutsPending } from '../../src/kern/kern_timeout.ts';
import { DgramSocket } from '../../src/machine/dgram.ts';
import {
  EBADF,
  EDESTADDRREQ,
  EHOSTUNREACH,
  EINVAL,
  ENOBUFS,
  errnoName,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import { counted, R_RIP_FULL, R_SO_LISTEN_OVERFLOW, R_UDP_FULL } from '../../src/sys/reason.ts';
import { buildIcmp, buildIp4, buildUdp } from '../support/frames.ts';
import { MS, PEER, TestHost, US } from '../netinet/tcp_host.ts';

const X = Buffer.from('x');

describe('api: floods', () => {
  let h: TestHost;
  let open: { close(): unknown }[];
  beforeEach(() => {
    h = new TestHost();
    open = [];
    // Turns of Node's event loop, as the real clock has them.
    h.clock.post = (task): void => void setImmediate(() => task.run());
  });
  afterEach(async () => {
    for (const socket of open) socket.close();
    await settle();
    h.close();
  });

  const udp = (port = 0): DgramHandle => {
    const socket = new DgramHandle(h.vnet);
    open.push(socket);
    expect(socket.bind(port)).to.equal(0);
    return socket;
  };
  /** A callback of `send` that adds its result to `log`. */
  const noted =
    (log: string[], name: string) =>
    (error: number, n: number): void =>
      void log.push(`${name} ${error === 0 ? n : errnoName(error)}`);
  /** Lets the turns of the loop pass that are posted, and those that they post. */
  const settle = async (): Promise<void> => {
    for (let i = 0; i < 200; i++) await new Promise(setImmediate);
  };
  const payloads = (): string[] =>
    h.take().map((f) => Buffer.from(f.ip!.udp!.payload).toString('latin1'));

  describe('send', () => {
    it('returns the error of a datagram that it cannot send', () => {
      const socket = udp();
      const never = (): void => expect.fail('called back');
      expect(socket.send(Buffer.from('one'), 9, PEER, never)).to.equal(0);
      expect(socket.send(Buffer.from('x'), 9, '198.51.100.1', never)).to.equal(EHOSTUNREACH);
      expect(socket.send(Buffer.from('x'), 70_000, PEER, never)).to.equal(EINVAL);
      expect(socket.send(Buffer.from('x'), 9, 'nowhere', never)).to.equal(EINVAL);
      expect(socket.send(Buffer.from('x'))).to.equal(EDESTADDRREQ);
      expect(socket.connect(9, PEER)).to.equal(0);
      expect(socket.send(Buffer.from('two'))).to.equal(0);
      expect(payloads()).to.eql(['one', 'two']);
      socket.close();
      open.pop();
      expect(socket.send(Buffer.from('x'), 9, PEER, never)).to.equal(EBADF);
    });

    it('without room the datagrams wait: their number and size, then all in order', async () => {
      const socket = udp();
      const log: number[] = [];
      h.txError = ENOBUFS;
      const buffer = Buffer.from('0000');
      for (let i = 0; i < 200; i++) {
        buffer.write(String(i).padStart(4, '0'));
        const done = (error: number, n: number): void => void log.push(error === 0 ? n + i : -1);
        expect(socket.send(buffer, 9, PEER, done)).to.equal(EWOULDBLOCK);
      }
      expect([socket.getSendQueueCount(), socket.getSendQueueSize()]).to.eql([200, 800]);
      await settle();
      h.clock.advance(5 * MS);
      expect([socket.getSendQueueCount(), log.length]).to.eql([200, 0]);
      h.txError = 0;
      // The queue stays in order although there is room now.
      expect(socket.send(Buffer.from('last'), 9, PEER)).to.equal(EWOULDBLOCK);
      expect(socket.getSendQueueCount()).to.equal(201);
      h.clock.advance(MS);
      await settle();
      expect([socket.getSendQueueCount(), socket.getSendQueueSize()]).to.eql([0, 0]);
      const want = Array.from({ length: 200 }, (_, i) => String(i).padStart(4, '0'));
      expect(payloads()).to.eql([...want, 'last']);
      expect(log).to.eql(Array.from({ length: 200 }, (_, i) => i + 4));
    });

    it('a turn of the loop sends at most 32 of them', async () => {
      const socket = udp();
      h.txError = ENOBUFS;
      for (let i = 0; i < 100; i++) socket.send(X, 9, PEER);
      h.txError = 0;
      h.clock.advance(MS);
      expect(socket.getSendQueueCount()).to.equal(68);
      await settle();
      expect(payloads()).to.have.length(100);
    });

    it('an error while they wait goes to its callback, and the others are sent', async () => {
      const socket = udp();
      const log: string[] = [];
      h.txError = ENOBUFS;
      socket.send(Buffer.from('a'), 9, PEER, noted(log, 'a'));
      socket.send(Buffer.from('b'), 9, PEER);
      socket.send(Buffer.from('c'), 9, PEER, noted(log, 'c'));
      h.txError = EHOSTUNREACH;
      const transmit = h.if_transmit.bind(h);
      let sends = 0;
      h.if_transmit = (ifp, m): number => {
        if (++sends === 2) h.txError = 0;
        return transmit(ifp, m);
      };
      h.clock.advance(MS);
      h.if_transmit = transmit;
      await settle();
      expect(log).to.eql(['a EHOSTUNREACH', 'c 1']);
      expect(payloads()).to.eql(['b', 'c']);
    });

    it('close: ECANCELED for those that wait, and none is sent', async () => {
      const socket = udp();
      const log: string[] = [];
      h.txError = ENOBUFS;
      for (const name of ['a', 'b']) socket.send(Buffer.from(name), 9, PEER, noted(log, name));
      open.pop();
      socket.close();
      h.txError = 0;
      h.clock.advance(100 * MS);
      await settle();
      expect(log).to.eql(['a ECANCELED', 'b ECANCELED']);
      expect([socket.getSendQueueCount(), socket.getSendQueueSize()]).to.eql([0, 0]);
      expect(payloads()).to.eql([]);
      const timers = calloutsPending();
      const other = new DgramHandle(h.vnet);
      other.bind(0);
      h.txError = ENOBUFS;
      other.send(X, 9, PEER);
      expect(calloutsPending()).to.equal(timers + 1);
      other.close();
      expect(calloutsPending()).to.equal(timers);
    });

    it('100,000 datagrams to a silent neighbour: no memory stays, no call throws', () => {
      const socket = udp();
      const before = mbufZones().mbuf.current;
      for (let i = 0; i < 100_000; i++) socket.send(X, 9, '192.0.2.77');
      expect(mbufZones().mbuf.current - before).to.be.below(20);
      expect(socket.getSendQueueCount()).to.equal(0);
      h.sent.length = 0;
      h.advance(30_000);
      h.sent.length = 0;
      expect(mbufZones().mbuf.current).to.equal(before);
    });
  });

  describe('receive', () => {
    const datagram = buildUdp({ src: PEER, dst: US }, { sport: 4000, dport: 5000, payload: 'x' });

    it('a listener slower than the flood: the rest is dropped and counted', async () => {
      const socket = udp(5000);
      let got = 0;
      socket.start({ message: () => got++, failed: () => undefined });
      for (let i = 0; i < 2000; i++) h.injectIp(datagram);
      const dropped = counted(R_UDP_FULL);
      expect(dropped).to.be.above(1800);
      await settle();
      expect(got + dropped).to.equal(2000);
      h.injectIp(datagram);
      await settle();
      expect(got + dropped).to.equal(2001);
    });

    it('a flood of echo replies to a raw socket', async () => {
      const raw = new RawSocket(h.vnet);
      open.push(raw);
      let got = 0;
      raw.on('message', () => got++);
      const reply = buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 0, payload: 'x' }));
      for (let i = 0; i < 3000; i++) h.injectIp(reply);
      const dropped = counted(R_RIP_FULL);
      expect(dropped).to.be.above(1000);
      await settle();
      expect(got + dropped).to.equal(3000);
    });

    it('a flood of ICMP errors is one event per turn at most', async () => {
      const socket = udp(5000);
      expect(socket.connect(9, PEER)).to.equal(0);
      const codes: string[] = [];
      const failed = (error: number): void => void codes.push(errnoName(error));
      socket.start({ message: () => undefined, failed });
      const quoted = buildUdp({ src: US, dst: PEER }, { sport: 5000, dport: 9, payload: 'abc' });
      const icmp = buildIcmp({ type: 3, code: 3, payload: quoted });
      for (let i = 0; i < 1000; i++) h.injectIp(buildIp4({ src: PEER, dst: US }, 1, icmp));
      await settle();
      expect(codes).to.eql(['ECONNREFUSED']);
    });

    it('bind, send, connect and close in every order in listeners: nothing is lost or left', async () => {
      let seed = 12345;
      const random = (n: number): number => {
        seed = (Math.imul(seed, 1103515245) + 12345) & 0x7fffffff;
        return (seed >>> 8) % n;
      };
      const live = new Set<DgramSocket>();
      let events = 0;
      const act = (): void => {
        const list = [...live];
        const socket = list[random(list.length)];
        const port = 6000 + random(8);
        try {
          const what = random(6);
          if (what === 0 || socket === undefined) {
            const made = new DgramSocket(h.vnet, { type: 'udp4', reuseAddr: true });
            live.add(made);
            made.on('close', () => live.delete(made));
            for (const event of ['message', 'error', 'listening', 'connect'])
              made.on(event, () => {
                events++;
                if (events < 5000) act();
              });
          } else if (what === 1) socket.bind(port);
          else if (what === 2) socket.connect(port, '127.0.0.1');
          else if (what === 3 && live.size > 4) socket.close();
          else socket.send('x', port, '127.0.0.1', () => void (events < 5000 && act()));
        } catch {
          // Invalid in this state.
        }
      };
      for (let i = 0; i < 500; i++) {
        act();
        if (i % 20 === 0) await settle();
      }
      await settle();
      expect(events).to.be.above(50);
      for (const socket of live) socket.close();
      await settle();
      expect(live.size).to.equal(0);
    });
  });

  describe('connections', () => {
    it('a burst with a listener that is slow: the queues are bounded, and no event is lost', async () => {
      const server = new Server({ stack: new NetHost(h.vnet) });
      const sockets: Socket[] = [];
      server.on('connection', (socket: Socket) => {
        socket.on('error', () => undefined);
        sockets.push(socket.resume());
      });
      server.listen(80, '0.0.0.0', 10);
      await settle();
      const turns: (() => void)[] = [];
      h.clock.post = (task): void => void turns.push(() => task.run());
      for (let i = 0; i < 400; i++) {
        const sport = 10_000 + i;
        h.seg({ flags: 'S', seq: 1000, sport, mss: 1460 });
        const iss = h.take().find((f) => f.ip!.tcp!.flags === 'S.')!.ip!.tcp!.seq;
        h.seg({ seq: 1001, ack: iss + 1, sport });
        h.sent.length = 0;
        // The program has one turn per four connections.
        if (i % 4 === 3) turns.shift()?.();
      }
      const refused = counted(R_SO_LISTEN_OVERFLOW);
      const accepted = 400 - refused;
      expect(refused).to.be.above(200);
      // What no listener has seen yet: the kernel's queue of 3/2 of the backlog, and one backlog.
      expect(accepted - sockets.length).to.be.within(20, 16 + 10);
      while (turns.length > 0) turns.shift()!();
      expect(sockets).to.have.length(accepted);
      h.clock.post = (task): void => void setImmediate(() => task.run());
      for (const socket of sockets) socket.destroy();
      const closed = once(server, 'close');
      server.close();
      await closed;
      h.sent.length = 0;
    });
  });
});
