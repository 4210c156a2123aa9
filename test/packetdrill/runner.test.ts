import { expect } from 'chai';
import { runShim } from '../../src/packetdrill/shim.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { netAttach, netDetach } from '../../src/net/net_attach.ts';
import { inet_domain_attach, inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { bootMachine } from '../support/machine.ts';
import { parseScript, type TcpSpec } from './parser.ts';
import { runScript } from './runner.ts';

const OPEN = [
  '// RFC 9293: a script.',
  '0 socket(..., SOCK_STREAM, IPPROTO_TCP) = 3',
  '+0 bind(3, ..., ...) = 0',
  '+0 listen(3, 1) = 0',
  '+0 < S 0:0(0) win 65535 <mss 1000>',
  '+0 > S. 0:0(0) ack 1 win 65535 <mss 1460>',
  '+.1 < . 1:1(0) ack 1 win 65535',
  '+0 accept(3, ..., ...) = 4',
];

/** Runs the lines of OPEN followed by `lines`. */
const run = (...lines: string[]): void => runScript('t.pkt', [...OPEN, ...lines, ''].join('\n'));
const fails = (message: string | RegExp, ...lines: string[]): void => {
  expect(() => run(...lines)).to.throw(message);
};

describe('packetdrill parser', () => {
  const packet = (text: string): TcpSpec => parseScript('t.pkt', text).events[0]!.what as TcpSpec;

  it('parses times, packets and options', () => {
    const { events, options, title } = parseScript(
      't.pkt',
      '// A title.\n--tolerance_usecs=10\n/* more */ 0.5 `a` * > . 1:1(0) ack 1\n+.1~+.2 > [ect0] SEW 1 > 2 5:7(2)'.replace(
        'SEW 1 > 2',
        '1 > 2 SEW',
      ),
    );
    expect(title).to.equal('A title.');
    expect(options.get('tolerance_usecs')).to.equal('10');
    expect(events.map(({ when }) => [when.any, when.rel, when.us, when.toUs])).to.deep.equal([
      [false, false, 500_000, null],
      [true, true, 0, null],
      [false, true, 100_000, 200_000],
    ]);
    const last = events[2]!.what as TcpSpec;
    expect(last.flags).to.equal('SEW');
    expect(last.ports).to.deep.equal([1, 2]);
    expect(last.ip.ecn).to.equal('ect0');
    expect(packet('0 > . 1:1(0) ack 1 <nop,nop,sack 1:2 3:4>').options).to.deep.equal([
      { kind: 'nop' },
      { kind: 'nop' },
      {
        kind: 'sack',
        blocks: [
          [1, 2],
          [3, 4],
        ],
      },
    ]);
    expect(packet('0 > . 1:1(0) ack 1 <...>').options).to.equal(null);
  });

  const bad: [string, string, string][] = [
    ['a length that does not match', '0 > . 1:3(1) ack 1', 't.pkt:1:7: 1:3 is not 1 bytes'],
    ['an ACK without the flag', '0 > S 1:1(0) ack 1', "t.pkt:1:5: flag '.' and ack go together"],
    ['an unknown option', '--fast=1\n0 `a`', 't.pkt:1:1: --fast: not an option'],
    ['an unknown TCP option', '0 > . 1:1(0) ack 1 <md5>', 't.pkt:1:21: md5: not a TCP option'],
    ['an unknown symbol', '0 socket(SOCK_X) = 3', 't.pkt:1:10: SOCK_X: unknown symbol'],
    ['a comment without an end', '/* a\n', 't.pkt:1:1: a comment without an end'],
    ['Python', '0 %{ pass }%', 't.pkt:1:3: Python blocks'],
    ['a missing time', '> . 1:1(0) ack 1', "t.pkt:1:1: a time expected, not '>'"],
    ['a shell line without an end', '0 `true', "t.pkt:1:3: a '`' without its end"],
    ['the end of the script', '0 >', 't.pkt:1:4: TCP flags expected, not the end of the script'],
    [
      'a received packet without a window',
      '\n  0 < . 1:1(0) ack 1',
      't.pkt:2:21: a received packet needs a win',
    ],
    ['an errno without -1', '0 read(3) = 0 EINVAL', 't.pkt:1:21: EINVAL goes with -1'],
  ];
  for (const [what, text, message] of bad)
    it(`reports line and column of ${what}`, () => {
      expect(() => parseScript('t.pkt', text)).to.throw(message);
    });
});

describe('packetdrill runner', () => {
  it('runs a script', () => run('+0 write(4, ..., 10) = 10', '+0 > P. 1:11(10) ack 1'));

  it('reports each field of a sent packet that differs', () => {
    const write = '+0 write(4, ..., 10) = 10';
    fails('t.pkt:10:1: flags P., not .\n', write, '+0 > . 1:11(10) ack 1');
    fails('seq 1, not 2', write, '+0 > P. 2:12(10) ack 1');
    fails('length 10, not 9', write, '+0 > P. 1:10(9) ack 1');
    fails('ack 1, not 2', write, '+0 > P. 1:11(10) ack 2');
    fails('win 65535, not 1', write, '+0 > P. 1:11(10) ack 1 win 1');
    fails('ECN bits 0, not ect0', write, '+0 > [ect0] P. 1:11(10) ack 1');
    fails('ttl 64, not 63', write, '+0 > [ttl 63] P. 1:11(10) ack 1');
    fails('options <>, not <nop,nop>', write, '+0 > P. 1:11(10) ack 1 <nop,nop>');
  });

  it('reports a packet at the wrong time, a missing one and an unexpected one', () => {
    const write = '+0 write(4, ..., 10) = 10';
    fails('t.pkt:9:1: no packet was sent by 0.100000', '+0 > P. 1:11(10) ack 1');
    fails('sent at 0.100000, not 0.200000', write, '+.1 > P. 1:11(10) ack 1');
    fails('unexpected packets after this:\n  sent at 0.100000: P. 1:11(10)', write);
  });

  it('reports results, errnos and values that differ', () => {
    fails('t.pkt:9:1: write: 10, not 9', '+0 write(4, ..., 10) = 9');
    fails('read: -1 EBADF, not -1 EAGAIN', '+0 read(9, ..., 10) = -1 EAGAIN');
    fails('ioctl: the value is 0, not 5', '+0 ioctl(4, SIOCINQ, [5]) = 0');
    fails('read blocks', '+0 read(4, ..., 10) = 10');
    fails('has not returned', '+0...0.5 read(4, ..., 10) = 10');
    fails(
      'returned at 0.200000, not 0.600000',
      '+0...0.5 read(4, ..., 10) = 10',
      '+.1 < P. 1:11(10) ack 1 win 1',
    );
    fails('sendfile: not a call of this runner', '+0 sendfile(4, ..., 10) = 10');
  });

  it('reports commands that fail', () => {
    fails("exit status 1: sysctl: unknown oid 'net.nothing'", '+0 `sysctl -w net.nothing=1`');
    fails('exit status 1; there was', '+0 `sockstat -4 -P tcp -s | grep CLOSING`');
    fails('only grep', '+0 `sockstat | wc`');
    fails('exit status 127', '+0 `reboot`');
  });

  it('refuses to echo a timestamp that was never sent', () => {
    fails('ecr 7: no packet sent had that TS val', '+0 < . 1:1(0) ack 1 win 1 <TS val 1 ecr 7>');
  });
});

describe('packetdrill commands', () => {
  bootMachine();
  const vnet = vnet_alloc(new SeededPrng(1));
  netAttach(vnet);
  inet_domain_attach(vnet);
  after(() => {
    netDetach(vnet);
    inet_domain_detach(vnet);
  });
  const shim = (line: string): ReturnType<typeof runShim> => runShim({ vnet }, line.split(' '));

  it('sysctl reads, writes, and fails as in FreeBSD', () => {
    expect(shim('sysctl net.inet.tcp.msl').out).to.equal('net.inet.tcp.msl: 30000\n');
    expect(shim('sysctl -w net.inet.tcp.msl=100').out).to.equal('net.inet.tcp.msl: 30000 -> 100\n');
    expect(shim('sysctl -n net.inet.tcp.msl').out).to.equal('100\n');
    expect(shim('sysctl -i net.no')).to.deep.equal({ status: 0, out: '', err: '' });
    expect(shim('sysctl net.inet.tcp.msl=x').status).to.equal(1);
    expect(shim('sysctl').status).to.equal(1);
  });

  it('ifconfig lists and sets; tcpdrop and sockstat refuse unknown arguments', () => {
    expect(shim('ifconfig lo0').out).to.match(/^lo0: flags=/);
    expect(shim('ifconfig lo0 mtu 1400')).to.deep.equal({ status: 0, out: '', err: '' });
    expect(shim('ifconfig lo0').out).to.match(/mtu 1400/);
    expect(shim('ifconfig nope').status).to.equal(1);
    expect(shim('tcpdrop -s NOWHERE').status).to.equal(1);
    expect(shim('tcpdrop 192.0.2.1 1 192.0.2.2 2').err).to.equal('tcpdrop: no such connection\n');
    expect(shim('sockstat -z').status).to.equal(1);
    expect(shim('sockstat -4 -P tcp -s').out).to.match(/^USER .*STATE\n$/);
  });
});
