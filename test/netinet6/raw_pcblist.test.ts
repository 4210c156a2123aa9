/** Raw sockets of both families in `netstat -an`. */

import { expect } from 'chai';
import { formatNetstatAn, gatherNetstatAn } from '../../src/ctl/netstat_an.ts';
import { AF_INET, SOCK_RAW } from '../../src/kern/protosw.ts';
import { sobind, soclose, soconnect, socreate, soResult } from '../../src/kern/uipc_socket.ts';
import { IPPROTO_ICMP } from '../../src/sys/protocols.ts';
import { IPPROTO_ICMPV6 } from '../../src/netinet6/ip6.ts';
import { A6, B6, Pair6, sin6 } from './pair.ts';

describe('raw sockets in netstat -an', () => {
  let pair: Pair6;
  beforeEach(() => (pair = new Pair6()));
  afterEach(() => pair.close());

  it('are icm4 and icm6 after TCP and UDP, without ports', () => {
    const { vnet } = pair.net.a;
    expect(gatherNetstatAn(vnet, true)).to.deep.equal([]);
    const peer = pair.socket(vnet, SOCK_RAW, IPPROTO_ICMPV6);
    expect(sobind(peer, sin6(A6, 0))).to.equal(0);
    expect(soconnect(peer, sin6(B6, 0))).to.equal(0);
    expect(socreate(vnet, AF_INET, SOCK_RAW, IPPROTO_ICMP)).to.equal(0);
    const four = soResult.so!;

    const rows = gatherNetstatAn(vnet, true);
    expect(rows.map((r) => [r.proto, r.local, r.foreign, r.state])).to.deep.equal([
      ['icm4', '*.*', '*.*', ''],
      ['icm6', `${A6}.*`, `${B6}.*`, ''],
    ]);
    expect(rows[0]).to.include({ recvq: 0, sendq: 0, recv_hiwat: four.so_rcv.sb_hiwat });
    expect(formatNetstatAn(rows, true).split('\n').slice(2)).to.deep.equal([
      `icm4       0      0 *.*                    *.*`,
      `icm6       0      0 2001:db8::1.*          2001:db8::2.*`,
      '',
    ]);
    // Without -a: only those with a peer.
    expect(gatherNetstatAn(vnet, false).map(({ proto }) => proto)).to.deep.equal(['icm6']);
    soclose(four);
  });
});
