/** TCP Fast Open, RFC 7413. Wire formats are also in test/packetdrill/7413-*.pkt. */

import { expect } from 'chai';
import { IPPROTO_TCP } from '../../src/kern/protosw.ts';
import { type Socket, sosend } from '../../src/kern/uipc_socket.ts';
import { $optval, Sockopt, SOPT_SET } from '../../src/kern/sockopt.ts';
import { soGetInt, sosetopt, soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { TCP_FASTOPEN, tcp_fill_info } from '../../src/netinet/tcp_sockopt.ts';
import { EINVAL, ENOTCONN, EPERM } from '../../src/sys/errno.ts';
import { UIO_WRITE, Uio } from '../../src/vm/uio.ts';
import { buildIcmp, buildIp4, expectTx, flags, type TcpInfo } from '../support/frames.ts';
import { PEER, type Seg, sin, TestHost, US } from './tcp_host.ts';

/** SipHash-2-4 of 192.0.2.1 under the key 00 01 … 0f, least significant byte first. */
const COOKIE = 'e4f7cbc7544477c7';
/** The same of COOKIE under the pre-shared key 10 11 … 1f. */
const PSK_COOKIE = '09c5e6462557fdbf';
const KEY = '000102030405060708090a0b0c0d0e0f';
const PSK = '101112131415161718191a1b1c1d1e1f';

const fo = (cookie: string): number[] => {
  const bytes = [34, 2 + cookie.length / 2, ...Buffer.from(cookie, 'hex')];
  while (bytes.length % 4 !== 0) bytes.push(0);
  return [2, 4, 0x05, 0xb4, ...bytes];
};

describe('tcp: Fast Open (RFC 7413)', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());
  const sysctl = (leaf: string, v: string | number): number =>
    h.vnet.sysctl.write(`net.inet.tcp.fastopen.${leaf}`, String(v));
  const get = (leaf: string): unknown => h.vnet.sysctl.find(`net.inet.tcp.fastopen.${leaf}`)!.get();
  const enable = (so: Socket, v = 1): number => soSetInt(so, IPPROTO_TCP, TCP_FASTOPEN, v);

  describe('server', () => {
    /** A listener with Fast Open and the known key. */
    const server = (backlog = 8): Socket => {
      sysctl('server_enable', 1);
      sysctl('setkey', KEY);
      const head = h.listen(80, backlog);
      expect(enable(head)).to.equal(0);
      return head;
    };
    const syn = (cookie: string, more: Seg = {}): TcpInfo[] => {
      h.seg({ flags: 'S', seq: 100, options: fo(cookie), ...more });
      return h.take().map((f) => f.ip!.tcp!);
    };

    it('creates the connection of a SYN with a valid cookie and delivers its data', () => {
      const head = server();
      expect(syn(COOKIE, { payload: 'hello' })).to.eql([]);
      const so = h.accept(head);
      expect(h.state(so)).to.equal('SYN_RCVD');
      expect(h.read(so)).to.equal('hello');
      expect(soGetInt(so, IPPROTO_TCP, TCP_FASTOPEN)).to.equal(0);
      expect($optval.v).to.equal(1);
      // TCPI_OPT_TFO of sys/netinet/tcp.h.
      expect(tcp_fill_info(h.tp(so)).tcpi_options & 0x20).to.equal(0x20);
      h.write(so, 'world');
      const t = h.take()[0]!.ip!.tcp!;
      expect([t.flags, t.ack, t.fo, Buffer.from(t.payload).toString()]).to.eql([
        'S.',
        106,
        COOKIE,
        'world',
      ]);
      h.seg({ seq: 106, ack: t.seq + 6 });
      expect(h.state(so)).to.equal('ESTABLISHED');
      expect(h.stat.tcps_tfo_passive).to.equal(1);
    });

    it('sends answer and FIN of a program that closes before the handshake is complete', () => {
      const head = server();
      syn(COOKIE, { payload: 'GET' });
      const so = h.accept(head);
      h.read(so);
      h.write(so, 'answer');
      h.closeSocket(so);
      const t = h.take()[0]!.ip!.tcp!;
      expect([t.flags, t.payload.length]).to.eql(['S.', 6]);
      h.seg({ seq: 104, ack: t.seq + 7 });
      expectTx(h.sent, [flags('F.')]);
    });

    it('grants the newest cookie and accepts those of the two newest keys', () => {
      server();
      const cookieOf = (): string => syn('', { sport: 41000 })[0]!.fo!;
      expect(cookieOf()).to.equal(COOKIE);
      h.seg({ flags: 'R', seq: 101, sport: 41000 });
      sysctl('setkey', PSK);
      expect(cookieOf()).to.not.equal(COOKIE);
      expect(syn(COOKIE, { payload: 'x' })).to.eql([]);
      sysctl('setkey', '00'.repeat(16));
      expect(syn(COOKIE, { payload: 'x', sport: 40001 })[0]!.flags).to.equal('S.');
      expect([get('numkeys'), get('maxkeys'), get('keylen')]).to.eql([2, 2, 16]);
    });

    it('limits connections that are not established to half of the backlog', () => {
      const head = server(8);
      for (let i = 0; i < 4; i++)
        expect(syn(COOKIE, { payload: 'x', sport: 40000 + i }), String(i)).to.eql([]);
      const [over] = syn(COOKIE, { payload: 'x', sport: 40100 });
      expect([over!.flags, over!.ack, over!.fo]).to.eql(['S.', 101, undefined]);
      // One is reset, one is established: both make room.
      h.advance(40);
      const synAcks = h.take();
      h.seg({ flags: 'R', seq: 102, sport: 40000 });
      expect(syn(COOKIE, { payload: 'x', sport: 40101 })).to.eql([]);
      const t = synAcks.find((f) => f.ip!.tcp!.dport === 40001)!.ip!.tcp!;
      h.seg({ seq: 102, ack: t.seq + 1, sport: 40001 });
      expect(syn(COOKIE, { payload: 'x', sport: 40102 })).to.eql([]);
      // The one that was reset stays in the queue: accept reports it.
      expect(head.sol_comp).to.have.length(6);
    });

    it('psk_enable: accepts only the cookie hashed under the pre-shared key', () => {
      server();
      sysctl('psk_enable', 1);
      sysctl('setpsk', PSK);
      expect(syn(COOKIE, { payload: 'x' })[0]!.fo).to.equal(COOKIE);
      expect(syn(PSK_COOKIE, { payload: 'x', sport: 40001 })).to.eql([]);
      sysctl('psk_enable', 0);
      expect(get('numpsks')).to.equal(0);
    });

    it('acceptany: accepts any cookie', () => {
      server();
      sysctl('acceptany', 1);
      expect(syn('0123456789abcdef', { payload: 'x' })).to.eql([]);
    });

    it('autokey: generates a key when the server is enabled and after each interval', () => {
      sysctl('autokey', 2);
      sysctl('server_enable', 1);
      expect(get('numkeys')).to.equal(1);
      enable(h.listen(80));
      const first = syn('')[0]!.fo;
      h.advance(2000);
      expect(get('numkeys')).to.equal(2);
      expect(syn('', { sport: 40001 })[0]!.fo).to.not.equal(first);
      sysctl('server_enable', 0);
      expect(get('numkeys')).to.equal(0);
    });

    it('ignores a FIN in the SYN, a repeated SYN and data without ACK, and resets for a SYN-ACK', () => {
      const head = server();
      syn(COOKIE, { payload: 'x', flags: 'SF' });
      const so = h.accept(head);
      syn(COOKIE, { payload: 'x' });
      h.seg({ flags: '', seq: 102, payload: 'y' });
      expect(h.read(so)).to.equal('x');
      expect(h.state(so)).to.equal('SYN_RCVD');
      h.sent.length = 0;
      h.seg({ flags: 'S.', seq: 100, ack: 7 });
      expectTx(h.sent, [flags('R')]);
    });
  });

  describe('client', () => {
    const sendto = (so: Socket, text: string): number => {
      const bytes = Buffer.from(text);
      return sosend(so, new Uio().single(bytes, 0, bytes.length, UIO_WRITE), sin(PEER, 7), 0);
    };
    /** Sends `text` on a new socket. Returns it and the SYN. */
    const open = (text: string): { so: Socket; t: TcpInfo } => {
      const so = h.socket();
      expect(enable(so)).to.equal(0);
      expect(sendto(so, text)).to.equal(0);
      return { so, t: h.take()[0]!.ip!.tcp! };
    };
    const answer = (t: TcpInfo, acked: number, options?: number[]): TcpInfo[] => {
      const ack = (t.seq + 1 + acked) >>> 0;
      const fields = { flags: 'S.', seq: 900, ack, sport: 7, dport: t.sport, mss: 1460 };
      h.seg(options === undefined ? fields : { ...fields, options });
      return h.take().map((f) => f.ip!.tcp!);
    };
    const text = (t: TcpInfo): string => Buffer.from(t.payload).toString();

    it('requests a cookie, and sends data with it in the next SYN', () => {
      const first = open('abc');
      expect([first.t.fo, text(first.t)]).to.eql(['', '']);
      expect(answer(first.t, 0, fo(COOKIE)).map(text)).to.eql(['abc']);
      const { so, t } = open('defg');
      expect([t.flags, t.fo, text(t)]).to.eql(['S', COOKIE, 'defg']);
      const [a] = answer(t, 4);
      expect([a!.flags, a!.seq, text(a!)]).to.eql(['.', (t.seq + 5) >>> 0, '']);
      expect(h.state(so)).to.equal('ESTABLISHED');
      expect(so.so_snd.sb_ccc).to.equal(0);
      expect(h.stat.tcps_tfo_active).to.equal(1);
      // The cookie was not repeated and still works.
      expect(text(open('x').t)).to.equal('x');
    });

    it('sends again what the SYN-ACK does not acknowledge', () => {
      answer(open('a').t, 0, fo(COOKIE));
      const { t } = open('abcdef');
      const [rest] = answer(t, 2, fo(COOKIE));
      expect([rest!.flags, rest!.seq, text(rest!)]).to.eql(['P.', (t.seq + 3) >>> 0, 'cdef']);
    });

    it('retransmits the SYN without option and data, and the data after the SYN-ACK', () => {
      answer(open('a').t, 0, fo(COOKIE));
      const { t } = open('data');
      h.advance(1000);
      const again = h.take().find((f) => f.ip!.tcp!.sport === t.sport)!.ip!.tcp!;
      expect([again.flags, again.fo, text(again), again.seq]).to.eql(['S', undefined, '', t.seq]);
      expect(answer(t, 0).map(text)).to.eql(['data']);
      // Something on the path dropped the option: do without for path_disable_time.
      expect(open('b').t.fo).to.equal(undefined);
      h.advance(901_000);
      h.sent.length = 0;
      expect(open('c').t.fo).to.equal('');
    });

    it('limits the data of the SYN to one segment', () => {
      answer(open('a').t, 0, fo(COOKIE));
      const { t } = open('z'.repeat(4000));
      expect(t.payload.length + t.hlen).to.equal(1480);
      expect(answer(t, t.payload.length).reduce((n, s) => n + s.payload.length, 0)).to.equal(
        4000 - t.payload.length,
      );
    });

    it('disables the path for a cookie of a wrong length, no cookie, and an ICMP error', () => {
      for (const cookie of ['aabb', '001122334455667']) {
        answer(open('a').t, 0, fo(cookie.slice(0, cookie.length & ~1)));
        expect(open('b').t.fo, cookie).to.equal(undefined);
        sysctl('client_enable', 0);
        sysctl('client_enable', 1);
      }
      answer(open('a').t, 0);
      expect(open('b').t.fo).to.equal(undefined);
      expect(String(get('ccache_list'))).to.match(/192\.0\.2\.2 +192\.0\.2\.1 +7 +0 +900s/);
      sysctl('client_enable', 0);
      sysctl('client_enable', 1);
      const { t } = open('c');
      const quoted = new Uint8Array(28);
      quoted.set(buildIp4({ src: US, dst: PEER, df: true, len: 60 }, 6, new Uint8Array(8)));
      const view = new DataView(quoted.buffer);
      view.setUint16(20, t.sport);
      view.setUint16(22, 7);
      view.setUint32(24, t.seq);
      h.injectIp(
        buildIp4({ src: PEER, dst: US }, 1, buildIcmp({ type: 3, code: 3, payload: quoted })),
      );
      expect(open('d').t.fo).to.equal(undefined);
    });

    it('struct tcp_fastopen: hashes the cookie under the pre-shared key', () => {
      answer(open('a').t, 0, fo(COOKIE));
      const so = h.socket();
      const value = new Uint8Array(20);
      value[0] = 1;
      value.set(Buffer.from(PSK, 'hex'), 4);
      expect(sosetopt(so, new Sockopt(SOPT_SET, IPPROTO_TCP, TCP_FASTOPEN, value))).to.equal(0);
      expect(sendto(so, 'x')).to.equal(0);
      expect(h.take()[0]!.ip!.tcp!.fo).to.equal(PSK_COOKIE);
    });

    it('a send with an address connects without Fast Open too', () => {
      const so = h.socket();
      expect(h.write(so, 'abc')).to.equal(ENOTCONN);
      expect(sendto(so, 'abc')).to.equal(0);
      const t = h.take()[0]!.ip!.tcp!;
      expect([t.flags, t.fo, text(t)]).to.eql(['S', undefined, 'abc']);
      expect(answer(t, 0).map(text)).to.eql(['abc']);
    });

    it('has no part in a simultaneous open', () => {
      const { so, t } = open('abc');
      const back = { sport: 7, dport: t.sport };
      h.seg({ ...back, flags: 'S', seq: 300, mss: 1460 });
      expectTx(h.sent, [flags('S.')]);
      h.seg({ ...back, flags: 'S.', seq: 300, ack: t.seq + 1 });
      expect(h.state(so)).to.equal('ESTABLISHED');
    });

    it('the option is EPERM while both sides are off, and EINVAL on a connection', () => {
      const so = h.socket();
      sysctl('client_enable', 0);
      expect(enable(so)).to.equal(EPERM);
      sysctl('server_enable', 1);
      expect(enable(so)).to.equal(0);
      // The client stays off.
      expect(sendto(so, 'a')).to.equal(0);
      expect(h.take()[0]!.ip!.tcp!.fo).to.equal(undefined);
      expect(enable(h.establish().so)).to.equal(EINVAL);
    });
  });
});
