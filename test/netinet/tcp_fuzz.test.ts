/**
 * Random segments in every state: nothing throws, nothing leaks, and every answer is well-formed.
 */

import * as fc from 'fast-check';
import { expect } from 'chai';
import { SHUT_WR, soshutdown } from '../../src/kern/uipc_socket.ts';
import { tcp_dooptions } from '../../src/netinet/tcp_options.ts';
import { reassOrdered } from '../../src/netinet/tcp_reass.ts';
import { $seg } from '../../src/netinet/tcp_var.ts';
import { kva } from '../../src/sys/types.ts';
import { mem } from '../../src/vm/arena.ts';
import { bootMachine } from '../support/machine.ts';
import { type Conn, PEER_PORT, type Seg, TestHost } from './tcp_host.ts';

const STATES = [
  'LISTEN',
  'embryonic',
  'SYN_SENT',
  'SYN_RCVD',
  'ESTABLISHED',
  'ESTABLISHED with data in both directions',
  'CLOSE_WAIT',
  'FIN_WAIT_1',
  'FIN_WAIT_2',
  'CLOSING',
  'LAST_ACK',
  'TIME_WAIT',
] as const;

/** Brings a host into a state; returns the peer's sequence numbers and the ports. */
function reach(
  h: TestHost,
  state: (typeof STATES)[number],
  ts: boolean,
): Pick<Conn, 'seq' | 'ack' | 'sport' | 'dport'> {
  const at = { seq: 0xfffffff0, ack: 0, sport: PEER_PORT, dport: 80 };
  if (state === 'LISTEN' || state === 'embryonic') {
    h.listen(80);
    if (state === 'LISTEN') return at;
    h.seg({ flags: 'S', seq: at.seq });
    return { ...at, seq: at.seq + 1, ack: h.take()[0]!.ip!.tcp!.seq + 1 };
  }
  if (state === 'SYN_SENT' || state === 'SYN_RCVD') {
    h.connect(7);
    const t = h.take()[0]!.ip!.tcp!;
    const back = { seq: at.seq, ack: t.seq + 1, sport: 7, dport: t.sport };
    if (state === 'SYN_RCVD') h.seg({ ...back, flags: 'S' });
    return back;
  }
  const c = h.establish({ seq: at.seq, ...(ts ? { ts: { val: 5, ecr: 0 } } : {}) });
  const fin = (): void => void soshutdown(c.so, SHUT_WR);
  if (state === 'ESTABLISHED with data in both directions') {
    c.data('hello');
    h.write(c.so, new Uint8Array(5000));
    c.seg({ seq: c.seq + 100, payload: 'ahead' });
  }
  if (state === 'CLOSE_WAIT' || state === 'LAST_ACK') c.data('', { flags: 'F.' });
  if (state === 'LAST_ACK') h.closeSocket(c.so);
  if (state === 'FIN_WAIT_1' || state === 'FIN_WAIT_2' || state === 'CLOSING') fin();
  if (state === 'CLOSING') c.data('', { flags: 'F.' });
  if (state === 'FIN_WAIT_2') c.seg({ ack: c.ack + 1 });
  if (state === 'TIME_WAIT') {
    h.closeSocket(c.so);
    c.seg({ ack: c.ack + 1 });
    c.data('', { flags: 'F.', ack: c.ack + 1 });
  }
  return c;
}

/** Offsets near a reference point, and a few anywhere. */
const near = fc.oneof(
  { weight: 6, arbitrary: fc.integer({ min: -20, max: 20 }) },
  { weight: 3, arbitrary: fc.integer({ min: -70_000, max: 70_000 }) },
  { weight: 1, arbitrary: fc.integer({ min: -0x80000000, max: 0x7fffffff }) },
);

const segment = fc.record({
  seq: near,
  ack: near,
  flags: fc.oneof(
    { weight: 5, arbitrary: fc.constantFrom('.', 'P.', 'F.', 'S', 'S.', 'R', 'R.', 'FP.', '') },
    { weight: 1, arbitrary: fc.subarray(Array.from('FSRP.UEW')).map((x) => x.join('')) },
  ),
  win: fc.oneof(fc.constantFrom(0, 1, 1000, 65535), fc.integer({ min: 0, max: 65535 })),
  urp: fc.constantFrom(0, 1, 65535),
  len: fc.oneof(fc.constantFrom(0, 1, 5, 1460), fc.integer({ min: 0, max: 3000 })),
  options: fc.oneof(
    { weight: 3, arbitrary: fc.constant(undefined) },
    { weight: 1, arbitrary: fc.array(fc.integer({ min: 0, max: 10 }), { maxLength: 40 }) },
    { weight: 1, arbitrary: fc.uint8Array({ maxLength: 40 }) },
    {
      weight: 2,
      arbitrary: fc.integer({ min: 0, max: 20 }).map((v) => [1, 1, 8, 10, 0, 0, 0, v, 0, 0, 0, 0]),
    },
  ),
  piece: fc.constantFrom(0, 0, 0, 7, 64),
  waitMs: fc.constantFrom(0, 0, 0, 1, 50, 300, 70_000),
});

