import { expect } from 'chai';
import { below, fraction, SeededPrng } from '../../src/host/prng.ts';
import { AF_INET, AF_INET6 } from '../../src/kern/protosw.ts';
import { SO_RCV, soclose, soupcall_set } from '../../src/kern/uipc_socket.ts';
import { tcp_pcblist, tcpConnections } from '../../src/netinet/tcp_pcblist.ts';
import { tcpstat, V_tcp } from '../../src/netinet/tcp_var.ts';
import { Acceptor, connectTo, Endpoint, listenOn, type Plan, tcpSocket } from './endpoint.ts';
import { ADDR6_B, ADDR_B, SimNet } from './sim_net.ts';

const FULL = process.env['TAPNIC_FULL'] === '1';
const SEEDS = FULL ? 500 : 60;
/** IPv6 has fewer seeds at CI size. */
const SEEDS6 = FULL ? 500 : 20;
const SECOND = 1e9;

/**
 * Runs one connection over `net` to the end, over IPv6 if it has IPv6; returns both programs and
 * whether they ended.
 */
function transfer(net: SimNet, prng: SeededPrng, toB: number, toA: number, limitNs: number) {
  const { six } = net;
  const chunk = 1 + below(prng, 20_000);
  const order = below(prng, 3);
  const client: Plan = {
    sendKey: 1,
    recvKey: 2,
    total: toB,
    chunk,
    closeLast: order === 1,
  };
  const server: Plan = {
    sendKey: 2,
    recvKey: 1,
    total: toA,
    chunk: 1 + below(prng, 20_000),
    closeLast: order === 2,
  };
  const listener = listenOn(net.b.vnet, 80, 8, six);
  const acceptor = new Acceptor(listener);
  let far: Endpoint | null = null;
  acceptor.onAccept = (so) => {
    far = new Endpoint(so, server, prng);
    net.clock.post(far);
  };
  const so = tcpSocket(net.a.vnet, six ? AF_INET6 : AF_INET);
  const near = new Endpoint(so, client, prng);
  connectTo(so, six ? ADDR6_B : ADDR_B, 80);
  const ended = net.clock.runUntil(() => near.done && far !== null && far.done, limitNs);
  soclose(listener);
  const state = ended ? '' : [...tcp_pcblist(net.a.vnet), ...tcp_pcblist(net.b.vnet)];
  return { near, far: far as Endpoint | null, ended, state: JSON.stringify(state) };
}

function expectWhole(r: ReturnType<typeof transfer>, what: string): void {
  const { near, far } = r;
  const told = `${String(near)} ${String(far)} ${r.state}`;
  expect(r.ended, `${what}: ended in time: ${told}`).to.equal(true);
  expect(near.error, `${what}: client`).to.equal('');
  expect(far!.error, `${what}: server`).to.equal('');
  expect(far!.received, `${what}: bytes to the server`).to.equal(near.plan.total);
  expect(near.received, `${what}: bytes to the client`).to.equal(far!.plan.total);
}

