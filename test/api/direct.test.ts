/** Services inside the stack: they answer in the pass that receives, without a turn of the event loop. */

import { expect } from 'chai';
import { type DirectKind, DirectService } from '../../src/api/direct.ts';
import { CSUM_IP, CSUM_UDP } from '../../src/kern/mbuf.ts';
import { m_freem, mbufZones } from '../../src/kern/kern_mbuf.ts';
import { inPass } from '../../src/sys/pass.ts';
import { reasonCounts, resetReasons } from '../../src/sys/reason.ts';
import { AF_INET } from '../../src/kern/protosw.ts';
import { udp_input } from '../../src/netinet/udp_usrreq.ts';
import { outPacket, type RigOptions } from '../netinet/rig.ts';
import { Conn, PEER, TestHost, US } from '../netinet/tcp_host.ts';
import { bytesPerCall } from '../support/alloc.ts';
import { buildUdp } from '../support/frames.ts';

const PORT = 7;
const PEER_PORT = 40000;

interface Failure {
  what: string;
  address: string;
  port: number;
  code: string;
}

/** A service on a host whose peer the test plays. */
class ServiceHost extends TestHost {
  readonly failures: Failure[] = [];
  readonly service: DirectService;

  constructor(kind: DirectKind, rig: RigOptions = {}) {
    super(rig);
    this.service = new DirectService(this.vnet, {
      kind,
      port: PORT,
      ignores: (port) => port === 9,
      failed: (what, address, port, code) => void this.failures.push({ what, address, port, code }),
    });
  }

  /** Opens a connection from the peer. */
  open(sport = PEER_PORT): Conn {
    this.seg({ sport, dport: PORT, flags: 'S', seq: 1000, mss: 1460 });
    const synAck = this.take()[0]!.ip!.tcp!;
    expect(synAck.flags).to.equal('S.');
    const c = new Conn(this, sport, 1001, synAck.seq + 1);
    c.dport = PORT;
    c.seg({});
    return c;
  }

  /** The answers to `frames`, sent since the last call: flags and data. */
  answers(): string[] {
    return this.take().map(({ ip }) => {
      const { flags, payload } = ip!.tcp!;
      return `${flags} ${Buffer.from(payload).toString('latin1')}`;
    });
  }

  datagram(payload: string, sport = 5000): void {
    this.injectIp(
      buildUdp({ src: PEER, dst: US }, { sport, dport: PORT, payload: Buffer.from(payload) }),
    );
  }

  override close(): void {
    this.service.destroy();
    super.close();
  }
}