describe('tcp: hostile segments', function () {
  this.timeout(60_000);
  const runs = process.env['TAPNIC_FULL'] === '1' ? 1000 : 40;

  for (const state of STATES) {
    it(`survives random segments in ${state}`, () => {
      fc.assert(
        fc.property(
          fc.array(segment, { minLength: 1, maxLength: 25 }),
          fc.boolean(),
          (list, ts) => {
            const h = new TestHost();
            const at = reach(h, state, ts);
            for (const s of list) {
              const options = s.options === undefined ? undefined : pad(Array.from(s.options));
              const fields: Seg = {
                sport: at.sport,
                dport: at.dport,
                seq: at.seq + s.seq,
                ack: at.ack + s.ack,
                flags: s.flags,
                win: s.win,
                urp: s.urp,
                payload: new Uint8Array(s.len),
                ...(options === undefined ? {} : { options }),
              };
              h.seg(fields, s.piece);
              // decodeFrame verifies that every sent frame is well-formed, checksums included.
              h.take();
              if (s.waitMs > 0) h.advance(s.waitMs);
              for (const so of h.sockets) {
                if (so.so_pcb === null) continue;
                expect(reassOrdered(h.tp(so)), 'reassembly queue in order').to.equal(true);
                h.read(so);
              }
            }
            h.close();
          },
        ),
        { numRuns: runs },
      );
    });
  }

  it('does not read beyond the end of the options', () => {
    bootMachine();
    const base = 8192;
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), fc.boolean(), (bytes, syn) => {
        // Put valid options behind the end: reading too far would set their flags.
        mem.fill(0, base, base + 64);
        mem.set([2, 4, 0x12, 0x34, 3, 3, 9], base + bytes.length);
        mem.set(bytes, base);
        tcp_dooptions($seg, kva(base), bytes.length, syn);
        if (!bytes.includes(2)) expect($seg.to_flags & 1, 'MSS').to.equal(0);
        if (!bytes.includes(3)) expect($seg.to_flags & 2, 'window scale').to.equal(0);
        if (($seg.to_flags & 2) !== 0) expect($seg.to_wscale).to.be.at.most(14);
        if (!syn) expect($seg.to_flags & 3, 'MSS and window scale without SYN').to.equal(0);
      }),
      { numRuns: runs * 100 },
    );
  });

  it('accepts each option with its exact length only', () => {
    bootMachine();
    const read = (bytes: number[], syn = true): number => {
      mem.set(bytes, 8192);
      tcp_dooptions($seg, kva(8192), bytes.length, syn);
      return $seg.to_flags;
    };
    expect(read([2, 4, 5, 180])).to.equal(1);
    expect($seg.to_mss).to.equal(1460);
    expect(read([2, 3, 5])).to.equal(0);
    expect(read([2, 4, 5])).to.equal(0);
    expect(read([3, 3, 200])).to.equal(2);
    expect($seg.to_wscale).to.equal(14);
    expect(read([99, 0, 2, 4, 5, 180]), 'a length of 0 ends parsing').to.equal(0);
    expect(read([99, 1, 2, 4, 5, 180]), 'a length of 1 ends parsing').to.equal(0);
    expect(read([99, 2, 2, 4, 5, 180]), 'an unknown option is skipped').to.equal(1);
    expect(read([99, 255, 2, 4, 5, 180])).to.equal(0);
    expect(read([0, 2, 4, 5, 180]), 'bytes behind EOL are ignored').to.equal(0);
    expect(read([1, 1, 1, 2, 4, 5, 180])).to.equal(1);
    expect(read([8])).to.equal(0);
    expect(read([8, 10, 0, 0, 0, 1, 0, 0, 0, 2])).to.equal(0x10);
    expect([$seg.to_tsval, $seg.to_tsecr]).to.deep.equal([1, 2]);
    expect(read([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2], false)).to.equal(0x10);
  });
});

/** Pads the options to a multiple of 4 bytes, at most 40. */
function pad(options: number[]): number[] {
  while (options.length % 4 !== 0) options.push(1);
  return options.slice(0, 40);
}
