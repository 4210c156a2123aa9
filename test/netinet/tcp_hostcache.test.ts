import { expect } from 'chai';
import { buildIcmp, buildIp4 } from '../support/frames.ts';
import { InConninfo } from '../../src/netinet/in_pcb.ts';
import { tcp_hc_getmtu, tcp_hc_updatemtu } from '../../src/netinet/tcp_hostcache.ts';
import { V_tcp } from '../../src/netinet/tcp_var.ts';
import { counted, R_TCP_HC_EVICTED } from '../../src/sys/reason.ts';
import { TestHost } from './tcp_host.ts';

const size = 1448;

describe('tcp: host cache', () => {
  let h: TestHost;
  beforeEach(() => (h = new TestHost()));
  afterEach(() => h.close());

  const leaf = (name: string): unknown =>
    h.vnet.sysctl.find(`net.inet.tcp.hostcache.${name}`)!.get();
  let sport = 40000;
  /** A connection of five round trips of `rttMs`, reset by the peer. */
  const connection = (rttMs: number): void => {
    const c = h.establish({ sport: ++sport, dport: sport - 39000, mss: 1460 });
    for (let i = 1; i <= 5; i++) {
      h.write(c.so, 'x');
      h.take();
      h.advance(rttMs);
      c.seg({ ack: c.ack + i });
    }
    c.seg({ flags: 'R', seq: c.seq, ack: 0 });
    h.closeSocket(c.so);
  };

  it('starts with the RTT that the last connection to the host measured', () => {
    connection(200);
    expect(leaf('count')).to.equal(1);
    const c = h.establish({ sport: 50000, dport: 8080, mss: 1460 });
    const tp = h.tp(c.so);
    expect(tp.t_srtt / 32).to.be.within(150, 210);
    expect(tp.t_rxtcur).to.be.within(350, 1200);
    expect(h.stat.tcps_usedrtt).to.equal(1);
    expect(String(leaf('list'))).to.match(/\n192\.0\.2\.1 .*ms/);
  });

  it('discards an entry after an hour and on purgenow, and uses none when disabled', () => {
    connection(200);
    h.advance(3_601_000);
    expect(h.tp(h.establish({ sport: 50000, dport: 8080 }).so).t_srtt).to.equal(0);
    connection(200);
    expect(h.tp(h.establish({ sport: 50001, dport: 8081 }).so).t_srtt).to.be.above(0);
    h.vnet.sysctl.write('net.inet.tcp.hostcache.purgenow', '1');
    expect(leaf('count')).to.equal(0);
    expect(h.tp(h.establish({ sport: 50002, dport: 8082 }).so).t_srtt).to.equal(0);
    connection(200);
    h.vnet.sysctl.write('net.inet.tcp.hostcache.enable', '0');
    expect(h.tp(h.establish({ sport: 50003, dport: 8083 }).so).t_srtt).to.equal(0);
  });

  it('prune is the time between two removals of expired entries', () => {
    h.vnet.sysctl.write('net.inet.tcp.hostcache.expire', '10');
    h.vnet.sysctl.write('net.inet.tcp.hostcache.prune', '60');
    connection(200);
    h.advance(40_000);
    expect(leaf('count')).to.equal(1);
    h.advance(25_000);
    expect(leaf('count')).to.equal(0);
  });

  it('purge removes all entries at the next run and is 0 then', () => {
    h.vnet.sysctl.write('net.inet.tcp.hostcache.prune', '60');
    connection(200);
    h.advance(65_000);
    expect(leaf('count')).to.equal(1);
    h.vnet.sysctl.write('net.inet.tcp.hostcache.purge', '1');
    h.advance(55_000);
    expect([leaf('count'), leaf('purge')]).to.deep.equal([0, 0]);
  });

  it('stores nothing from a connection without an RTT sample', () => {
    const c = h.establish({});
    c.seg({ flags: 'R', seq: c.seq, ack: 0 });
    expect(leaf('count')).to.equal(0);
  });

  // RFC 1191: the next connection starts with the smaller path MTU.
  it('replaces an entry of a full bucket, and counts it', () => {
    const tcp = V_tcp(h.vnet);
    const inc = new InConninfo();
    const peers = 16_000; // more than 512 buckets of 30
    for (let i = 0; i < peers; i++) {
      inc.setFaddr(0xc6120000 | i | 0);
      tcp_hc_updatemtu(tcp, inc, 1000);
    }
    const entries = leaf('count') as number;
    expect(entries).to.be.most(15360);
    expect(counted(R_TCP_HC_EVICTED)).to.equal(peers - entries);
    expect(tcp_hc_getmtu(tcp, inc)).to.equal(1000);
  });

  it('stores the path MTU from an ICMP error', () => {
    const c = h.establish({ mss: 1460 });
    h.write(c.so, new Uint8Array(2 * size));
    h.take();
    const quoted = new Uint8Array(28);
    quoted.set(
      buildIp4({ src: '192.0.2.2', dst: '192.0.2.1', df: true, len: 1500 }, 6, new Uint8Array(8)),
    );
    quoted.set([0, 80, c.sport >> 8, c.sport & 255], 20);
    new DataView(quoted.buffer).setUint32(24, c.ack);
    const icmp = buildIcmp({ type: 3, code: 4, seq: 1000, payload: quoted });
    h.injectIp(buildIp4({ src: '192.0.2.1', dst: '192.0.2.2' }, 1, icmp));
    h.take();
    const next = h.establish({ sport: 50000, dport: 8080, mss: 1460 });
    expect(h.tp(next.so).t_maxseg).to.equal(960);
  });

  it('lowers the MSS with pmtud_blackhole_detection, and restores it if that does not help', () => {
    h.vnet.sysctl.write('net.inet.tcp.pmtud_blackhole_detection', '1');
    const c = h.establish({ mss: 1460 });
    const tp = h.tp(c.so);
    h.write(c.so, new Uint8Array(3000));
    const sizes = (): number => Math.max(0, ...h.take().map((f) => f.ip!.tcp!.payload.length));
    expect(sizes()).to.equal(1460);
    const seen: number[] = [];
    for (let n = 1; n <= 7; n++) {
      const before = h.stat.tcps_rexmttimeo;
      for (let ms = 0; ms < 200_000 && h.stat.tcps_rexmttimeo === before; ms += 10) h.advance(10);
      seen.push(sizes());
    }
    expect(seen).to.deep.equal([1460, 1200, 1200, 536, 536, 1460, 1460]);
    expect(tp.t_maxseg).to.equal(1460);
    expect(h.stat.tcps_pmtud_blackhole_failed).to.equal(1);
  });
});
