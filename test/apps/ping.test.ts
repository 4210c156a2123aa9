import { expect } from 'chai';
import { Icmp6Message } from '../../src/apps/ping/packet6.ts';
import {
  errorCode,
  IcmpPacket,
  icmpSum,
  makeEcho,
  patternMismatch,
} from '../../src/apps/ping/packet.ts';
import {
  Ping,
  type PingOptions,
  type PingReply,
  type PingStatistics,
} from '../../src/apps/ping/ping.ts';
import {
  lossPercent,
  printBegin,
  printIcmpError,
  printReply,
  printSendError,
  printStatistics,
} from '../../src/apps/ping/print.ts';
import { buildIcmp, buildIp4, decodeIp4 } from '../support/frames.ts';

const US = '192.0.2.2';
const PEER = '192.0.2.1';
const PEER6 = 'fe80::1%tn0';
const HOPS = 63;

/** The ICMP part of an answer to `request`. */
function answer(request: Uint8Array): Buffer {
  const reply = Buffer.from(request);
  reply[0] = 0;
  reply.writeUInt16BE(0, 2);
  reply.writeUInt16BE(icmpSum(reply), 2);
  return reply;
}

const packet = (icmp: Uint8Array, ttl = 64): Buffer =>
  Buffer.from(buildIp4({ src: PEER, dst: US, ttl }, 1, icmp));

/** Answers a request with packets, immediately or after some milliseconds. */
type Peer = (request: Buffer, reply: (packet: Buffer, delayMs?: number) => void) => void;

/** A socket whose other end is `peer`, which gets each request and a function to reply. */
class FakeSocket {
  readonly family: 4 | 6;
  readonly sent: Buffer[] = [];
  closed = false;
  #listener: (packet: Buffer, from: string, hops: number | null) => void = () => undefined;
  readonly #peer: Peer;

  constructor(peer: Peer, family: 4 | 6) {
    this.#peer = peer;
    this.family = family;
  }
  on(
    _event: 'message',
    listener: (packet: Buffer, from: string, hops: number | null) => void,
  ): void {
    this.#listener = listener;
  }
  send(message: Uint8Array, host: string): void {
    const peer = this.family === 6 ? PEER6 : PEER;
    expect(host).to.equal(peer);
    const request = Buffer.from(message);
    this.sent.push(request);
    this.#peer(request, (reply, delayMs = 0) => {
      setTimeout(
        () => this.closed || this.#listener(reply, peer, this.family === 6 ? HOPS : null),
        delayMs,
      );
    });
  }
  close(): void {
    this.closed = true;
  }
}

interface Run {
  socket: FakeSocket;
  replies: PingReply[];
  errors: string[];
  statistics: PingStatistics;
}

async function ping(options: Partial<PingOptions>, peer: Peer): Promise<Run> {
  const socket = new FakeSocket(peer, options.host?.includes(':') === true ? 6 : 4);
  const replies: PingReply[] = [];
  const errors: string[] = [];
  const run = new Ping(
    socket,
    { host: PEER, count: 3, intervalMs: 2, size: 56, waitMs: 1000, timeoutMs: 5000, ...options },
    {
      reply: (reply) => replies.push(reply),
      icmpError: (error) => errors.push(printIcmpError(error)),
      sendError: (code) => errors.push(code),
    },
  );
  const statistics = await run.run();
  expect(socket.closed, 'closed').to.equal(true);
  return { socket, replies, errors, statistics };
}

