import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import {
  EAFNOSUPPORT,
  EADDRINUSE,
  ECONNABORTED,
  EINVAL,
  EISCONN,
  ENOBUFS,
  ENOTCONN,
  EOPNOTSUPP,
  EPIPE,
  EPROTONOSUPPORT,
  EPROTOTYPE,
  EWOULDBLOCK,
} from '../../src/sys/errno.ts';
import { inAddr, port } from '../../src/sys/types.ts';
import { counted, R_SO_LISTEN_OVERFLOW } from '../../src/sys/reason.ts';
import { mbufZones } from '../../src/kern/kern_mbuf.ts';
import { Sockaddr } from '../../src/kern/sockaddr.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import {
  AF_INET,
  AF_INET6,
  MSG_DONTWAIT,
  MSG_OOB,
  MSG_PEEK,
  SOCK_DGRAM,
  SOCK_STREAM,
} from '../../src/kern/protosw.ts';
import { ioResult, soRead, soRecv, soWrite } from '../../src/kern/sys_generic.ts';
import { sbappendstream, sbavail, sbused } from '../../src/kern/uipc_sockbuf.ts';
import {
  SHUT_RD,
  SHUT_RDWR,
  SHUT_WR,
  SO_RCV,
  SO_SND,
  soabort,
  soaccept,
  soclose,
  soconnect,
  socreate,
  soisconnected,
  socantrcvmore,
  solisten,
  sonewconn,
  sorele,
  soref,
  soreserve,
  soResult,
  sorwakeup,
  soshutdown,
  type Socket,
  soStats,
  soTakeError,
  soupcall_set,
  SS_ISCONNECTED,
} from '../../src/kern/uipc_socket.ts';
import { SO_RCVLOWAT, SO_SNDLOWAT, SOL_SOCKET, soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { payloadBytesRead, READ_COPY } from '../../src/vm/payload.ts';
import { soDiscard } from '../../src/kern/uipc_move.ts';
import { bootEach } from './boot.ts';
import { chainBytes, must, pgsMbuf } from './chains.ts';
import { fileBytes } from './disk.ts';
import { connectedSocket, dropConnection, Peer, pcbOf, TestProto, testVnet } from './testproto.ts';
import { runUpcalls } from '../support/machine.ts';

const nam = new Sockaddr();
nam.family = AF_INET;
nam.port = port(80);
nam.set(inAddr(0xc0000201));

function listener(backlog: number, vnet = testVnet()): Socket {
  expect(socreate(vnet, AF_INET, SOCK_STREAM, 0)).to.equal(0);
  const so = must(soResult.so);
  expect(soreserve(so, 8192, 8192)).to.equal(0);
  expect(solisten(so, backlog)).to.equal(0);
  return so;
}

describe('uipc_socket: create, connect, close', () => {
  bootEach();

  it('socreate: EAFNOSUPPORT, EPROTOTYPE, EPROTONOSUPPORT, or the error of pr_attach', () => {
    const proto = new TestProto();
    const vnet = testVnet(proto);
    expect(socreate(vnet, AF_INET6, SOCK_STREAM, 0)).to.equal(EAFNOSUPPORT);
    expect(socreate(vnet, AF_INET, SOCK_DGRAM, 0)).to.equal(EPROTOTYPE);
    expect(socreate(vnet, AF_INET, SOCK_STREAM, 99)).to.equal(EPROTONOSUPPORT);
    proto.attachError = ENOBUFS;
    expect(socreate(vnet, AF_INET, SOCK_STREAM, 0)).to.equal(ENOBUFS);
    expect(soStats.current).to.equal(0);
  });

  it('soreserve: ENOBUFS above kern.ipc.maxsockbuf; sets the send low-water mark', () => {
    const so = connectedSocket(65_536);
    expect(so.so_snd.sb_lowat).to.equal(2048);
    expect(soreserve(so, 4 << 20, 100)).to.equal(ENOBUFS);
    expect(machineSysctl.tree.write('kern.ipc.maxsockbuf', String(8 << 20))).to.equal(0);
    expect(soreserve(so, 4 << 20, 100)).to.equal(0);
    soclose(so);
  });

  it('soconnect: EISCONN, EOPNOTSUPP on a listener', () => {
    const so = connectedSocket();
    expect(soconnect(so, nam)).to.equal(EISCONN);
    expect(solisten(so, 1)).to.equal(EINVAL);
    soclose(so);
    const head = listener(1);
    expect(soconnect(head, nam)).to.equal(EOPNOTSUPP);
    soclose(head);
  });

  it('a closed socket stays allocated while an I/O holds a reference', () => {
    const so = connectedSocket();
    soref(so);
    soclose(so);
    expect(so.so_pcb).to.not.equal(null);
    expect(soStats.current).to.equal(1);
    sorele(so);
    expect(so.so_pcb).to.equal(null);
    expect(soStats.current).to.equal(0);
  });

  it('panics when closed twice', () => {
    const so = connectedSocket();
    soref(so);
    soclose(so);
    expect(() => soclose(so)).to.throw('closed already');
    sorele(so);
  });
});

describe('uipc_socket: listening', () => {
  bootEach();

  it('accepts in order, then EWOULDBLOCK', () => {
    const head = listener(5);
    let called = 0;
    head.sol_upcall = { run: () => void called++ };
    const a = must(inPass(sonewconn, head, SS_ISCONNECTED));
    const b = must(sonewconn(head, 0));
    runUpcalls();
    expect(called).to.equal(1);
    inPass(soisconnected, b);
    inPass(soisconnected, b); // a second call has no effect
    runUpcalls();
    expect(called).to.equal(2);
    expect([soaccept(head), soResult.so]).to.eql([0, a]);
    expect([soaccept(head), soResult.so]).to.eql([0, b]);
    expect(soaccept(head)).to.equal(EWOULDBLOCK);
    // A connection that ended before it was accepted.
    const dead = must(inPass(sonewconn, head, SS_ISCONNECTED));
    dropConnection(dead, EPIPE);
    const alive = soStats.current;
    expect(soaccept(head)).to.equal(ECONNABORTED);
    expect(soStats.current).to.equal(alive - 1);
    expect(soaccept(head)).to.equal(EWOULDBLOCK);
    expect(soaccept(a)).to.equal(EINVAL);
    for (const so of [a, b, head]) soclose(so);
  });

  it('queues 3/2 of the backlog plus one connections, then counts an overflow', () => {
    for (const [backlog, room] of [
      [0, 1],
      [2, 4],
      [5, 8],
    ]) {
      const head = listener(backlog!);
      const before = counted(R_SO_LISTEN_OVERFLOW);
      for (let i = 0; i < room!; i++) must(sonewconn(head, i % 2 === 0 ? SS_ISCONNECTED : 0));
      expect(sonewconn(head, 0)).to.equal(null);
      expect(counted(R_SO_LISTEN_OVERFLOW)).to.equal(before + 1);
      soclose(head);
      expect(soStats.current).to.equal(0);
    }
  });

  it('the backlog is clipped to kern.ipc.soacceptqueue', () => {
    const { tree } = machineSysctl;
    expect(tree.write('kern.ipc.somaxconn', '7')).to.equal(0);
    expect(tree.find('kern.ipc.soacceptqueue')!.get()).to.equal(7);
    for (const asked of [-1, 8, 100]) {
      const head = listener(asked);
      expect(head.sol_qlimit).to.equal(7);
      soclose(head);
    }
    expect(tree.write('kern.ipc.soacceptqueue', '128')).to.equal(0);
  });

  it('sonewconn returns null and leaks no socket when pr_attach fails', () => {
    const proto = new TestProto();
    const head = listener(5, testVnet(proto));
    proto.attachError = ENOBUFS;
    expect(sonewconn(head, 0)).to.equal(null);
    expect(soStats.current).to.equal(1);
    proto.attachError = 0;
    soclose(head);
  });

  it('closing a listener aborts its unaccepted connections, incomplete ones too', () => {
    const head = listener(5);
    const a = must(sonewconn(head, SS_ISCONNECTED));
    const b = must(sonewconn(head, 0));
    const pcbs = [pcbOf(a), pcbOf(b)];
    soclose(head);
    expect(pcbs.map((p) => p.aborts)).to.eql([1, 1]);
    expect(soStats.current).to.equal(0);
  });

  it('soabort frees a place in the queue', () => {
    const head = listener(0);
    for (const status of [SS_ISCONNECTED, 0]) {
      const so = must(sonewconn(head, status));
      expect(sonewconn(head, 0)).to.equal(null);
      soabort(so);
    }
    soabort(must(sonewconn(head, 0)));
    soclose(head);
  });
});

describe('uipc_socket: sending and receiving', () => {
  bootEach();

  /** A socket with `n` bytes to be read. */
  function withData(n: number): { so: Socket; bytes: Uint8Array } {
    const so = connectedSocket();
    const m = pgsMbuf({ npgs: 3, first: 5, last: n - 8187 });
    const bytes = chainBytes(m);
    sbappendstream(so.so_rcv, m, false);
    return { so, bytes };
  }

  it('soWrite sends what fits, and returns EWOULDBLOCK when nothing fits', () => {
    const so = connectedSocket(8192);
    const data = fileBytes(10_000);
    expect(soWrite(so, data, 0, data.length, false)).to.equal(0);
    expect(ioResult.n).to.equal(8192);
    expect(soWrite(so, data, 8192, 1808, false)).to.equal(EWOULDBLOCK);
    expect(ioResult.n).to.equal(0);
    const peer = new Peer(so);
    peer.take(100);
    // EWOULDBLOCK: the data does not fit, and the free space is below the low-water mark.
    expect(soWrite(so, data, 8192, 1808, true)).to.equal(EWOULDBLOCK);
    expect(soSetInt(so, SOL_SOCKET, SO_SNDLOWAT, 100)).to.equal(0);
    expect(soWrite(so, data, 8192, 1808, true)).to.equal(0);
    expect(ioResult.n).to.equal(100);
    peer.take();
    expect(peer.received).to.eql(data.slice(0, 8292));
    soclose(so);
  });

  it('soWrite sends a part of a buffer; a length of 0 succeeds', () => {
    const so = connectedSocket();
    const data = fileBytes(100);
    expect(soWrite(so, data, 30, 40, false)).to.equal(0);
    expect(soWrite(so, data, 0, 0, false)).to.equal(0);
    expect(sbused(so.so_snd)).to.equal(40);
    const peer = new Peer(so);
    peer.take();
    expect(peer.received).to.eql(data.slice(30, 70));
    soclose(so);
  });

  it('soWrite returns EPIPE, the pending error, ENOTCONN or ENOBUFS; ENOBUFS takes no byte', () => {
    const so = connectedSocket();
    const data = fileBytes(3000);
    mbufZones().jumbop.failPoint.arm(1);
    expect(soWrite(so, data, 0, 3000, false)).to.equal(ENOBUFS);
    expect(ioResult.n).to.equal(0);
    so.so_error = EADDRINUSE;
    expect(soWrite(so, data, 0, 3000, false)).to.equal(EADDRINUSE);
    so.so_state &= ~SS_ISCONNECTED;
    expect(soWrite(so, data, 0, 3000, false)).to.equal(ENOTCONN);
    so.so_state |= SS_ISCONNECTED;
    soshutdown(so, SHUT_WR);
    expect(soWrite(so, data, 0, 3000, false)).to.equal(EPIPE);
    soclose(so);
  });

  it('soRead receives unmapped data in pieces', () => {
    const { so, bytes } = withData(10_000);
    const into = new Uint8Array(12_000);
    expect(soRead(so, into, 7, 6000)).to.equal(0);
    expect(ioResult.n).to.equal(6000);
    expect(soRead(so, into, 6007, 5000)).to.equal(0);
    expect(ioResult.n).to.equal(4000);
    expect(into.slice(7, 10_007)).to.eql(bytes);
    expect(soRead(so, into, 0, 10)).to.equal(EWOULDBLOCK);
    soclose(so);
  });

  it('SO_RCVLOWAT: EWOULDBLOCK below the mark, unless less is requested, MSG_DONTWAIT is set or the data has ended', () => {
    const { so, bytes } = withData(9000);
    const into = new Uint8Array(20_000);
    expect(soSetInt(so, SOL_SOCKET, SO_RCVLOWAT, 10_000)).to.equal(0);
    expect(soRead(so, into, 0, 20_000)).to.equal(EWOULDBLOCK);
    expect([soRead(so, into, 0, 1000), ioResult.n]).to.eql([0, 1000]);
    expect([soRecv(so, into, 0, 20_000, MSG_DONTWAIT | MSG_PEEK), ioResult.n]).to.eql([0, 8000]);
    expect(into.slice(0, 8000)).to.eql(bytes.slice(1000));
    expect(sbavail(so.so_rcv)).to.equal(8000);
    socantrcvmore(so);
    expect([soRead(so, into, 0, 20_000), ioResult.n]).to.eql([0, 8000]);
    soclose(so);
  });

  it('MSG_PEEK removes neither data nor the pending error', () => {
    const { so, bytes } = withData(9000);
    const into = new Uint8Array(9000);
    for (let i = 0; i < 2; i++)
      expect([soRecv(so, into, 0, 9000, MSG_PEEK), ioResult.n]).to.eql([0, 9000]);
    expect(into).to.eql(bytes);
    expect(soRead(so, into, 0, 9000)).to.equal(0);
    so.so_error = EPIPE;
    expect(soRecv(so, into, 0, 1, MSG_PEEK)).to.equal(EPIPE);
    expect(soRecv(so, into, 0, 1, 0)).to.equal(EPIPE);
    expect(soRecv(so, into, 0, 1, 0)).to.equal(EWOULDBLOCK);
    expect(soRecv(so, into, 0, 1, MSG_OOB)).to.equal(EOPNOTSUPP);
    soclose(so);
  });

  it('soDiscard removes all data without reading it; 0 at the end of data', () => {
    const { so } = withData(10_000);
    const before = payloadBytesRead(READ_COPY);
    expect(inPass(soDiscard, so)).to.equal(10_000);
    expect([so.so_rcv.sb_mb, so.so_rcv.sb_mbcnt]).to.eql([null, 0]);
    expect(inPass(soDiscard, so)).to.equal(0);
    socantrcvmore(so);
    expect(inPass(soDiscard, so)).to.equal(0);
    expect(payloadBytesRead(READ_COPY)).to.equal(before);
    soclose(so);
  });

  it('take uses the buffer in the pass; run follows only if it returns true', () => {
    const calls: string[] = [];
    const { so } = withData(9000);
    let more = false;
    soupcall_set(so, SO_RCV, {
      run: () => calls.push('run'),
      take: () => {
        calls.push(`take ${soDiscard(so)}`);
        return more;
      },
    });
    inPass(sorwakeup, so);
    runUpcalls();
    expect(calls).to.eql(['take 9000']);
    more = true;
    inPass(() => {
      sorwakeup(so);
      sorwakeup(so);
    });
    expect(calls).to.eql(['take 9000', 'take 0']);
    runUpcalls();
    expect(calls).to.eql(['take 9000', 'take 0', 'run']);
    soclose(so);
  });

  it('soRead returns 0 bytes at the end of data, the pending error once, ENOTCONN if never connected', () => {
    const { so } = withData(9000);
    socantrcvmore(so);
    const into = new Uint8Array(9000);
    expect([soRead(so, into, 0, 9000), ioResult.n]).to.eql([0, 9000]);
    expect([soRead(so, into, 0, 9000), ioResult.n]).to.eql([0, 0]);
    so.so_error = EPIPE;
    expect(soRead(so, into, 0, 1)).to.equal(EPIPE);
    expect(soTakeError(so)).to.equal(0);
    soclose(so);
    expect(socreate(testVnet(), AF_INET, SOCK_STREAM, 0)).to.equal(0);
    const fresh = must(soResult.so);
    expect(soRead(fresh, into, 0, 1)).to.equal(ENOTCONN);
    soclose(fresh);
  });

  it('shutdown of the read side discards unread data; EINVAL and ENOTCONN', () => {
    const { so } = withData(9000);
    expect(soshutdown(so, SHUT_RD)).to.equal(0);
    expect(sbavail(so.so_rcv)).to.equal(0);
    expect([soRead(so, new Uint8Array(1), 0, 1), ioResult.n]).to.eql([0, 0]);
    expect(soshutdown(so, 3)).to.equal(EINVAL);
    expect(soshutdown(so, SHUT_RDWR)).to.equal(0);
    soclose(so);
    expect(socreate(testVnet(), AF_INET, SOCK_STREAM, 0)).to.equal(0);
    const fresh = must(soResult.so);
    expect(soshutdown(fresh, SHUT_WR)).to.equal(ENOTCONN);
    soclose(fresh);
  });

  it('a dropped connection discards its send buffer', () => {
    const so = connectedSocket();
    soWrite(so, fileBytes(5000), 0, 5000, false);
    dropConnection(so, EPIPE);
    expect(sbused(so.so_snd)).to.equal(0);
    soclose(so);
  });

  it('ioResult.n is right when an upcall that the call asks for writes to another socket', () => {
    class Waking extends TestProto {
      override pr_rcvd(): number {
        sorwakeup(b);
        return 0;
      }
      override pr_send(so: Socket, flags: number, m: Parameters<TestProto['pr_send']>[2]): number {
        if (so === a) sorwakeup(b);
        return super.pr_send(so, flags, m);
      }
    }
    const proto = new Waking();
    Object.assign(proto, { pr_flags: 0x0c }); // PR_CONNREQUIRED | PR_WANTRCVD
    const vnet = testVnet(proto);
    const [a, b] = [connectedSocket(8192, vnet), connectedSocket(8192, vnet)];
    const upcall = { run: (): void => void soWrite(b, new Uint8Array(3), 0, 3, false) };
    soupcall_set(b, SO_RCV, upcall);
    expect(soWrite(a, fileBytes(1000), 0, 1000, false)).to.equal(0);
    expect(ioResult.n).to.equal(1000);
    runUpcalls();
    sbappendstream(a.so_rcv, pgsMbuf({ npgs: 1 }), false);
    expect(soRead(a, new Uint8Array(5000), 0, 5000)).to.equal(0);
    expect(ioResult.n).to.equal(4096);
    runUpcalls();
    expect(sbused(b.so_snd)).to.equal(6);
    soclose(a);
    soclose(b);
  });

  it('soclose removes the upcalls', () => {
    const so = connectedSocket();
    const seen: string[] = [];
    soupcall_set(so, SO_SND, { run: () => void seen.push('snd') });
    soupcall_set(so, SO_RCV, { run: () => void seen.push('rcv') });
    soref(so);
    soclose(so);
    sorwakeup(so);
    expect(seen).to.eql([]);
    sorele(so);
  });
});
