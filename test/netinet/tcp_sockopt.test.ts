import { expect } from 'chai';
import { IPPROTO_IP, IPPROTO_TCP } from '../../src/kern/protosw.ts';
import { $optval, Sockopt, SOPT_GET, SOPT_SET } from '../../src/kern/sockopt.ts';
import { SO_KEEPALIVE, soconnect, type Socket } from '../../src/kern/uipc_socket.ts';
import {
  SO_RCVBUF,
  sogetopt,
  soGetInt,
  SOL_SOCKET,
  sosetopt,
  soSetInt,
} from '../../src/kern/uipc_sockopt.ts';
import {
  IP_DONTFRAG,
  IP_MINTTL,
  IP_PORTRANGE,
  IP_TOS,
  IP_TTL,
} from '../../src/netinet/ip_ctloutput.ts';
import {
  TCP_CONGESTION,
  TCP_FASTOPEN,
  TCP_FUNCTION_BLK,
  TCP_INFO,
  TCP_INFO_SIZE,
  TCP_KEEPCNT,
  TCP_KEEPIDLE,
  TCP_KEEPINIT,
  TCP_KEEPINTVL,
  TCP_MAXSEG,
  TCP_MAXUNACKTIME,
  TCP_NODELAY,
  TCP_NOOPT,
  TCP_NOPUSH,
  type TcpInfo,
  tcpInfoOf,
} from '../../src/netinet/tcp_sockopt.ts';
import {
  ECONNRESET,
  EINVAL,
  ENOENT,
  ENOPROTOOPT,
  type Errno,
  ESRCH,
  ETIMEDOUT,
} from '../../src/sys/errno.ts';
import { expectTx, flags, payload, seq } from '../support/frames.ts';
import { type Conn, PEER, sin, TestHost } from './tcp_host.ts';

