import { expect } from 'chai';
import { inPass } from '../../src/sys/pass.ts';
import { ECONNRESET, EINVAL, ENOENT, EPIPE } from '../../src/sys/errno.ts';
import { AF_INET, SOCK_STREAM } from '../../src/kern/protosw.ts';
import {
  EV_ADD,
  EV_CLEAR,
  EV_DELETE,
  EV_DISABLE,
  EV_DISPATCH,
  EV_ENABLE,
  EV_EOF,
  EV_ONESHOT,
  EVFILT_EMPTY,
  EVFILT_READ,
  EVFILT_WRITE,
  type Kevent,
  knote_fdclose,
  Kqueue,
  kqueue_close,
  kqueue_register,
  kqueue_scan,
  NOTE_LOWAT,
} from '../../src/kern/kern_event.ts';
import { soRead, soWrite } from '../../src/kern/sys_generic.ts';
import { sbappendstream } from '../../src/kern/uipc_sockbuf.ts';
import {
  socantrcvmore,
  soclose,
  socreate,
  solisten,
  sonewconn,
  soreserve,
  soResult,
  sorwakeup,
  type Socket,
  SS_ISCONNECTED,
} from '../../src/kern/uipc_socket.ts';
import { bootEach } from './boot.ts';
import { must, pgsMbuf } from './chains.ts';
import { connectedSocket, dropConnection, Peer, testVnet } from './testproto.ts';
import { runUpcalls } from '../support/machine.ts';