for (const six of [false, true])
  describe(`TCP between two stacks in virtual time, ${six ? 'IPv6' : 'IPv4'}`, () => {
    const seeds = six ? SEEDS6 : SEEDS;
    const family = six ? AF_INET6 : AF_INET;
    for (const offload of [false, true]) {
      it(`carries 3 MB in each direction over a clean wire without a retransmission${offload ? ', TSO' : ''}`, () => {
        const net = new SimNet({ seed: 1, six, offload: offload ? 'tso' : 'none' });
        const r = transfer(net, new SeededPrng(1), 3_000_000, 3_000_000, 100 * SECOND);
        expectWhole(r, 'clean');
        for (const port of [net.a, net.b]) {
          const stat = tcpstat(port.vnet);
          expect(stat.tcps_sndrexmitpack, 'retransmitted').to.equal(0);
          expect(stat.tcps_rcvoopack, 'out of order').to.equal(0);
          // Only a FIN may come again: every ACK repeats it until it is acknowledged.
          expect(stat.tcps_rcvdupbyte, 'duplicates').to.equal(0);
          if (offload) expect(port.frames, 'frames').to.be.below(3_000_000 / 1448 / 2);
        }
        // At least one side stays in TIME_WAIT for 2 MSL; after that no control block is left.
        net.clock.advance(61 * SECOND);
        for (const port of [net.a, net.b]) {
          expect(tcpConnections(port.vnet)).to.equal(0);
          expect(V_tcp(port.vnet).tcbinfo.ipi_count).to.equal(0);
        }
        net.close();
      });
    }

    it(`delivers every byte under mild loss, reordering and duplication, ${seeds} seeds`, function () {
      this.timeout(FULL ? 600_000 : 60_000);
      for (let seed = 1; seed <= seeds; seed++) {
        const prng = new SeededPrng(seed);
        const faults = [
          `drop,rate=${fraction(prng) * 0.03}`,
          `duplicate,rate=${fraction(prng) * 0.02}`,
          `reorder,rate=${fraction(prng) * 0.05},delay=0,jitter=20`,
        ];
        const delayNs = 50_000 + below(prng, 20_000_000);
        const offload = below(prng, 2) === 1 ? 'tso' : 'none';
        const net = new SimNet({ seed, six, faults, delayNs, offload });
        const size = (): number => (below(prng, 5) === 0 ? below(prng, 3) : below(prng, 400_000));
        let r: ReturnType<typeof transfer>;
        try {
          r = transfer(net, prng, size(), size(), 1800 * SECOND);
        } catch (err) {
          throw new Error(`seed ${seed}: ${String(err)}`, { cause: err });
        }
        expectWhole(r, `seed ${seed}`);
        // All control blocks must disappear by themselves, even if the last ACK is lost.
        net.clock.advance(1000 * SECOND);
        for (const port of [net.a, net.b])
          expect(V_tcp(port.vnet).tcbinfo.ipi_count, `seed ${seed}: PCBs left`).to.equal(0);
        net.close();
      }
    });

    it('carries a connection over lo0 with both ends in one stack', () => {
      const net = new SimNet({ seed: 3, six, offload: 'tso' });
      const { vnet } = net.a;
      const prng = new SeededPrng(3);
      const listener = listenOn(vnet, 80, 8, six);
      const acceptor = new Acceptor(listener);
      const plan = { total: 500_000, chunk: 20_000, closeLast: false };
      let far: Endpoint | null = null;
      acceptor.onAccept = (so) => {
        far = new Endpoint(so, { sendKey: 2, recvKey: 1, ...plan }, prng);
        net.clock.post(far);
      };
      const so = tcpSocket(vnet, family);
      const near = new Endpoint(so, { sendKey: 1, recvKey: 2, ...plan }, prng);
      connectTo(so, six ? '::1' : '127.0.0.1', 80);
      const ended = net.clock.runUntil(() => near.done && far !== null && far.done, 100 * SECOND);
      expect(ended, `${String(near)} ${String(far)}`).to.equal(true);
      expect(near.error + far!.error).to.equal('');
      expect([near.received, far!.received]).to.deep.equal([plan.total, plan.total]);
      soclose(listener);
      net.close();
    });

    it('replays a run from its seed with the same frames', () => {
      const traces = [7, 7, 8].map((seed) => {
        const faults = ['drop,rate=0.02', 'duplicate,rate=0.02', 'reorder,rate=0.05,jitter=5'];
        const net = new SimNet({ seed, six, faults, delayNs: 1e6 });
        const trace: string[] = [];
        for (const port of [net.a, net.b])
          port.onFrame = (bytes) =>
            void trace.push(
              `${net.clock.nowNs()} ${Buffer.from(bytes.subarray(0, 66)).toString('hex')}`,
            );
        transfer(net, new SeededPrng(seed), 50_000, 50_000, 100 * SECOND);
        net.close();
        return trace;
      });
      expect(traces[0]!.length).to.be.above(60);
      expect(traces[1]).to.deep.equal(traces[0]);
      expect(traces[2]).to.not.deep.equal(traces[0]);
    });

    it('ends a connection whose peer does not answer any more', () => {
      const net = new SimNet({ seed: 5, six });
      const listener = listenOn(net.b.vnet, 80, 8, six);
      const acceptor = new Acceptor(listener);
      const so = tcpSocket(net.a.vnet, family);
      connectTo(so, six ? ADDR6_B : ADDR_B, 80);
      expect(net.clock.runUntil(() => acceptor.accepted.length === 1, SECOND)).to.equal(true);
      net.a.framesLeft = 0;
      net.b.framesLeft = 0;
      const plan: Plan = { sendKey: 1, recvKey: 2, total: 1000, chunk: 1000, closeLast: false };
      const near = new Endpoint(so, plan, new SeededPrng(1));
      near.run();
      expect(net.clock.runUntil(() => near.done, 3600 * SECOND)).to.equal(true);
      // ARP is not cut, and no ARP error reaches TCP. Neighbour unreachability detection fails, which is
      // a soft error of a connection that has sent its FIN; tcp_drop prefers it to ETIMEDOUT.
      expect(near.error).to.match(six ? /EHOSTUNREACH/ : /ETIMEDOUT/);
      soupcall_set(acceptor.accepted[0]!, SO_RCV, null);
      soclose(acceptor.accepted[0]!);
      soclose(listener);
      net.close();
    });
  });
