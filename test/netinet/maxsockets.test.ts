/** kern.ipc.maxsockets, kern.ipc.maxsockbuf and the sizes of headers. */

import { expect } from 'chai';
import { ipcSysctlInit } from '../../src/kern/kern_ipc_sysctl.ts';
import { machineSysctl } from '../../src/kern/kern_sysctl.ts';
import { AF_INET, SOCK_DGRAM, SOCK_STREAM } from '../../src/kern/protosw.ts';
import {
  maxsocketsDefault,
  soParams,
  soclose,
  socreate,
  soreserve,
  soResult,
} from '../../src/kern/uipc_socket.ts';
import { EINVAL, ENOBUFS, EPERM } from '../../src/sys/errno.ts';
import { counted, R_SO_MAXSOCKETS } from '../../src/sys/reason.ts';
import { TestHost } from './tcp_host.ts';

describe('kern.ipc', () => {
  let h: TestHost;
  const { maxsockets } = soParams;
  beforeEach(() => {
    h = new TestHost();
    ipcSysctlInit();
  });
  afterEach(() => {
    h.close();
    soParams.maxsockets = maxsockets;
  });
  const write = (name: string, value: string | number): number =>
    machineSysctl.tree.write(`kern.ipc.${name}`, String(value));
  const read = (name: string): unknown => machineSysctl.tree.find(`kern.ipc.${name}`)!.get();

  it("maxsockets has FreeBSD's default: an eighth of the pages of memory", () => {
    expect(maxsocketsDefault(65536)).to.equal(8192);
    expect(maxsocketsDefault(4096)).to.equal(512);
    expect(maxsocketsDefault(1024)).to.equal(256);
    expect(maxsocketsDefault(1048576)).to.equal(131072);
  });

  it('socreate fails with ENOBUFS at maxsockets, counted, and works again after a close', () => {
    const first = h.socket();
    h.socket();
    expect(write('maxsockets', 2)).to.equal(0);
    for (const type of [SOCK_STREAM, SOCK_DGRAM])
      expect(socreate(h.vnet, AF_INET, type, 0)).to.equal(ENOBUFS);
    expect(counted(R_SO_MAXSOCKETS)).to.equal(2);
    h.closeSocket(first);
    expect(socreate(h.vnet, AF_INET, SOCK_DGRAM, 0)).to.equal(0);
    soclose(soResult.so!);
  });

  it('a connection beyond maxsockets does not reach the listener', () => {
    h.listen(80);
    expect(write('maxsockets', 1)).to.equal(0);
    h.seg({ flags: 'S', seq: 1000, mss: 1460 });
    const synAck = h.take()[0]!.ip!.tcp!;
    h.seg({ flags: '.', seq: 1001, ack: synAck.seq + 1 });
    expect(counted(R_SO_MAXSOCKETS)).to.equal(1);
    expect(read('numopensockets')).to.equal(1);
    expect(h.take().map((f) => f.ip!.tcp!.flags)).to.deep.equal(['R']);
  });

  it('maxsockbuf takes 2304 and more, as FreeBSD, above 2^31 too', () => {
    for (const v of [0, 2303, -1]) expect(write('maxsockbuf', v), String(v)).to.equal(EINVAL);
    for (const v of [2304, 4096, 2 ** 31, 2 ** 40]) expect(write('maxsockbuf', v)).to.equal(0);
    const so = h.socket();
    expect(soreserve(so, 64 * 1024 * 1024, 64 * 1024 * 1024)).to.equal(0);
    expect(so.so_rcv.sb_hiwat).to.equal(64 * 1024 * 1024);
    expect(write('maxsockbuf', 2 * 1024 * 1024)).to.equal(0);
  });

  it('max_linkhdr, max_protohdr and max_hdr can be read and not written', () => {
    const names = ['max_linkhdr', 'max_protohdr', 'max_hdr'];
    expect(names.map(read)).to.deep.equal([16, 60, 76]);
    for (const name of names) expect(write(name, 1)).to.equal(EPERM);
  });
});
