/** Patterns of frames: packetdrill lines and objects. */

import { expect } from 'chai';
import { TapnicError } from '../../src/index.ts';
import { filterOf } from '../../src/testing/chatter.ts';
import { Conversations } from '../../src/testing/conversations.ts';
import { decodeFrame } from '../../src/testing/decode.ts';
import type { Frame } from '../../src/testing/frame.ts';
import { differenceOf, type FrameLike, patternOf } from '../../src/testing/pattern.ts';
import { sideBySide } from '../../src/testing/side_by_side.ts';
import {
  buildArp,
  buildEther,
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
} from '../support/frames.ts';
import type { TcpFields } from '../support/frames.ts';

const A = { src: '192.0.2.1', dst: '192.0.2.2' };
const B = { src: '192.0.2.2', dst: '192.0.2.1' };
const ETHER = { src: '02:00:00:00:00:01', dst: '02:00:00:00:00:02' };
const PORTS = { sport: 40_000, dport: 80 };

function frame(
  packet: Uint8Array,
  direction: 'out' | 'in' = 'out',
  numbers?: Conversations,
): Frame {
  return decodeFrame(buildEther(ETHER, 0x0800, packet), direction, 0, numbers);
}

function tcp(fields: Partial<TcpFields>): Frame {
  return frame(buildTcp(A, { ...PORTS, ...fields }));
}

function difference(f: Frame, like: FrameLike): string | null {
  return differenceOf(f, patternOf('test', like));
}

function messageOf(like: unknown): string {
  try {
    patternOf('expectFrames', like as FrameLike);
  } catch (e) {
    expect(e).to.be.instanceOf(TapnicError);
    const { code, syscall, message } = e as TapnicError;
    expect([code, syscall]).to.deep.equal(['EINVAL', 'expectFrames']);
    return message;
  }
  return 'accepted';
}

