import { expect } from 'chai';
import { machineSysctl, SysctlTree } from '../../src/kern/kern_sysctl.ts';
import { vnet_alloc, type Vnet } from '../../src/kern/vnet.ts';
import { handleRequest } from '../../src/ctl/control.ts';
import {
  ControlFailure,
  failureResponse,
  parseLine,
  parseRequest,
} from '../../src/ctl/protocol.ts';
import { readRequest } from '../../src/ctl/request.ts';
import { formatSysctl, readSysctl, writeSysctl } from '../../src/ctl/sysctl.ts';
import { FaultStage } from '../../src/fault/fault_stage.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { ENOMEM, errnoError } from '../../src/sys/errno.ts';

/** The code of the ControlFailure that `fn` throws. */
function failure(fn: () => unknown): string {
  try {
    fn();
  } catch (e) {
    if (e instanceof ControlFailure) return `${e.code}: ${e.message}`;
    throw e;
  }
  throw new Error('nothing was thrown');
}

describe('ctl: protocol', () => {
  it('parses a request with and without arguments', () => {
    expect(parseRequest('{"id":1,"cmd":"x"}')).to.deep.equal({ id: 1, cmd: 'x', args: {} });
    expect(parseRequest('{"id":1,"cmd":"x","args":{"a":"b"}}').args).to.deep.equal({ a: 'b' });
  });

  it('rejects a line that is not a request', () => {
    for (const line of [
      '',
      'x',
      'null',
      '1',
      '[]',
      '"netstat"',
      '{}',
      '{"id":1}',
      '{"id":"1","cmd":"x"}',
      '{"id":1.5,"cmd":"x"}',
      '{"id":1,"cmd":1}',
      '{"id":1,"cmd":"x","args":[]}',
      '{"id":1,"cmd":"x","args":null}',
      '{"id":1,"cmd":"x"',
    ])
      expect(
        failure(() => parseRequest(line)),
        line,
      ).to.match(/^EINVAL: /);
  });

  it('rejects a line that is not an answer', () => {
    for (const line of ['', 'HTTP/1.1 400', 'null', '{}', '{"id":1,"ok":false}', '{"id":1,"ok":1}'])
      expect(
        failure(() => parseLine(line)),
        line,
      ).to.match(/^EPROTO: /);
    expect(parseLine('{"id":1,"ok":true,"data":[]}')).to.deep.equal({
      kind: 'answer',
      answer: { id: 1, ok: true, data: [] },
    });
    expect(parseLine('{"id":1,"event":{"a":1}}')).to.deep.equal({ kind: 'event', event: { a: 1 } });
    expect(parseLine('{"id":1,"bytes":7}')).to.deep.equal({ kind: 'body', bytes: 7 });
    for (const bytes of [0, -1, 1.5, '"1"', 2 ** 53])
      expect(
        failure(() => parseLine(`{"id":1,"bytes":${bytes}}`)),
        String(bytes),
      ).to.match(/^EPROTO: /);
  });
});

describe('ctl: errors of a request', () => {
  const stage = new FaultStage(
    { nowNs: () => 0, schedule: () => undefined, stop: () => undefined },
    (seed) => new SeededPrng(seed),
    0,
  );
  const answerTo = (thrown: Error): unknown => {
    const place = {
      if: 'tn0',
      stage,
      prepare: () => {
        throw thrown;
      },
    };
    const target = { vnet: vnet_alloc(new SeededPrng(1)), info: {}, faults: [place] };
    return handleRequest(target, { id: 1, cmd: 'fault', args: { op: 'add', kind: 'drop' } });
  };

  it('keep the code, the system call and the message of a TapnicError', () => {
    const err = {
      code: 'ENOMEM',
      syscall: 'fault',
      message: 'fault: ENOMEM: give the machine more memory',
    };
    const answer = { id: 1, ok: false, err };
    expect(answerTo(errnoError(ENOMEM, 'fault', 'give the machine more memory'))).to.deep.equal(
      answer,
    );
    expect(parseLine(JSON.stringify(answer))).to.deep.equal({ kind: 'answer', answer });
  });

  it('keep the code of an error of Node; an error without a code is EIO', () => {
    const refused = Object.assign(new Error('no'), { code: 'ECONNREFUSED', syscall: 'connect' });
    expect(failureResponse(2, refused)).to.deep.equal({
      id: 2,
      ok: false,
      err: { code: 'ECONNREFUSED', syscall: 'connect', message: 'no' },
    });
    for (const thrown of [new Error('no'), 'no'])
      expect(failureResponse(null, thrown)).to.deep.equal({
        id: null,
        ok: false,
        err: { code: 'EIO', message: 'no' },
      });
  });
});

