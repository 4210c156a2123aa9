/** The joined answer of several stacks. */

import { expect } from 'chai';
import { mergeAnswers } from '../../src/ctl/merge.ts';
import { type ControlRequest, errResponse, okResponse } from '../../src/ctl/protocol.ts';

const request = (cmd: string, args: Record<string, unknown> = {}): ControlRequest => ({
  id: 5,
  cmd,
  args,
});

/** The data of the joined answer, which must be a success. */
function joined(req: ControlRequest, ...data: unknown[]): unknown {
  const answer = mergeAnswers(
    req,
    data.map((one) => okResponse(5, one)),
  );
  if (!answer.ok) throw new Error(answer.err.message);
  expect(answer.id).to.equal(5);
  return answer.data;
}

describe('ctl: answers of several workers', () => {
  it('adds the counters of an interface and keeps its settings', () => {
    const one = { name: 'tn0', mtu: 1500, index: 1, counters: { ipackets: 3, ierrors: 0 } };
    const two = { name: 'tn0', mtu: 1500, index: 1, counters: { ipackets: 4, ierrors: 1 } };
    const sum = { ...one, counters: { ipackets: 7, ierrors: 1 } };
    expect(joined(request('ifconfig', { if: 'tn0' }), one, two)).to.deep.equal(sum);
    expect(joined(request('netstat', { report: 'i' }), [one], [two])).to.deep.equal([sum]);
    expect(joined(request('ifconfig', { if: 'vlan0', words: ['destroy'] }), null, null)).to.equal(
      null,
    );
  });

  it('adds statistics and reasons, and counts a listener once', () => {
    const of = (n: number): object => ({
      protocols: { tcp: { tcps_accepts: n, states: [0, 2, 0, 0, n] } },
      reasons: [{ layer: 'tcp', reason: 'paws', count: n }],
    });
    expect(joined(request('netstat', { report: 's' }), of(1), of(2), of(4))).to.deep.equal({
      protocols: { tcp: { tcps_accepts: 7, states: [0, 2, 0, 0, 7] } },
      reasons: [{ layer: 'tcp', reason: 'paws', count: 7 }],
    });
  });

  it('joins connections and lists a listener once', () => {
    const listener = { local: '*.80', foreign: '*.*', state: 'LISTEN' };
    const a = { local: '192.0.2.2.80', foreign: '192.0.2.1.5', state: 'ESTABLISHED' };
    const b = { ...a, foreign: '192.0.2.1.6' };
    const data = joined(request('netstat', { report: 'an' }), [a, listener], [b, listener]);
    expect(data).to.deep.equal([a, listener, b]);
  });

  it('adds memory and zones', () => {
    const zone = { name: 'mbuf', size: 256, limit: 10, used: 1, free: 2, requests: 3, failures: 0 };
    const zones = joined(request('vmstat', { report: 'z' }), [zone], [zone]);
    const sum = { ...zone, limit: 20, used: 2, free: 4, requests: 6, failures: 0 };
    expect(zones).to.deep.equal([sum]);
    expect(
      joined(
        request('netstat', { report: 'm' }),
        { mbufs: { current: 1 } },
        { mbufs: { current: 2 } },
      ),
    ).to.deep.equal({ mbufs: { current: 3 } });
  });

  it('adds the sysctls that count, and no settings', () => {
    const leaf = (name: string, value: unknown, type = 'int'): object => ({ name, value, type });
    const data = joined(
      request('sysctl', { name: '' }),
      [
        leaf('net.inet.tcp.pcbcount', 2),
        leaf('net.inet.tcp.mssdflt', 536),
        leaf('a.b', [1, 2], 'counters'),
      ],
      [
        leaf('net.inet.tcp.pcbcount', 3),
        leaf('net.inet.tcp.mssdflt', 536),
        leaf('a.b', [3, 4], 'counters'),
      ],
    );
    expect(data).to.deep.equal([
      leaf('net.inet.tcp.pcbcount', 5),
      leaf('net.inet.tcp.mssdflt', 536),
      leaf('a.b', [4, 6], 'counters'),
    ]);
  });

  it('joins neighbours, and prefers a known address', () => {
    const known = { addr: '192.0.2.1', if: 'tn0', ether: '02:00:00:00:00:01', expires: 9 };
    const waiting = { ...known, ether: null };
    const other = { ...known, addr: '192.0.2.7' };
    expect(joined(request('arp'), [waiting], [known, other])).to.deep.equal([known, other]);
    const neighbors = (lines: object[]): object => ({ op: 'neighbors', lines });
    expect(
      joined(request('ndp', { words: ['-a'] }), neighbors([waiting]), neighbors([known])),
    ).to.deep.equal(neighbors([known]));
    const deleted = (...addrs: string[]): object => ({ op: 'deleted', addrs });
    expect(
      joined(request('ndp', { words: ['-c'] }), deleted('a'), deleted('b', 'a')),
    ).to.deep.equal(deleted('a', 'b'));
  });

  it('adds the hits of a fault', () => {
    const fault = { id: 1, if: 'tn0', rate: 0.5, matched: 10, hits: 4 };
    const data = joined(request('fault', { op: 'list' }), [fault], [fault]);
    expect(data).to.deep.equal([{ ...fault, matched: 20, hits: 8 }]);
  });

  it('ignores a missing entry of a neighbour on some workers, not on all', () => {
    const req = request('arp', { op: 'delete', addr: '192.0.2.1' });
    const none = errResponse(5, 'ENOENT', 'no entry');
    expect(mergeAnswers(req, [none, okResponse(5, 'x')])).to.deep.equal(okResponse(5, 'x'));
    expect(mergeAnswers(req, [none, none])).to.deep.equal(none);
  });

  it('reports the error of a worker with its number', () => {
    const answer = mergeAnswers(request('sysctl'), [
      okResponse(5, []),
      errResponse(null, 'ENOMEM', 'no memory'),
    ]);
    expect(answer).to.deep.equal(errResponse(5, 'ENOMEM', 'worker 1: no memory'));
  });
});
