import { expect } from 'chai';
import {
  SO_REUSEADDR,
  SO_REUSEPORT,
  sobind,
  solisten,
  soconnect,
} from '../../src/kern/uipc_socket.ts';
import { AF_INET6 } from '../../src/kern/protosw.ts';
import { InConninfo, in_pcblookup, type Inpcb } from '../../src/netinet/in_pcb.ts';
import { nextPktId } from '../../src/sys/packet_id.ts';
import { V_portrange } from '../../src/netinet/in_portrange.ts';
import { inetAf } from '../../src/netinet/inp_inet.ts';
import { tcp_pcblist } from '../../src/netinet/tcp_pcblist.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { EADDRINUSE, EADDRNOTAVAIL, EAFNOSUPPORT, EINVAL, EACCES } from '../../src/sys/errno.ts';
import { port } from '../../src/sys/types.ts';
import { expectTx, flags } from '../support/frames.ts';
import { addr } from './rig.ts';
import { PEER, sin, TestHost, US } from './tcp_host.ts';

describe('in_pcb', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  const lport = (so: { so_pcb: object | null }): number => (so.so_pcb as Inpcb).inp_inc.inc_lport;

  it('binds to our own addresses and to free ports only', () => {
    const a = h.socket();
    expect(sobind(a, sin('203.0.113.1', 80))).to.equal(EADDRNOTAVAIL);
    const six = sin(US, 80);
    six.family = AF_INET6;
    expect(sobind(a, six)).to.equal(EAFNOSUPPORT);
    expect(sobind(a, sin(US, 80))).to.equal(0);
    expect(sobind(a, sin(US, 81))).to.equal(EINVAL);
    const b = h.socket();
    expect(sobind(b, sin(US, 80))).to.equal(EADDRINUSE);
    expect(sobind(b, sin('0.0.0.0', 80))).to.equal(EADDRINUSE);
    expect(sobind(b, sin('127.0.0.1', 80))).to.equal(0);
    h.closeSocket(a);
    const d = h.socket();
    expect(sobind(d, sin(US, 80))).to.equal(0);
  });

  it('SO_REUSEADDR ignores bindings to other addresses and connections, but not the same binding', () => {
    const c = h.establish({});
    const again = h.socket();
    expect(sobind(again, sin('0.0.0.0', 80))).to.equal(EADDRINUSE);
    again.so_options |= SO_REUSEADDR;
    expect(sobind(again, sin('0.0.0.0', 80)), 'a listener has the same binding').to.equal(
      EADDRINUSE,
    );
    expect(sobind(again, sin(US, 80)), 'a specific address beside the listener').to.equal(0);
    h.closeSocket(c.so);
    const both = [h.socket(), h.socket()];
    for (const so of both) {
      so.so_options |= SO_REUSEPORT;
      expect(sobind(so, sin('127.0.0.1', 90))).to.equal(0);
    }
  });

  it('SO_REUSEADDR binds a port again while its old connections still exist', () => {
    const head = h.listen(81);
    const c = h.establish({ dport: 82 });
    h.closeSocket(h.sockets.find((so) => lport(so) === 82 && so !== c.so)!);
    h.closeSocket(head);
    const plain = h.socket();
    expect(sobind(plain, sin('0.0.0.0', 82))).to.equal(EADDRINUSE);
    plain.so_options |= SO_REUSEADDR;
    expect(sobind(plain, sin('0.0.0.0', 82))).to.equal(0);
  });

  it('allocates every port of net.inet.ip.portrange once, then returns EADDRNOTAVAIL', () => {
    V_portrange(h.vnet).first = 20000;
    V_portrange(h.vnet).last = 20009;
    const got = new Set<number>();
    for (let i = 0; i < 10; i++) {
      const so = h.socket();
      expect(solisten(so, 1)).to.equal(0);
      got.add(lport(so));
    }
    expect([...got].sort((x, y) => x - y)).to.deep.equal(
      Array.from({ length: 10 }, (_, i) => 20000 + i),
    );
    expect(solisten(h.socket(), 1)).to.equal(EADDRNOTAVAIL);
    expect(soconnect(h.socket(), sin(PEER, 80))).to.equal(EADDRNOTAVAIL);
  });

  it('uses one local port for several connections to different foreign ports', () => {
    V_portrange(h.vnet).first = 20000;
    V_portrange(h.vnet).last = 20000;
    for (const to of [80, 81, 82]) expect(lport(h.connect(to))).to.equal(20000);
    expect(soconnect(h.socket(), sin(PEER, 80))).to.equal(EADDRNOTAVAIL);
  });

  it('chooses ports from the whole range', () => {
    const got = new Set(Array.from({ length: 50 }, (_, i) => lport(h.connect(1000 + i))));
    expect(got.size).to.be.above(45);
    const sorted = [...got].sort((x, y) => x - y);
    expect(sorted.at(-1)! - sorted[0]!).to.be.above(20_000);
    expect(sorted[0]).to.be.at.least(10_000);
  });

  it('refuses to connect to a multicast address, the broadcast address and port 0', () => {
    const so = h.socket();
    expect(soconnect(so, sin('224.0.0.1', 80))).to.equal(EAFNOSUPPORT);
    expect(soconnect(so, sin('192.0.2.255', 80))).to.equal(EACCES);
    expect(soconnect(so, sin(PEER, 0))).to.equal(EADDRNOTAVAIL);
  });

  it('prefers a connection to a listener, and a bound address to INADDR_ANY', () => {
    const any = h.listen(80);
    const exact = h.socket();
    exact.so_options |= SO_REUSEADDR;
    expect(sobind(exact, sin(US, 80))).to.equal(0);
    expect(solisten(exact, 5)).to.equal(0);
    const inc = new InConninfo();
    inc.setLaddr(addr(US));
    inc.setFaddr(addr(PEER));
    inc.inc_lport = port(80);
    inc.inc_fport = port(40000);
    const info = V_tcp(h.vnet).tcbinfo;
    expect(in_pcblookup(info, inetAf, inc, true)!.inp_socket).to.equal(exact);
    inc.setLaddr(addr('127.0.0.1'));
    expect(in_pcblookup(info, inetAf, inc, true)!.inp_socket).to.equal(any);
    expect(in_pcblookup(info, inetAf, inc, false)).to.equal(null);
    h.seg({ flags: 'S', seq: 1 });
    expectTx(h.sent, [flags('S.')]);
  });

  it('finds each of 500 connections, and none of the closed ones', () => {
    const info = V_tcp(h.vnet).tcbinfo;
    const sockets = Array.from({ length: 500 }, (_, i) => h.connect(2000 + i));
    h.sent.length = 0;
    const incs = sockets.map((so) => (so.so_pcb as Inpcb).inp_inc);
    for (let i = 0; i < 500; i++)
      expect(in_pcblookup(info, inetAf, incs[i]!, true)!.inp_socket).to.equal(sockets[i]);
    // Try many near misses, so that some hash to the same chain.
    for (const field of [
      'inc_l0',
      'inc_l3',
      'inc_f0',
      'inc_f3',
      'inc_lport',
      'inc_fport',
    ] as const) {
      const other = new InConninfo();
      for (let n = 1; n < 5000; n++) {
        other.copyFrom(incs[7]!);
        const changed = other[field] ^ (n << 16);
        Object.assign(other, { [field]: changed });
        expect(in_pcblookup(info, inetAf, other, true), `another ${field}`).to.equal(null);
      }
    }
    const gone = incs.filter((_, i) => i % 3 === 0);
    for (let i = 0; i < 500; i += 3) h.closeSocket(sockets[i]!);
    for (const inc of gone) expect(in_pcblookup(info, inetAf, inc, true)).to.equal(null);
    expect(tcp_pcblist(h.vnet)).to.have.length(333);
    expect(info.ipi_count).to.equal(333);
  });

  it('lists the rows that netstat prints', () => {
    const c = h.establish();
    h.seg({ flags: 'S', seq: 9, sport: 50000 });
    h.write(c.so, 'unacked');
    const rows = tcp_pcblist(h.vnet).map(
      (r) => `${r.laddr}.${r.lport} ${r.faddr}.${r.fport} ${r.state}`,
    );
    expect(rows).to.have.members([
      '192.0.2.2.80 192.0.2.1.40000 ESTABLISHED',
      '0.0.0.0.80 0.0.0.0.0 LISTEN',
      '192.0.2.2.80 192.0.2.1.50000 SYN_RCVD',
    ]);
    expect(tcp_pcblist(h.vnet).find((r) => r.state === 'ESTABLISHED')!.sendq).to.equal(7);
  });

  it('numbers packets from 1 upwards', () => {
    const first = nextPktId();
    expect(nextPktId()).to.equal(first + 1);
    expect(first).to.be.above(0);
  });
});