describe('api: services inside the stack', () => {
  let h: ServiceHost;
  afterEach(() => h.close());

  it('echo: answers each segment before the call that delivers it returns', () => {
    h = new ServiceHost('echo');
    const c = h.open();
    for (const text of ['a', 'bc', 'x'.repeat(1000)]) {
      c.data(text, { flags: 'P.' });
      expect(h.answers()).to.deep.equal([`P. ${text}`]);
      c.ack += text.length;
    }
  });

  it('echo: answers data that arrives with the last ACK of the handshake', () => {
    h = new ServiceHost('echo');
    h.seg({ dport: PORT, flags: 'S', seq: 1000, mss: 1460 });
    const c = new Conn(h, PEER_PORT, 1001, h.take()[0]!.ip!.tcp!.seq + 1);
    c.dport = PORT;
    c.data('early', { flags: 'P.' });
    expect(h.answers()).to.deep.equal(['P. early']);
  });

  it('echo: stops reading from a client that does not read, and goes on when it reads', () => {
    h = new ServiceHost('echo');
    const c = h.open();
    c.win = 0;
    c.seg({});
    h.take();
    const piece = 'y'.repeat(1460);
    let sent = 0;
    // Both buffers are full when the window that the stack advertises is closed.
    for (let window = 1; window > 0 && sent < 1e6;) {
      c.data(piece, { flags: 'P.' });
      sent += piece.length;
      h.advance(200);
      for (const { ip } of h.take()) window = ip!.tcp!.win;
    }
    expect(sent).to.be.within(90_000, 999_999);
    // The last segment may be beyond the window; the peer sends it again then.
    let received = 0;
    c.win = 65535;
    for (let idle = 0; idle < 30; idle++) {
      c.seg({});
      h.advance(500);
      for (const { ip } of h.take()) {
        const { seq, payload } = ip!.tcp!;
        if (payload.length === 0 || seq !== c.ack) continue;
        c.ack = (c.ack + payload.length) >>> 0;
        received += payload.length;
        idle = 0;
      }
    }
    expect(sent - received).to.be.within(0, 2 * piece.length);
    expect(h.failures).to.deep.equal([]);
  });

  it('echo: sends everything before its FIN', () => {
    h = new ServiceHost('echo');
    const c = h.open();
    c.data('last', { flags: 'FP.' });
    const flags = h.take().map(({ ip }) => ip!.tcp!.flags);
    expect(flags.join(' ')).to.match(/F/);
    expect(h.count(8)).to.equal(1); // LAST_ACK
  });

  it('discard: acknowledges everything, sends nothing, and closes after the peer', () => {
    h = new ServiceHost('discard');
    const c = h.open();
    for (let i = 0; i < 200; i++) {
      c.data('z'.repeat(1460));
      for (const { ip } of h.take()) expect(ip!.tcp!.payload.length).to.equal(0);
    }
    c.data('', { flags: 'F.' });
    expect(h.take().at(-1)!.ip!.tcp!).to.include({ flags: 'F.', ack: c.seq });
  });

  it('reports connections that the peer resets, at most 100 in a second', () => {
    resetReasons();
    h = new ServiceHost('discard');
    h.open().seg({ flags: 'R' });
    const failure = { what: 'connection', address: PEER, port: PEER_PORT, code: 'ECONNRESET' };
    expect(h.failures.map((f) => ({ ...f, address: f.address.replace('::ffff:', '') }))).to.eql([
      failure,
    ]);
    for (let i = 1; i < 150; i++) h.open(PEER_PORT + i).seg({ flags: 'R' });
    expect(h.failures).to.have.lengthOf(100);
    expect(reasonCounts().find(({ reason }) => reason === 'line_suppressed')?.count).to.equal(50);
    h.advance(1000);
    h.open().seg({ flags: 'R' });
    expect(h.failures).to.have.lengthOf(101);
  });

  it('answers datagrams, but not from port 0 and from ports that it ignores', () => {
    h = new ServiceHost('echo');
    const used = (): number[] => Object.values(mbufZones()).map((zone) => zone.current);
    const before = used();
    for (const text of ['ping', '', 'q'.repeat(1400)]) {
      h.datagram(text);
      const [frame, ...rest] = h.take();
      expect(rest).to.have.lengthOf(0);
      expect(frame!.ip!.udp!).to.include({ sport: PORT, dport: 5000 });
      expect(Buffer.from(frame!.ip!.udp!.payload).toString()).to.equal(text);
    }
    for (const port of [0, 9]) h.datagram('no', port);
    expect(h.take()).to.have.lengthOf(0);
    expect(used()).to.deep.equal(before);
  });

  it('close: ends connections; destroy: resets them; both free the port', () => {
    h = new ServiceHost('echo');
    h.open();
    h.service.close();
    expect(h.take().at(-1)!.ip!.tcp!.flags).to.equal('F.');
    const again = new DirectService(h.vnet, {
      kind: 'discard',
      port: PORT,
      ignores: () => false,
      failed: () => undefined,
    });
    expect(
      () =>
        new DirectService(h.vnet, {
          kind: 'echo',
          port: PORT,
          ignores: () => false,
          failed: () => undefined,
        }),
    ).to.throw('EADDRINUSE');
    h.open(PEER_PORT + 1);
    again.destroy();
    expect(h.take().at(-1)!.ip!.tcp!.flags).to.match(/R/);
  });

  it('makes no garbage for a datagram', () => {
    h = new ServiceHost('echo', { hwassist: CSUM_UDP | CSUM_IP });
    h.if_transmit = (_ifp, m): number => {
      m_freem(m);
      return 0;
    };
    const packet = buildUdp(
      { src: PEER, dst: US },
      { sport: 5000, dport: PORT, payload: new Uint8Array(64) },
    );
    const mbuf = bytesPerCall(() => m_freem(outPacket(packet)));
    const receive = (): void => {
      const m = outPacket(packet);
      m.m_pkthdr.rcvif = h.ifp;
      udp_input(m, 20, h.vnet, AF_INET);
    };
    expect(bytesPerCall(() => inPass(receive)) - mbuf).to.be.below(8);
  }).timeout(60_000);
});