describe('kern_event: sockets', () => {
  let so: Socket;
  let kq: Kqueue;
  afterEach(() => {
    kqueue_close(kq);
    soclose(so);
  });
  bootEach();
  beforeEach(() => {
    so = connectedSocket(8192);
    kq = new Kqueue();
  });

  const add = (filter: number, flags = 0, more: Partial<Kevent> = {}, ident = 5): number =>
    kqueue_register(
      kq,
      { ident, filter, flags: EV_ADD | flags, fflags: 0, data: 0, udata: null, ...more },
      so,
    );
  const change = (filter: number, flags: number): number =>
    kqueue_register(kq, { ident: 5, filter, flags, fflags: 0, data: 0, udata: null }, so);
  const scan = (max = 8): [number, number, number, number][] =>
    kqueue_scan(kq, max).map((e) => [e.filter, e.flags, e.fflags, e.data]);
  const arrive = (): void => {
    sbappendstream(so.so_rcv, pgsMbuf({ npgs: 1 }), false);
    inPass(sorwakeup, so);
  };
  const read = (n: number): number => soRead(so, new Uint8Array(n), 0, n);

  it('uses the constants of sys/sys/event.h', () => {
    expect([EVFILT_READ, EVFILT_WRITE, EVFILT_EMPTY]).to.eql([-1, -2, -13]);
    expect([EV_ADD, EV_DELETE, EV_ENABLE, EV_DISABLE, EV_ONESHOT]).to.eql([1, 2, 4, 8, 16]);
    expect([EV_CLEAR, EV_DISPATCH, EV_EOF]).to.eql([0x20, 0x80, 0x8000]);
  });

  it('EVFILT_READ is reported at every scan while data is available, with the byte count', () => {
    expect(add(EVFILT_READ)).to.equal(0);
    expect(scan()).to.eql([]);
    arrive();
    for (let i = 0; i < 2; i++) expect(scan()).to.eql([[EVFILT_READ, 0, 0, 4096]]);
    read(4000);
    expect(scan()).to.eql([[EVFILT_READ, 0, 0, 96]]);
    read(96);
    expect(scan()).to.eql([]);
    arrive();
    expect(scan()).to.eql([[EVFILT_READ, 0, 0, 4096]]);
  });

  it('EVFILT_READ reports data that arrived before the knote was added', () => {
    arrive();
    add(EVFILT_READ);
    expect(scan()).to.eql([[EVFILT_READ, 0, 0, 4096]]);
  });

  it('EV_CLEAR reports each change once; EV_ONESHOT reports one event and deletes the knote', () => {
    add(EVFILT_READ, EV_CLEAR);
    arrive();
    expect(scan()).to.have.length(1);
    expect(scan()).to.eql([]);
    arrive();
    expect(scan()).to.eql([[EVFILT_READ, EV_CLEAR, 0, 8192]]);
    expect(change(EVFILT_READ, EV_DELETE)).to.equal(0);
    add(EVFILT_READ, EV_ONESHOT);
    expect(scan()).to.eql([[EVFILT_READ, EV_ONESHOT, 0, 8192]]);
    arrive();
    expect(scan()).to.eql([]);
    expect(change(EVFILT_READ, EV_ENABLE)).to.equal(ENOENT);
  });

  it('EV_DISPATCH (after one event) and EV_DISABLE suppress events until EV_ENABLE', () => {
    add(EVFILT_READ, EV_DISPATCH);
    arrive();
    expect(scan()).to.have.length(1);
    arrive();
    expect(scan()).to.eql([]);
    change(EVFILT_READ, EV_ENABLE);
    expect(scan()).to.have.length(1);
    change(EVFILT_READ, EV_ENABLE);
    change(EVFILT_READ, EV_DISABLE);
    expect(scan()).to.eql([]);
  });

  it('EVFILT_WRITE is reported when the free space reaches the low-water mark or NOTE_LOWAT', () => {
    add(EVFILT_WRITE);
    expect(scan()).to.eql([[EVFILT_WRITE, 0, 0, 8192]]);
    soWrite(so, new Uint8Array(7000), 0, 7000, false);
    expect(scan()).to.eql([]);
    const peer = new Peer(so);
    peer.take(500);
    expect(scan()).to.eql([]); // 1692 of 2048
    peer.take(500);
    expect(scan()).to.eql([[EVFILT_WRITE, 0, 0, 2192]]);
    add(EVFILT_WRITE, 0, { fflags: NOTE_LOWAT, data: 5000 });
    expect(scan()).to.eql([]);
    peer.take(3000);
    expect(scan()).to.eql([[EVFILT_WRITE, 0, 0, 5192]]);
  });

  it('EVFILT_READ with NOTE_LOWAT waits for that many bytes; EVFILT_EMPTY waits for an empty send buffer', () => {
    add(EVFILT_READ, 0, { fflags: NOTE_LOWAT, data: 5000 });
    add(EVFILT_EMPTY);
    expect(scan()).to.eql([[EVFILT_EMPTY, 0, 0, 0]]);
    soWrite(so, new Uint8Array(10), 0, 10, false);
    arrive();
    expect(scan()).to.eql([]);
    arrive();
    new Peer(so).take();
    expect(scan()).to.have.deep.members([
      [EVFILT_READ, 0, 0, 8192],
      [EVFILT_EMPTY, 0, 0, 0],
    ]);
  });

  it('EV_EOF marks the end of data; data is the unread byte count, fflags is so_error', () => {
    add(EVFILT_READ);
    add(EVFILT_WRITE, EV_CLEAR);
    scan();
    arrive();
    inPass(socantrcvmore, so);
    expect(scan()).to.eql([[EVFILT_READ, EV_EOF, 0, 4096]]);
    inPass(dropConnection, so, ECONNRESET);
    expect(scan()).to.have.deep.members([
      [EVFILT_READ, EV_EOF, ECONNRESET, 4096],
      [EVFILT_WRITE, EV_CLEAR | EV_EOF, ECONNRESET, 8192],
    ]);
  });

  it('EVFILT_READ is reported for a pending error without data', () => {
    add(EVFILT_READ);
    so.so_error = EPIPE;
    inPass(sorwakeup, so);
    expect(scan()).to.eql([[EVFILT_READ, 0, 0, 0]]);
  });

  it('EVFILT_READ on a listener reports the number of connections to accept', () => {
    expect(socreate(testVnet(), AF_INET, SOCK_STREAM, 0)).to.equal(0);
    const head = must(soResult.so);
    soreserve(head, 8192, 8192);
    solisten(head, 5);
    const kev = { ident: 9, filter: EVFILT_READ, flags: EV_ADD, fflags: 0, data: 0, udata: 'u' };
    expect(kqueue_register(kq, kev, head)).to.equal(0);
    let woken = 0;
    kq.kq_upcall = { run: () => void woken++ };
    expect(scan()).to.eql([]);
    for (let i = 0; i < 2; i++) {
      must(inPass(sonewconn, head, SS_ISCONNECTED));
      runUpcalls();
    }
    expect(woken).to.equal(2);
    expect(kqueue_scan(kq, 1)[0]).to.include({ ident: 9, data: 2, udata: 'u' });
    soclose(head);
  });

  it('kqueue_scan reports the knotes in rotation when more are ready than max', () => {
    arrive();
    for (const ident of [1, 2, 3]) add(EVFILT_READ, 0, {}, ident);
    const turn = (): number[] => kqueue_scan(kq, 2).map((e) => e.ident);
    expect([turn(), turn(), turn()]).to.eql([
      [1, 2],
      [3, 1],
      [2, 3],
    ]);
  });

  it('EINVAL for an unknown filter, ENOENT for a missing knote; knote_fdclose deletes all knotes of a descriptor', () => {
    expect(add(-7)).to.equal(EINVAL);
    expect(change(EVFILT_READ, EV_DELETE)).to.equal(ENOENT);
    add(EVFILT_READ);
    add(EVFILT_WRITE);
    arrive();
    knote_fdclose(kq, 5);
    expect([kq.knotes.size, so.so_rcv.sb_notes.length, scan()]).to.eql([0, 0, []]);
  });
});