describe('testing: lines of frames', () => {
  it('match TCP segments by each field that they name', () => {
    const options = { mss: 1460, wscale: 6, ts: { val: 7, ecr: 0 } };
    const syn = tcp({ flags: 'S', win: 100, ...options });
    const names = syn.tcp!.options.join(',');
    for (const line of ['> S', '> S 0:0(0)', '> S win 100', '> S <...>', `> S 0:0(0) <${names}>`])
      expect(difference(syn, line), line).to.equal(null);
    expect(difference(syn, `> S <${names.replace('val 7', 'val *')}>`)).to.equal(null);
    expect(difference(syn, '< S')).to.equal('direction is out, not in');
    expect(difference(syn, '> S.')).to.equal('flags is S, not S.');
    expect(difference(syn, '> S 1:1(0)')).to.equal('seq is 0, not 1');
    expect(difference(syn, '> S win 99')).to.equal('win is 100, not 99');
    expect(difference(syn, '> S <mss 1460>')).to.match(/^options are \[mss 1460,/);
    const data = tcp({ flags: 'P.', seq: 5, ack: 9, payload: 'hi' });
    expect(difference(data, '> .P 5:7(2) ack 9 "hi"')).to.equal(null);
    expect(difference(data, '> P. ack *')).to.equal(null);
    expect(difference(data, '> P. 5:8(3) ack 9')).to.equal('length is 2, not 3');
    expect(difference(data, '> P. "ho"')).to.equal('the payload is another one');
    expect(difference(data, '> udp (2)')).to.equal('protocol is tcp, not udp');
  });

  it('match UDP, ICMP and ARP', () => {
    const udp = frame(buildUdp(A, { ...PORTS, payload: 'abc' }));
    expect(difference(udp, '> udp (3) "abc"')).to.equal(null);
    expect(difference(udp, '> udp')).to.equal(null);
    expect(difference(udp, '> udp (4)')).to.equal('length is 3, not 4');
    const echo = frame(buildIp4(A, 1, buildIcmp({ type: 8, id: 1, seq: 2 })));
    expect(difference(echo, '> icmp echo_request')).to.equal(null);
    expect(difference(echo, '> icmp 8 0')).to.equal(null);
    expect(difference(echo, '> icmp unreachable port_unreachable')).to.equal(
      'icmpType is 8, not 3',
    );
    const who = { op: 1, sha: ETHER.src, spa: A.src, tha: '00:00:00:00:00:00', tpa: A.dst };
    const arp = decodeFrame(buildArp(ETHER, who), 'in', 0);
    expect(difference(arp, '< arp request 192.0.2.2')).to.equal(null);
    expect(difference(arp, '< arp request 192.0.2.9')).to.equal(
      'target is 192.0.2.2, not 192.0.2.9',
    );
    expect(difference(arp, '< arp reply')).to.equal('arpOp is 1, not 2');
  });

  it('count from the first number of each direction of a connection', () => {
    const numbers = new Conversations();
    const back = { sport: 80, dport: 40_000 };
    const top = 0xffff_ffff;
    frame(buildTcp(A, { ...PORTS, flags: 'S', seq: top }), 'out', numbers);
    const synAck = frame(buildTcp(B, { ...back, flags: 'S.', seq: 1000, ack: 0 }), 'in', numbers);
    expect(difference(synAck, '< S. 0:0(0) ack 1')).to.equal(null);
    const data = { ...PORTS, flags: 'P.', seq: 0, ack: 1001, payload: 'abc' };
    const sent = frame(buildTcp(A, data), 'out', numbers);
    expect(difference(sent, '> P. 1:4(3) ack 1')).to.equal(null);
    // Another connection of the same ports begins at 0 again.
    const again = frame(buildTcp(A, { ...PORTS, flags: 'S', seq: 5_000_000 }), 'out', numbers);
    expect(difference(again, '> S 0:0(0)')).to.equal(null);
    // A connection that began before the log.
    const late = { sport: 9, dport: 80, flags: '.', seq: 77, ack: 88 };
    expect(difference(frame(buildTcp(A, late), 'out', numbers), '> . 1:1(0) ack 1')).to.equal(null);
  });

  it('say what is wrong with a line, and where', () => {
    expect(messageOf('S 0:0(0)')).to.include('`S 0:0(0)`: at `S 0:0(0)`: `<` or `>` is needed');
    expect(messageOf('>')).to.include('`<` or `>` is needed');
    expect(messageOf('> X')).to.include('at `X`: flags such as S. or one of udp');
    expect(messageOf('> SS')).to.include('a flag is repeated');
    expect(messageOf('> S 0:5(3)')).to.include('0 and 3 bytes are 3, not 5');
    expect(messageOf('> S win ten')).to.include('at `win ten`: nothing more is expected');
    expect(messageOf('> icmp echo')).to.include('echo: none of echo_reply');
    expect(messageOf('> icmp unreachable nowhere')).to.include('nowhere: none of net_unreachable');
    expect(messageOf('> arp')).to.include('at the end: request or reply is needed');
    expect(messageOf('> P. "a')).to.include('nothing more is expected');
    expect(messageOf('> P. "\\x"')).to.include('the escapes of JSON');
    expect(messageOf('0.5 > S')).to.include('`<` or `>` is needed');
    expect(messageOf('')).to.include('at the end');
  });
});

describe('testing: objects as patterns', () => {
  it('match each field', () => {
    const f = tcp({ flags: 'P.', seq: 1, ack: 2, win: 3, payload: 'GET /x' });
    const fields = {
      direction: 'out',
      protocol: 'tcp',
      ...A,
      ...PORTS,
      ttl: 64,
      length: 6,
    } as const;
    expect(difference(f, { ...fields, flags: '.P', seq: 1, ack: 2, win: 3 })).to.equal(null);
    expect(difference(f, { port: 80, payload: /^GET/, test: (g) => g.ttl === 64 })).to.equal(null);
    expect(difference(f, { payload: Buffer.from('GET /x') })).to.equal(null);
    // A global expression keeps its place.
    const global = /GET/g;
    for (let i = 0; i < 2; i++) expect(difference(f, { payload: global })).to.equal(null);
    expect(difference(f, { port: 81 })).to.equal('neither port is 81');
    expect(difference(f, { src: B.src })).to.equal('src is 192.0.2.1, not 192.0.2.2');
    expect(difference(f, { test: () => false })).to.equal('test returns false');
    expect(difference(f, { icmpType: 8 })).to.equal('icmpType is absent, not 8');
    expect(difference(f, {})).to.equal(null);
  });

  it('say which field is wrong', () => {
    expect(messageOf({ nonesuch: 1 })).to.include('nonesuch: none of direction, protocol');
    expect(messageOf({ seq: '1' })).to.include("seq: '1': a number from 0 is needed");
    expect(messageOf({ seq: -1 })).to.include('seq: -1');
    expect(messageOf({ src: 5 })).to.include('src: 5: a text is needed');
    expect(messageOf({ flags: 'SYN' })).to.include("flags: 'SYN': each of FSRP.UEWe at most once");
    expect(messageOf({ direction: 'up' })).to.include("'out' or 'in'");
    expect(messageOf({ protocol: 'http' })).to.include('tcp, udp');
    expect(messageOf({ options: 'mss' })).to.include('an array of texts');
    expect(messageOf({ payload: 3 })).to.include('a text, a Uint8Array or a regular expression');
    expect(messageOf({ test: true })).to.include('a function');
    for (const value of [null, 5, undefined, [], true])
      expect(messageOf(value)).to.include('a packetdrill line or an object');
    expect(messageOf({ seq: undefined })).to.equal('accepted');
  });
});

describe('testing: filters of chatter', () => {
  const arp = decodeFrame(
    buildArp(ETHER, { op: 1, sha: ETHER.src, spa: A.src, tha: ETHER.dst, tpa: A.dst }),
    'in',
    0,
  );
  const mdns = frame(buildUdp(A, { sport: 5353, dport: 5353 }), 'in');

  it('ignore what their names say', () => {
    expect(filterOf('test', 'chatter')(arp)).to.equal('arp');
    expect(filterOf('test', 'chatter')(mdns)).to.equal('discovery');
    expect(filterOf('test', ['nd', 'dhcp'])(arp)).to.equal(null);
    expect(filterOf('test', 'none')(arp)).to.equal(null);
    expect(filterOf('test', (f) => f === arp)(arp)).to.equal('ignore');
    expect(filterOf('test', 'chatter')(tcp({}))).to.equal(null);
    expect(() => filterOf('test', 'apr' as 'arp')).to.throw(
      TapnicError,
      'ignore: apr: none of arp',
    );
  });
});

describe('testing: side by side', () => {
  const picture = (a: string[], b: string[]): string[] =>
    sideBySide(a, b, (i, j) => a[i] === b[j])
      .split('\n')
      .slice(1)
      .map((line) => line.replace(/ +/g, ' '));

  it('aligns equal lines and marks the others', () => {
    expect(picture(['a', 'b', 'c'], ['a', 'c'])).to.deep.equal([
      ' a | a',
      '! b | (nothing)',
      ' c | c',
    ]);
    expect(picture(['a', 'x', 'c'], ['a', 'y', 'c', 'd'])).to.deep.equal([
      ' a | a',
      '! x | y',
      ' c | c',
      '! (nothing) | d',
    ]);
    expect(picture([], [])).to.deep.equal([]);
  });

  it('continues long lines, and has a limit of its work', () => {
    const long = `${'w'.repeat(40)} ${'v'.repeat(40)}`;
    expect(picture([long], ['a'])).to.deep.equal([
      `! ${'w'.repeat(40)} | a`,
      `! ${'v'.repeat(40)} |`,
    ]);
    const many = Array.from({ length: 2000 }, (_, i) => String(i));
    expect(picture(many, many)).to.have.lengthOf(2000);
  });
});
