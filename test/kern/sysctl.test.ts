import { expect } from 'chai';
import { EINVAL, ENOENT, EPERM } from '../../src/sys/errno.ts';
import { mbParams } from '../../src/kern/kern_mbuf.ts';
import { machineSysctl, SysctlTree } from '../../src/kern/kern_sysctl.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { VNET_DEFINE, vnet_alloc } from '../../src/kern/vnet.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { bootEach } from './boot.ts';

describe('kern_sysctl', () => {
  bootEach();

  it('integers: range, decimal, hexadecimal and negative numbers', () => {
    let v = 0;
    const tree = new SysctlTree();
    tree.int(
      'a.b',
      'n',
      () => v,
      (n) => void (v = n),
      -5,
      0x20,
    );
    for (const [text, error] of [
      ['32', 0],
      ['0x1F', 0],
      ['-5', 0],
      ['-6', EINVAL],
      ['33', EINVAL],
      ['', EINVAL],
      ['1.5', EINVAL],
      ['1e1', EINVAL],
      [' 1', EINVAL],
      ['0x', EINVAL],
      ['99999999999999999999', EINVAL],
    ] as const)
      expect(tree.write('a.b', text), text).to.equal(error);
    expect(v).to.equal(-5);
    tree.write('a.b', '0x1f');
    expect(v).to.equal(31);
  });

  it('write returns ENOENT, EPERM or the error of the setter', () => {
    const tree = new SysctlTree();
    tree.int('a', '', () => 1, null);
    tree.string('s', '', () => 'text');
    tree.int(
      'b',
      '',
      () => 1,
      () => EINVAL,
    );
    expect(tree.write('nonesuch', '1')).to.equal(ENOENT);
    expect(tree.write('a', '1')).to.equal(EPERM);
    expect(tree.write('s', '1')).to.equal(EPERM);
    expect(tree.write('b', '1')).to.equal(EINVAL);
  });

  it('booleans are 0 and 1', () => {
    const { tree } = machineSysctl;
    expect(tree.find('kern.ipc.mb_use_ext_pgs')!.get()).to.equal(1);
    expect(tree.write('kern.ipc.mb_use_ext_pgs', '2')).to.equal(EINVAL);
    expect(tree.write('kern.ipc.mb_use_ext_pgs', '0')).to.equal(0);
    expect(mbParams.mb_use_ext_pgs).to.equal(false);
    expect(tree.find('kern.ipc.mb_use_ext_pgs')!.get()).to.equal(0);
  });

  it('kern.ipc.sfstat is 11 counters; writing anything resets them', () => {
    const { tree } = machineSysctl;
    Object.keys(sfstat).forEach((name, i) => (sfstat[name as keyof typeof sfstat] = i + 1));
    expect(tree.find('kern.ipc.sfstat')!.get()).to.eql([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]);
    expect(tree.write('kern.ipc.sfstat', '0')).to.equal(0);
    expect(tree.find('kern.ipc.sfstat')!.get()).to.eql(Array.from({ length: 11 }, () => 0));
  });

  it('lists in order of names; a prefix selects itself and the names below it', () => {
    const tree = new SysctlTree();
    for (const name of ['b.x', 'a.bc', 'a.b.c', 'a.b']) tree.int(name, '', () => 0, null);
    expect(tree.list().map((o) => o.name)).to.eql(['a.b', 'a.b.c', 'a.bc', 'b.x']);
    expect(tree.list('a.b').map((o) => o.name)).to.eql(['a.b', 'a.b.c']);
    expect(() => tree.int('a.b', '', () => 0, null)).to.throw('name taken');
  });

  it('every leaf of the machine can be read, and is in its range', () => {
    for (const oid of machineSysctl.tree.list()) {
      const v = oid.get();
      if (oid.type === 'int') expect(v, oid.name).to.be.within(oid.min, oid.max);
    }
  });
});

describe('vnet', () => {
  it('gives each stack its own variables, created at the first use', () => {
    let made = 0;
    const V_thing = VNET_DEFINE((vnet) => ({ n: ++made, vnet }));
    const [a, b] = [1, 2].map((s) => vnet_alloc(new SeededPrng(s)));
    expect(made).to.equal(0);
    expect(V_thing(a!)).to.equal(V_thing(a!));
    expect(V_thing(b!)).to.not.equal(V_thing(a!));
    expect(V_thing(b!).vnet).to.equal(b);
    expect(made).to.equal(2);
  });
});
