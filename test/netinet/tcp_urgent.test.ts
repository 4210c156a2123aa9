/** Urgent data in both directions: RFC 9293, 3.8.5, RFC 6093, and the BSD socket interface. */

import { expect } from 'chai';
import { MSG_OOB, MSG_PEEK } from '../../src/kern/protosw.ts';
import { ioResult, soRecv, soSend } from '../../src/kern/sys_generic.ts';
import {
  SO_OOBINLINE,
  SO_RCV,
  soAtMark,
  type Socket,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import { SOL_SOCKET, soSetInt } from '../../src/kern/uipc_sockopt.ts';
import { EINVAL, errnoName, EWOULDBLOCK } from '../../src/sys/errno.ts';
import { expectTx, flags, payload, seq } from '../support/frames.ts';
import { type Conn, TestHost } from './tcp_host.ts';
import { runUpcalls } from '../support/machine.ts';

describe('tcp: urgent data', () => {
  let h: TestHost;
  let c: Conn;
  beforeEach(() => {
    h = new TestHost();
    c = h.establish();
  });
  afterEach(() => h.close());

  /** The result of recv(2): the bytes as text, or the errno's name. */
  const recv = (so: Socket, f = 0, max = 100): string => {
    const buf = Buffer.alloc(max);
    const error = soRecv(so, buf, 0, max, f);
    return error === 0 ? buf.toString('latin1', 0, ioResult.n) : errnoName(error);
  };
  const sendOob = (text: string): number =>
    soSend(c.so, Buffer.from(text), 0, text.length, MSG_OOB);
  const urgent = (): [string, number, number][] =>
    h.take().map((f) => {
      const t = f.ip!.tcp!;
      return [t.flags, t.payload.length, t.urp];
    });

  it('keeps the urgent byte out of the stream, and stops a read at the mark', () => {
    c.data('abcXdef', { flags: 'PU.', urp: 4 });
    expect(recv(c.so, MSG_OOB | MSG_PEEK)).to.equal('X');
    expect(recv(c.so, MSG_OOB)).to.equal('X');
    expect(recv(c.so, MSG_OOB), 'a second read of the urgent byte').to.equal('EINVAL');
    expect(soAtMark(c.so)).to.equal(false);
    expect(recv(c.so)).to.equal('abc');
    expect(soAtMark(c.so)).to.equal(true);
    expect(recv(c.so)).to.equal('def');
    expect(soAtMark(c.so)).to.equal(false);
    expect(h.tp(c.so).rcv_nxt).to.equal(c.seq);
  });

  it('leaves the urgent byte in the stream with SO_OOBINLINE', () => {
    expect(soSetInt(c.so, SOL_SOCKET, SO_OOBINLINE, 1)).to.equal(0);
    c.data('abcXdef', { flags: 'PU.', urp: 4 });
    expect(recv(c.so, MSG_OOB)).to.equal('EINVAL');
    expect([recv(c.so), soAtMark(c.so), recv(c.so)]).to.eql(['abc', true, 'Xdef']);
  });

  it('returns EWOULDBLOCK for an urgent byte that was announced but did not arrive', () => {
    expect(recv(c.so, MSG_OOB)).to.equal('EINVAL');
    let woken = 0;
    soupcall_set(c.so, SO_RCV, { run: () => void woken++ });
    c.seg({ flags: 'U.', urp: 6 });
    runUpcalls();
    expect(woken).to.equal(1);
    expect(recv(c.so, MSG_OOB)).to.equal(errnoName(EWOULDBLOCK));
    c.data('abc');
    expect(recv(c.so, MSG_OOB)).to.equal('EAGAIN');
    c.data('deX');
    expect(recv(c.so, MSG_OOB)).to.equal('X');
    expect([recv(c.so), soAtMark(c.so)]).to.eql(['abcde', true]);
    c.data('more');
    expect(recv(c.so)).to.equal('more');
  });

  it('sets the mark at the read position when the urgent byte comes alone', () => {
    c.data('X', { flags: 'PU.', urp: 1 });
    expect(soAtMark(c.so)).to.equal(true);
    expect(recv(c.so)).to.equal('EAGAIN');
    expect(recv(c.so, MSG_OOB)).to.equal('X');
    c.data('in');
    expect(recv(c.so)).to.equal('in');
  });

  it('MSG_PEEK stops at the mark and does not move it', () => {
    c.data('abX', { flags: 'PU.', urp: 3 });
    c.data('cd');
    expect(recv(c.so, MSG_PEEK)).to.equal('ab');
    expect(recv(c.so, MSG_PEEK, 1)).to.equal('a');
    expect([recv(c.so, 0, 1), recv(c.so), recv(c.so)]).to.eql(['a', 'b', 'cd']);
  });

  for (const inline of [false, true])
    it(`finds the urgent byte after reordering and overlap${inline ? ', in line' : ''}`, () => {
      soSetInt(c.so, SOL_SOCKET, SO_OOBINLINE, inline ? 1 : 0);
      // Bytes 0 to 8 are abcdXefgh; the urgent byte is the fifth.
      const at = (off: number, text: string, fields = {}): void =>
        c.seg({ seq: c.seq + off, payload: text, flags: 'U.', urp: 5 - off, ...fields });
      at(3, 'dXe');
      at(6, 'fgh', { flags: '.', urp: 0 });
      at(2, 'cdX');
      at(0, 'abc');
      const x = inline ? 'X' : '';
      expect(recv(c.so)).to.equal('abcd');
      expect(recv(c.so)).to.equal(`${x}efgh`);
      if (!inline) expect(recv(c.so, MSG_OOB)).to.equal('EINVAL'); // past the mark
    });

  it('delivers the urgent byte once when the segment is retransmitted', () => {
    c.data('aX', { flags: 'U.', urp: 2 });
    c.seg({ seq: c.seq - 2, payload: 'aXb', flags: 'U.', urp: 2 });
    expect(recv(c.so, MSG_OOB)).to.equal('X');
    expect([recv(c.so), recv(c.so)]).to.eql(['a', 'b']);
  });

  it('replaces the mark by a second one and discards the first urgent byte', () => {
    c.data('aX', { flags: 'U.', urp: 2 });
    c.data('bY', { flags: 'U.', urp: 2 });
    expect(recv(c.so, MSG_OOB)).to.equal('Y');
    expect([recv(c.so), soAtMark(c.so)]).to.eql(['ab', true]);
  });

  it('ignores an urgent pointer of 0 and one behind rcv_nxt, and accepts one far ahead', () => {
    c.seg({ flags: 'U.', urp: 0 });
    expect(recv(c.so, MSG_OOB)).to.equal('EINVAL');
    c.data('abc');
    c.seg({ seq: c.seq - 3, payload: 'abc', flags: 'U.', urp: 2 });
    expect([recv(c.so), recv(c.so, MSG_OOB)]).to.eql(['abc', errnoName(EINVAL)]);
    // The largest pointer: the urgent byte does not arrive, and the stream goes on.
    c.data('x', { flags: 'U.', urp: 65_535 });
    expect(recv(c.so)).to.equal('x');
    c.data('y');
    expect(recv(c.so)).to.equal('y');
  });

  it('sends the urgent byte immediately in spite of Nagle, with the pointer behind it', () => {
    h.write(c.so, 'first');
    h.take();
    h.write(c.so, 'waits');
    expectTx(h.sent);
    expect(sendOob('!')).to.equal(0);
    expect(urgent()).to.eql([['P.U', 6, 6]]);
    h.write(c.so, 'after');
    c.seg({ ack: c.ack + 11 });
    expect(urgent()).to.eql([['P.', 5, 0]]);
    expect(h.tp(c.so).snd_up).to.equal(h.tp(c.so).snd_una);
  });

  it('sends the urgent pointer in the segments before the urgent byte when they are retransmitted', () => {
    const n = 2000;
    h.write(c.so, 'x'.repeat(n));
    h.take();
    expect(sendOob('!')).to.equal(0);
    expect(urgent()).to.eql([['P.U', 1, 1]]);
    h.advance(2_000);
    const again = h.take().map((f) => f.ip!.tcp!);
    expect(again[0]!.seq).to.equal(c.ack);
    expect([again[0]!.flags.includes('U'), again[0]!.urp]).to.eql([true, n + 1]);
  });

  it('sends an urgent byte as a window probe, and limits the pointer to 65535', () => {
    c.data('z');
    c.win = 0;
    c.data('z');
    h.write(c.so, 'waits');
    h.take();
    expect(sendOob('!')).to.equal(0);
    expectTx(h.sent, [flags('.U'), seq(c.ack), payload(1)]);
    soSetInt(c.so, SOL_SOCKET, 0x1001, 200_000); // SO_SNDBUF
    h.write(c.so, 'y'.repeat(100_000));
    expect(sendOob('?')).to.equal(0);
    h.advance(2_000);
    const t = h.take().at(-1)!.ip!.tcp!;
    expect([t.flags.includes('U'), t.urp]).to.eql([true, 65_535]);
  });

  it('receives urgent data that it sent itself', () => {
    // The peer echoes the segment with the same bytes and the same urgent pointer.
    sendOob('ab!');
    const t = h.take()[0]!.ip!.tcp!;
    c.data(Buffer.from(t.payload).toString('latin1'), {
      flags: t.flags,
      urp: t.urp,
      ack: c.ack + 3,
    });
    expect([recv(c.so, MSG_OOB), recv(c.so)]).to.eql(['!', 'ab']);
  });
});