describe('tcp: socket options', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  const set = (so: Socket, name: number, v: number): Errno => soSetInt(so, IPPROTO_TCP, name, v);
  const get = (so: Socket, name: number): number => {
    expect(soGetInt(so, IPPROTO_TCP, name), `option ${name}`).to.equal(0);
    return $optval.v;
  };
  const setText = (name: number, text: string, size = text.length): Errno => {
    const val = new Uint8Array(size);
    val.set(Buffer.from(text));
    return sosetopt(c.so, new Sockopt(SOPT_SET, IPPROTO_TCP, name, val));
  };
  const getText = (name: number, size: number): string => {
    const sopt = new Sockopt(SOPT_GET, IPPROTO_TCP, name, new Uint8Array(size));
    expect(sogetopt(c.so, sopt)).to.equal(0);
    return Buffer.from(sopt.sopt_val.subarray(0, sopt.sopt_valsize)).toString('latin1');
  };
  const info = (so: Socket, size = TCP_INFO_SIZE): TcpInfo => {
    const sopt = new Sockopt(SOPT_GET, IPPROTO_TCP, TCP_INFO, new Uint8Array(size));
    expect(sogetopt(so, sopt)).to.equal(0);
    expect(sopt.sopt_valsize).to.equal(Math.min(size, TCP_INFO_SIZE));
    return tcpInfoOf(sopt.sopt_val.subarray(0, sopt.sopt_valsize));
  };

  it('has the option numbers of FreeBSD 14', () => {
    expect([TCP_NODELAY, TCP_MAXSEG, TCP_NOPUSH, TCP_NOOPT, TCP_INFO]).to.eql([1, 2, 4, 8, 32]);
    expect([TCP_CONGESTION, TCP_MAXUNACKTIME, TCP_FUNCTION_BLK]).to.eql([64, 68, 8192]);
    expect([TCP_KEEPINIT, TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT]).to.eql([128, 256, 512, 1024]);
    expect([IP_TOS, IP_TTL, IP_PORTRANGE, IP_MINTTL, IP_DONTFRAG]).to.eql([3, 4, 19, 66, 67]);
  });

  it('TCP_NOPUSH: holds a partial segment back until it is cleared', () => {
    expect(set(c.so, TCP_NOPUSH, 1)).to.equal(0);
    h.write(c.so, 'part');
    expectTx(h.sent);
    expect(set(c.so, TCP_NOPUSH, 0)).to.equal(0);
    expectTx(h.sent, [payload('part')]);
  });

  it('TCP_MAXSEG: can only lower the MSS', () => {
    expect(get(c.so, TCP_MAXSEG)).to.equal(1460);
    for (const v of [0, -1, 1461, 175]) expect(set(c.so, TCP_MAXSEG, v)).to.equal(EINVAL);
    expect(set(c.so, TCP_MAXSEG, 500)).to.equal(0);
    h.write(c.so, 'x'.repeat(700));
    expectTx(h.sent, [payload(500)], [payload(200)]);
  });

  it('TCP_NOOPT: sends no options in a SYN, nor in the SYN-ACK of a listener', () => {
    const so = h.socket();
    expect(set(so, TCP_NOOPT, 1)).to.equal(0);
    expect(soconnect(so, sin(PEER, 7))).to.equal(0);
    const syn = h.take()[0]!.ip!.tcp!;
    expect([syn.flags, syn.mss, syn.wscale, syn.ts]).to.eql(['S', undefined, undefined, undefined]);
    const head = h.listen(90);
    set(head, TCP_NOOPT, 1);
    h.seg({ flags: 'S', seq: 1, sport: 42000, dport: 90, mss: 1400, wscale: 5 });
    const t = h.take()[0]!.ip!.tcp!;
    expect([t.flags, t.mss, t.wscale, t.ts]).to.eql(['S.', undefined, undefined, undefined]);
  });

  it('TCP_KEEPIDLE, TCP_KEEPINTVL, TCP_KEEPCNT: set the keepalive times of one connection', () => {
    for (const [name, v] of [
      [TCP_KEEPIDLE, 10],
      [TCP_KEEPINTVL, 2],
      [TCP_KEEPCNT, 3],
      [TCP_KEEPINIT, 20],
    ] as const) {
      expect(set(c.so, name, v)).to.equal(0);
      expect(get(c.so, name)).to.equal(v);
    }
    expect(set(c.so, TCP_KEEPIDLE, 5_000_000)).to.equal(EINVAL);
    soSetInt(c.so, SOL_SOCKET, SO_KEEPALIVE, 1);
    h.vnet.sysctl.write('net.inet.tcp.always_keepalive', '0');
    h.advance(9_999);
    expectTx(h.sent);
    h.advance(1);
    expectTx(h.sent, [flags('.'), seq(c.ack - 1)]);
    h.advance(4_000);
    expect(h.take()).to.have.length(2);
    h.advance(2_000);
    expect(c.state).to.equal('CLOSED');
    expect(c.so.so_error).to.equal(ETIMEDOUT);
  });

  it('TCP_KEEPINIT: limits the time of a connection attempt', () => {
    const so = h.socket();
    expect(set(so, TCP_KEEPINIT, 4)).to.equal(0);
    expect(get(h.socket(), TCP_KEEPINIT)).to.equal(75);
    expect(soconnect(so, sin(PEER, 7))).to.equal(0);
    h.advance(3_999);
    expect(so.so_error).to.equal(0);
    h.advance(1);
    expect(so.so_error).to.equal(ETIMEDOUT);
  });

  it('accepted connections inherit the options of the listener', () => {
    const head = h.listen(92);
    set(head, TCP_KEEPIDLE, 33);
    set(head, TCP_NODELAY, 1);
    soSetInt(head, IPPROTO_IP, IP_TTL, 7);
    soSetInt(head, IPPROTO_IP, IP_TOS, 0x10);
    soSetInt(head, SOL_SOCKET, SO_KEEPALIVE, 1);
    sosetopt(
      head,
      new Sockopt(SOPT_SET, IPPROTO_TCP, TCP_CONGESTION, new Uint8Array(Buffer.from('newreno'))),
    );
    h.seg({ flags: 'S', seq: 1, sport: 42000, dport: 92 });
    const f = h.take()[0]!;
    expect([f.ip!.ttl, f.ip!.tos]).to.eql([7, 0x10]);
    h.seg({ seq: 2, ack: f.ip!.tcp!.seq + 1, sport: 42000, dport: 92 });
    const so = h.accept(head);
    expect([get(so, TCP_KEEPIDLE), get(so, TCP_NODELAY)]).to.eql([33, 4]);
    expect(h.tp(so).t_cc.name).to.equal('newreno');
    expect(soGetInt(so, SOL_SOCKET, SO_KEEPALIVE)).to.equal(0);
    expect($optval.v).to.equal(SO_KEEPALIVE);
    h.write(so, 'x');
    expect(h.take()[0]!.ip!.ttl).to.equal(7);
  });

  // RFC 5482; tcp(4).
  it('TCP_MAXUNACKTIME: drops a connection whose data stays unacknowledged that long', () => {
    expect(get(c.so, TCP_MAXUNACKTIME)).to.equal(0);
    expect(set(c.so, TCP_MAXUNACKTIME, 5)).to.equal(0);
    h.advance(60_000); // no data is in flight: no limit
    expect(c.state).to.equal('ESTABLISHED');
    h.write(c.so, 'a');
    h.advance(4_000);
    c.seg({ ack: c.ack + 1 });
    h.write(c.so, 'b');
    h.advance(4_500);
    expect(c.state).to.equal('ESTABLISHED');
    h.advance(10_000);
    expect(c.state).to.equal('CLOSED');
    expect(c.so.so_error).to.equal(ETIMEDOUT);
    expect(h.stat.tcps_progdrops).to.equal(1);
  });

  it('TCP_MAXUNACKTIME: progress restarts the time', () => {
    set(c.so, TCP_MAXUNACKTIME, 5);
    h.write(c.so, 'x'.repeat(2920));
    h.advance(4_000);
    c.seg({ ack: c.ack + 1460 });
    h.advance(4_500);
    expect(c.state).to.equal('ESTABLISHED');
    h.advance(20_000);
    expect(c.state).to.equal('CLOSED');
  });

  it('TCP_MAXUNACKTIME: a zero window counts too', () => {
    set(c.so, TCP_MAXUNACKTIME, 20);
    c.seg({ win: 0 });
    h.write(c.so, 'waits');
    h.advance(19_000);
    expect(c.state).to.equal('ESTABLISHED');
    h.advance(41_000);
    expect(c.state).to.equal('CLOSED');
    expect(h.stat.tcps_progdrops).to.equal(1);
  });

  it('TCP_CONGESTION, TCP_FUNCTION_BLK: get and set by name', () => {
    expect(getText(TCP_CONGESTION, 16)).to.equal('cubic\0');
    expect(setText(TCP_CONGESTION, 'newreno')).to.equal(0);
    expect(getText(TCP_CONGESTION, 4)).to.equal('newr');
    expect(setText(TCP_CONGESTION, 'vegas\0xx')).to.equal(ESRCH);
    expect(setText(TCP_CONGESTION, '')).to.equal(EINVAL);
    expect(getText(TCP_FUNCTION_BLK, 36).slice(0, 8)).to.equal('freebsd\0');
    expect(setText(TCP_FUNCTION_BLK, 'freebsd', 36)).to.equal(0);
    expect(setText(TCP_FUNCTION_BLK, 'rack', 36)).to.equal(ENOENT);
    expect(setText(TCP_FUNCTION_BLK, 'freebsd', 8)).to.equal(EINVAL);
  });

  it('TCP_INFO: returns state, options, times in microseconds, windows', () => {
    const x = h.establish({
      sport: 41000,
      dport: 81,
      wscale: 3,
      ts: { val: 7, ecr: 0 },
      sackOk: true,
    });
    const i = info(x.so);
    expect(i).to.deep.include({ tcpi_state: 4, tcpi_options: 7, tcpi_snd_wscale: 3 });
    expect(i.tcpi_snd_mss).to.equal(h.tp(x.so).t_maxseg);
    const plain = info(c.so);
    expect(plain).to.deep.include({
      tcpi_options: 0,
      tcpi_snd_wnd: 65535,
      tcpi_snd_mss: 1460,
      tcpi_snd_cwnd: 14600,
      tcpi_snd_nxt: c.ack,
      tcpi_snd_una: c.ack,
      tcpi_rcv_nxt: c.seq,
      tcpi_snd_rexmitpack: 0,
    });
    h.write(c.so, 'x');
    h.advance(100);
    c.seg({ ack: c.ack + 1 });
    h.advance(50);
    const later = info(c.so);
    // A first RTT sample of 100 ms after the handshake's 0.
    expect(later.tcpi_rtt).to.be.within(1000, 101_000);
    expect(later.tcpi_last_data_recv).to.equal(50_000);
    expect(later.tcpi_rto).to.equal(h.tp(c.so).t_rxtcur * 1000);
    h.write(c.so, 'y');
    h.advance(1000);
    expect(info(c.so).tcpi_snd_rexmitpack).to.be.at.least(1);
    c.seg({ seq: c.seq + 10, payload: 'ahead' });
    expect(info(c.so)).to.deep.include({ tcpi_rcv_ooopack: 1 });
    expect(info(c.so, 1).tcpi_state).to.equal(4);
    expect(set(c.so, TCP_INFO, 1)).to.equal(EINVAL);
  });

  it('IP_TTL, IP_TOS, IP_PORTRANGE: get, set, and refuse values out of range', () => {
    const ip = (name: number, v: number): Errno => soSetInt(c.so, IPPROTO_IP, name, v);
    const read = (name: number): number => {
      expect(soGetInt(c.so, IPPROTO_IP, name)).to.equal(0);
      return $optval.v;
    };
    expect(read(IP_TTL)).to.equal(64);
    // As in FreeBSD, the low byte of any value.
    expect(ip(IP_TTL, 256 + 7)).to.equal(0);
    expect(read(IP_TTL)).to.equal(7);
    for (const [name, v] of [
      [IP_TTL, 255],
      [IP_TOS, 0x28],
      [IP_PORTRANGE, 1],
      [IP_PORTRANGE, 2],
      [IP_PORTRANGE, 0],
    ] as const) {
      expect(ip(name, v)).to.equal(0);
      expect(read(name)).to.equal(v);
    }
    expect(ip(IP_PORTRANGE, 3)).to.equal(EINVAL);
    h.write(c.so, 'x');
    const f = h.take()[0]!;
    expect([f.ip!.ttl, f.ip!.tos]).to.eql([255, 0x28]);
    expect(ip(99, 1)).to.equal(ENOPROTOOPT);
    expect(soGetInt(c.so, IPPROTO_IP, 99)).to.equal(ENOPROTOOPT);
  });

  it('refuses unknown options, and options of a dead connection', () => {
    expect(set(c.so, 3, 1)).to.equal(ENOPROTOOPT);
    expect(soGetInt(c.so, IPPROTO_TCP, 16)).to.equal(ENOPROTOOPT);
    expect(set(c.so, TCP_FASTOPEN, 1)).to.equal(EINVAL);
    expect(soSetInt(c.so, 41, 27, 1)).to.equal(EINVAL); // IPPROTO_IPV6 on an IPv4 socket
    c.seg({ flags: 'R' });
    expect(set(c.so, TCP_NODELAY, 1)).to.equal(ECONNRESET);
    expect(soSetInt(c.so, SOL_SOCKET, SO_RCVBUF, 4096)).to.equal(0);
  });
});