describe('ping', () => {
  it('sends numbered echo requests with right checksums and one id per run', async () => {
    const { socket, replies, statistics } = await ping({}, (request, reply) =>
      reply(packet(answer(request), 61)),
    );
    // The tests' own decoder decodes the requests and verifies their checksums.
    const sent = socket.sent.map(
      (icmp) => decodeIp4(buildIp4({ src: US, dst: PEER }, 1, icmp)).icmp!,
    );
    expect(sent.map(({ type, seq }) => [type, seq])).to.deep.equal([
      [8, 0],
      [8, 1],
      [8, 2],
    ]);
    expect(new Set(sent.map(({ id }) => id)).size).to.equal(1);
    expect(sent[0]!.payload).to.have.lengthOf(56);
    expect(
      replies.map(({ seq, ttl, bytes, duplicate, wrong }) => [seq, ttl, bytes, duplicate, wrong]),
    ).to.deep.equal([0, 1, 2].map((seq) => [seq, 61, 64, false, null]));
    expect(statistics).to.include({ transmitted: 3, received: 3, duplicates: 0, late: 0 });
    const { min, avg, max, stddev } = statistics.rttMs!;
    expect(min).to.be.above(0).and.most(avg);
    expect(avg).to.be.most(max);
    expect(stddev).to.be.within(0, max - min);
  });

  it('ignores replies to other ids and sequence numbers, and malformed packets', async () => {
    const { replies, statistics } = await ping({ count: 1, waitMs: 30 }, (request, reply) => {
      const other = Buffer.from(request);
      other.writeUInt16BE(request.readUInt16BE(4) ^ 1, 4);
      reply(packet(answer(other)));
      const never = Buffer.from(request);
      never.writeUInt16BE(99, 6);
      reply(packet(answer(never)));
      reply(packet(request)); // our own request, looped back
      reply(Buffer.alloc(19));
      reply(packet(answer(request).subarray(0, 7)));
    });
    expect(replies).to.deep.equal([]);
    expect(statistics).to.deep.equal({
      transmitted: 1,
      received: 0,
      duplicates: 0,
      late: 0,
      rttMs: null,
    });
  });

  it('reports duplicates, changed bytes and late replies separately', async () => {
    const { replies, statistics } = await ping({ waitMs: 60, intervalMs: 5 }, (request, reply) => {
      const seq = request.readUInt16BE(6);
      const good = answer(request);
      if (seq === 0) for (let i = 0; i < 3; i++) reply(packet(good));
      if (seq === 1) {
        good[8 + 20] = 0xff;
        reply(packet(good));
      }
      if (seq === 2) reply(packet(good), 90);
    });
    expect(replies.map(({ seq, duplicate }) => [seq, duplicate])).to.deep.equal([
      [0, false],
      [0, true],
      [0, true],
      [1, false],
    ]);
    expect(replies[3]!.wrong).to.deep.equal({ at: 20, sent: 20, got: 0xff });
    expect(statistics).to.include({ transmitted: 3, received: 3, duplicates: 2, late: 1 });
  });

  it('prints ICMP errors in the words of ping', async () => {
    const about = (icmp: Uint8Array): Uint8Array => buildIp4({ src: US, dst: PEER }, 1, icmp);
    const { errors } = await ping({ count: 1, waitMs: 30 }, (request, reply) => {
      const error = (type: number, code: number, id = 0, seq = 0): void =>
        reply(packet(buildIcmp({ type, code, id, seq, payload: about(request) })));
      error(3, 1);
      error(3, 4, 0, 1400);
      error(11, 0);
      error(12, 0, 0x0900);
      error(3, 99);
      // An error about a request to another host.
      reply(
        packet(
          buildIcmp({
            type: 3,
            code: 1,
            payload: buildIp4({ src: US, dst: '192.0.2.9' }, 1, request),
          }),
        ),
      );
      reply(packet(buildIcmp({ type: 3, code: 1, payload: about(request).subarray(0, 27) })));
    });
    const of = `${8 + 20 + 64} bytes from ${PEER}: `;
    expect(errors).to.deep.equal([
      `${of}Destination Host Unreachable\n`,
      `${of}frag needed and DF set (MTU 1400)\n`,
      `${of}Time to live exceeded\n`,
      `${of}Parameter problem: pointer = 0x09\n`,
      `${of}Dest Unreachable, Bad Code: 99\n`,
    ]);
  });

  it('continues when a request cannot be sent, and ends at the timeout', async () => {
    const begin = performance.now();
    const { errors, statistics } = await ping({ count: 0, intervalMs: 10, timeoutMs: 100 }, () => {
      throw Object.assign(new Error('no'), { code: 'EHOSTDOWN' });
    });
    expect(performance.now() - begin).to.be.within(90, 1000);
    expect(statistics.transmitted).to.be.within(2, 11);
    expect(errors).to.have.lengthOf(statistics.transmitted);
    expect(errors[0]).to.equal('EHOSTDOWN');
    expect(errorCode(new Error('x'))).to.match(/x/);
  });

  it('makes requests of any size', () => {
    for (const size of [0, 1, 7, 8, 1472, 65507]) {
      const message = makeEcho(4, 0xffff, 65535, size);
      expect(message).to.have.lengthOf(8 + size);
      expect(icmpSum(message), 'sum over all is 0').to.equal(0);
      expect(patternMismatch(message.subarray(8), size)).to.equal(null);
    }
    expect(IcmpPacket.parse(packet(makeEcho(4, 1, 2, 0)))!.seq).to.equal(2);
  });

  it('sends ICMPv6 requests, and finds its own in errors, also behind a fragment header', async () => {
    const quote = (request: Buffer, fragment: Buffer | null): Buffer => {
      const ip6 = Buffer.alloc(40);
      ip6[0] = 0x60;
      ip6[6] = fragment === null ? 58 : 44;
      const head = Buffer.from([2, 0, 0, 0, 0, 0, 5, 0]);
      return Buffer.concat([head, ip6, fragment ?? Buffer.alloc(0), request.subarray(0, 8)]);
    };
    const first = Buffer.from([58, 0, 0, 1, 0, 0, 0, 9]);
    const second = Buffer.from([58, 0, 0, 8, 0, 0, 0, 9]);
    const { socket, replies, errors } = await ping({ host: PEER6, count: 4 }, (request, reply) => {
      const seq = request.readUInt16BE(6);
      if (seq === 0) {
        const echo = Buffer.from(request);
        echo[0] = 129;
        reply(echo);
      } else reply(quote(request, [null, first, second][seq - 1]!));
    });
    expect(socket.sent.map((m) => [m[0], m.readUInt16BE(2), m.length])).to.deep.equal(
      Array.from({ length: 4 }, () => [128, 0, 64]),
    );
    expect(replies).to.have.lengthOf(1);
    expect(replies[0]).to.include({ from: PEER6, seq: 0, bytes: 64, ttl: HOPS, wrong: null });
    const text = (bytes: number): string =>
      `${bytes} bytes from fe80::1%tn0: Packet too big mtu = 1280\n`;
    expect(errors).to.deep.equal([text(56), text(64)]);
    expect(printReply({ ...replies[0]!, timeMs: 0.5 })).to.equal(
      '64 bytes from fe80::1%tn0, icmp_seq=0 hlim=63 time=0.500 ms\n',
    );
    expect(printBegin(PEER6, 56, 'fe80::2%tn0')).to.equal(
      'PING(104=40+8+56 bytes) fe80::2%tn0 --> fe80::1%tn0\n',
    );
    expect(Icmp6Message.parse(Buffer.alloc(7), 64)).to.equal(null);
  });

  it('prints what ping prints', () => {
    expect(printBegin(PEER, 56)).to.equal('PING 192.0.2.1 (192.0.2.1): 56 data bytes\n');
    const reply: PingReply = {
      seq: 3,
      from: PEER,
      bytes: 64,
      ttl: 255,
      timeMs: 0.12345,
      duplicate: false,
      wrong: null,
    };
    const line = '64 bytes from 192.0.2.1: icmp_seq=3 ttl=255 time=0.123 ms';
    expect(printReply(reply)).to.equal(`${line}\n`);
    expect(printReply({ ...reply, duplicate: true, wrong: { at: 9, sent: 9, got: 10 } })).to.equal(
      `${line} (DUP!)\nwrong data byte #9 should be 0x9 but was 0xa\n`,
    );
    expect(printSendError('EHOSTDOWN')).to.equal('ping: sendto: Host is down\n');
    expect(printSendError('EIO')).to.equal('ping: sendto: EIO\n');
    const statistics: PingStatistics = {
      transmitted: 3,
      received: 2,
      duplicates: 1,
      late: 1,
      rttMs: { min: 0.1, avg: 0.25, max: 0.4, stddev: 0.15 },
    };
    expect(printStatistics(PEER, statistics)).to.equal(
      '\n--- 192.0.2.1 ping statistics ---\n' +
        '3 packets transmitted, 2 packets received, +1 duplicates, 33.3% packet loss, ' +
        '1 packets out of wait time\n' +
        'round-trip min/avg/max/stddev = 0.100/0.250/0.400/0.150 ms\n',
    );
    const none = { transmitted: 0, received: 0, duplicates: 0, late: 0, rttMs: null };
    expect(printStatistics(PEER, none)).to.equal(
      '\n--- 192.0.2.1 ping statistics ---\n0 packets transmitted, 0 packets received\n',
    );
    expect(lossPercent(none)).to.equal(0);
  });
});