describe('ctl: requests', () => {
  const read = (cmd: string, args: object = {}): ReturnType<typeof readRequest> =>
    readRequest({ id: 1, cmd, args: args as Record<string, unknown> });

  it('are converted to typed requests', () => {
    const cases: [string, object, object][] = [
      ['info', {}, {}],
      ['arp', {}, {}],
      ['ifconfig', {}, { if: null, words: [] }],
      ['ifconfig', { if: 'tn0', words: ['-nomap'] }, { if: 'tn0', words: ['-nomap'] }],
      ['netstat', { report: 'an', all: true }, { report: 'an', all: true }],
      ['netstat', { report: 'm' }, { report: 'm', all: false }],
      ['sysctl', {}, { name: '', value: null }],
      ['sysctl', { name: 'a.b', value: '1' }, { name: 'a.b', value: '1' }],
      ['vmstat', { report: 'z' }, { report: 'z' }],
      ['fault', { op: 'list' }, { op: 'list' }],
      ['fault', { op: 'remove', id: 3 }, { op: 'remove', id: 3, if: null }],
      ['fault', { op: 'remove', id: 'all', if: 'tn0' }, { op: 'remove', id: 'all', if: 'tn0' }],
      [
        'fault',
        { op: 'add', kind: 'drop', rate: 0.5, match: 'icmp', program: [[6, 0, 0, 1]] },
        {
          op: 'add',
          if: null,
          kind: 'drop',
          values: { rate: 0.5, match: 'icmp' },
          program: [[6, 0, 0, 1]],
        },
      ],
    ];
    for (const [cmd, args, rest] of cases)
      expect(read(cmd, args), cmd).to.deep.equal({ cmd, ...rest });
  });

  it('are rejected if an argument has the wrong type', () => {
    const cases: [string, object, RegExp][] = [
      ['nonesuch', {}, /^ENOSYS: no command "nonesuch"$/],
      ['ifconfig', { if: 1 }, /^EINVAL: if: not a string$/],
      ['ifconfig', { if: 'tn0', words: 'up' }, /^EINVAL: words: not a list of strings$/],
      ['ifconfig', { if: 'tn0', words: [1] }, /^EINVAL: words: not a list of strings$/],
      ['netstat', {}, /^EINVAL: netstat: no report \(none named\)$/],
      ['netstat', { report: 'x' }, /^EINVAL: netstat: no report x$/],
      ['vmstat', { report: 'i' }, /^EINVAL: vmstat: no report i$/],
      ['sysctl', { name: [] }, /^EINVAL: name: not a string$/],
      ['sysctl', { name: 'a.b', value: 1 }, /^EINVAL: value: not a string$/],
      ['fault', {}, /^EINVAL: fault: no operation $/],
      ['fault', { op: 'remove' }, /^EINVAL: : not an id, nor all$/],
      ['fault', { op: 'remove', id: 'x' }, /^EINVAL: x: not an id, nor all$/],
      ['fault', { op: 'remove', id: 1.5 }, /^EINVAL: 1\.5: not an id, nor all$/],
      ['fault', { op: 'add', kind: 1 }, /^EINVAL: kind: not a string$/],
      [
        'fault',
        { op: 'add', kind: 'drop', program: [[1]] },
        /^EINVAL: program: not a BPF program$/,
      ],
    ];
    for (const [cmd, args, message] of cases)
      expect(
        failure(() => read(cmd, args)),
        cmd,
      ).to.match(message);
  });
});

describe('ctl: sysctl', () => {
  let vnet: Vnet;
  let value: number;
  const before = machineSysctl.tree;

  beforeEach(() => {
    value = 1;
    machineSysctl.tree = new SysctlTree();
    machineSysctl.tree.int(
      'kern.ipc.b',
      'second',
      () => value,
      (v) => void (value = v),
      0,
      9,
    );
    machineSysctl.tree.counters('kern.ipc.a', 'first', () => [1, 2, 3], null);
    vnet = vnet_alloc(new SeededPrng(1));
    vnet.sysctl.string('net.inet.c', 'third', () => 'text');
  });
  after(() => {
    machineSysctl.tree = before;
  });

  const plain = { n: false, d: false, t: false };

  it('lists leaves of both trees, below a node or all', () => {
    expect(formatSysctl(readSysctl(vnet, ''), plain)).to.equal(
      'kern.ipc.a: 1 2 3\nkern.ipc.b: 1\nnet.inet.c: text\n',
    );
    expect(formatSysctl(readSysctl(vnet, 'kern.ipc'), { ...plain, n: true })).to.equal(
      '1 2 3\n1\n',
    );
    expect(formatSysctl(readSysctl(vnet, 'net'), { ...plain, d: true })).to.equal(
      'net.inet.c: third\n',
    );
    expect(formatSysctl(readSysctl(vnet, ''), { ...plain, t: true })).to.equal(
      'kern.ipc.a: opaque\nkern.ipc.b: integer\nnet.inet.c: string\n',
    );
    expect(readSysctl(vnet, 'kern.ipc.b')).to.deep.equal([
      {
        name: 'kern.ipc.b',
        value: 1,
        descr: 'second',
        writable: true,
        type: 'int',
        min: 0,
        max: 9,
      },
    ]);
    expect(failure(() => readSysctl(vnet, 'kern.ip'))).to.equal("ENOENT: unknown oid 'kern.ip'");
  });

  it('returns the old value after a write', () => {
    expect(formatSysctl([writeSysctl(vnet, 'kern.ipc.b', '7')], plain)).to.equal(
      'kern.ipc.b: 1 -> 7\n',
    );
    expect(value).to.equal(7);
  });

  it('reports a failed write in the words of sysctl(8)', () => {
    expect(failure(() => writeSysctl(vnet, 'kern.ipc.x', '1'))).to.equal(
      "ENOENT: unknown oid 'kern.ipc.x'",
    );
    expect(failure(() => writeSysctl(vnet, 'kern.ipc', '1'))).to.equal(
      "EISDIR: oid 'kern.ipc' isn't a leaf node",
    );
    expect(failure(() => writeSysctl(vnet, 'kern.ipc.a', '1'))).to.equal(
      "EPERM: oid 'kern.ipc.a' is read only",
    );
    for (const text of ['10', '-1', 'x', ''])
      expect(failure(() => writeSysctl(vnet, 'kern.ipc.b', text))).to.equal(
        `EINVAL: kern.ipc.b=${text}: Invalid argument`,
      );
    expect(value).to.equal(1);
  });
});
