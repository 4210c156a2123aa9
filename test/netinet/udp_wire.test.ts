/** Datagrams with unmapped payload on the wire, for each kind of NIC, verified by tshark. */

import { expect } from 'chai';
import { M_NOWAIT, M_PKTHDR } from '../../src/kern/mbuf.ts';
import { m_uiotombuf_nomap } from '../../src/kern/m_uiotombuf.ts';
import { AF_INET, IPPROTO_UDP, SOCK_DGRAM } from '../../src/kern/protosw.ts';
import { soclose, socreate, soreserve, soResult } from '../../src/kern/uipc_socket.ts';
import { inSockaddr, parseInAddr } from '../../src/netinet/in.ts';
import type { NetstatM } from '../../src/ctl/netstat_m.ts';
import { inPass } from '../../src/sys/pass.ts';
import { port } from '../../src/sys/types.ts';
import { Uio, UIO_WRITE } from '../../src/vm/uio.ts';
import { must } from '../kern/chains.ts';
import { fileBytes } from '../kern/disk.ts';
import { needs } from '../support/needs.ts';
import { HOST_ADDR, READER_ADDR } from '../support/reader.ts';
import { assertCleanCapture, tsharkFields } from '../support/tshark.ts';
import { inWorldAsync, type World, type WorldOptions } from '../support/world.ts';

const ARMS: [string, WorldOptions][] = [
  ['-txcsum', { caps: ['-txcsum'] }],
  ['-nomap', { caps: ['-nomap'] }],
  ['all, MTU 576', { mtu: 576 }],
];
const SIZES = [1, 500, 1472, 1473, 4096, 20_000];

/** Sends `data` as one datagram whose payload is unmapped pages. */
function sendUnmapped(w: World, data: Uint8Array): void {
  inPass(() => {
    expect(socreate(w.vnet, AF_INET, SOCK_DGRAM, IPPROTO_UDP)).to.equal(0);
    const so = soResult.so!;
    expect(soreserve(so, 65_535, 65_535)).to.equal(0);
    const uio = new Uio().single(data, 0, data.length, UIO_WRITE);
    const m = must(m_uiotombuf_nomap(uio, M_NOWAIT, 0, 0, M_PKTHDR));
    const nam = inSockaddr(parseInAddr(READER_ADDR)!, port(5000));
    expect(so.so_proto.pr_send(so, 0, m, nam)).to.equal(0);
    soclose(so);
  });
}

describe('udp: unmapped payload on the wire', function () {
  needs('tshark');
  this.timeout(60_000);

  for (const [name, options] of ARMS)
    it(`sends the right bytes in valid frames: ${name}`, () =>
      inWorldAsync(options, async (w) => {
        w.pass(10);
        for (const size of SIZES) {
          sendUnmapped(w, fileBytes(size, size));
          w.pass(10);
        }
        const mtu = options.mtu ?? 1500;
        const fit = SIZES.filter((size) => size + 28 <= mtu).length;
        const { conversions } = (w.ask('netstat', { report: 'm' }) as NetstatM).emulator;
        // A datagram is summed, and so converted, before it is fragmented, with any NIC.
        expect(conversions).to.equal(
          options.caps === undefined ? SIZES.length - fit : SIZES.length,
        );
        await w.withPcap(async (file) => {
          const { frameMax } = await assertCleanCapture(file, { mtu });
          expect(frameMax).to.be.at.most(mtu + 14);
          const rows = await tsharkFields(
            file,
            ['udp.checksum.status', 'udp.payload', 'ip.fragment.count'],
            `ip.src == ${HOST_ADDR} && udp`,
          );
          expect(rows.map(([status]) => status)).to.deep.equal(SIZES.map(() => '1'));
          for (const [i, size] of SIZES.entries()) {
            const hex = Buffer.from(fileBytes(size, size)).toString('hex');
            expect(rows[i]![1]!.replaceAll(':', '') === hex, `${size} bytes`).to.equal(true);
            const n = size + 28 <= mtu ? '' : String(Math.ceil((size + 8) / ((mtu - 20) & ~7)));
            expect(rows[i]![2]).to.equal(n);
          }
        });
      }));
});
