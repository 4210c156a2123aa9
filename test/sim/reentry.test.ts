/** Programs that call the stack from inside its own upcalls and in the middle of its work. */

import { expect } from 'chai';
import { NetHost } from '../../src/api/net_host.ts';
import { connect, createServer } from '../../src/api/server.ts';
import type { Socket } from '../../src/api/socket.ts';
import { sbused } from '../../src/kern/uipc_sockbuf.ts';
import { streamByte } from './endpoint.ts';
import { ADDR_B, SimNet } from './sim_net.ts';

describe('a full send buffer that may grow again', () => {
  for (const [growth, delayNs] of [
    [1277, 100_000],
    [2831, 5_000_000],
    [6716, 5_000_000],
  ] as const)
    it(`sends what was written when setNoDelay makes it grow by ${growth} bytes`, async () => {
      const net = new SimNet({ seed: 1, delayNs });
      const { sysctl } = net.a.vnet;
      const got: Buffer[] = [];
      const server = createServer(new NetHost(net.b.vnet), (socket) => {
        socket.on('data', (data: Buffer) => got.push(data));
        socket.on('end', () => socket.end());
      });
      server.listen(80);
      let client: Socket | null = null;
      connect(new NetHost(net.a.vnet), 80, ADDR_B).then(
        (socket) => (client = socket),
        () => {},
      );
      const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve));
      const until = async (done: () => boolean): Promise<void> => {
        for (let n = 0; n < 10_000 && !done(); n++) {
          net.clock.step(Infinity);
          await turn();
        }
        expect(done()).to.equal(true);
      };
      await until(() => client !== null);

      const data = Buffer.from(Array.from({ length: 300_000 }, (_, i) => streamByte(1, i)));
      const snd = client!.bsdSocket!.so_snd;
      let limit = snd.sb_hiwat;
      expect(sysctl.write('net.inet.tcp.sendbuf_max', String(limit))).to.equal(0);
      client!.write(data);
      await until(() => {
        if (sbused(snd) === snd.sb_hiwat && snd.sb_hiwat < 200_000) {
          limit += growth;
          expect(sysctl.write('net.inet.tcp.sendbuf_max', String(limit))).to.equal(0);
          client!.setNoDelay(true);
        }
        return got.reduce((n, { length }) => n + length, 0) >= data.length;
      });
      expect(limit, 'the buffer could grow').to.be.above(40_000);

      client!.resume().end();
      await until(() => client!.destroyed);
      expect(Buffer.concat(got).equals(data)).to.equal(true);
      server.close();
      net.close();
    });
});
