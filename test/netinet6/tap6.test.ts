/** A stack with IPv6 on a TAP: the peer is Linux with its own programs. */

import { closeSync, openSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { Machine } from '../../src/machine/machine.ts';
import { File } from '../../src/kern/kern_descrip.ts';
import { sendfile } from '../../src/kern/kern_sendfile.ts';
import { mbEmulator } from '../../src/kern/kern_mbuf.ts';
import { AF_INET6, SOCK_STREAM } from '../../src/kern/protosw.ts';
import {
  SO_RCV,
  soaccept,
  sobind,
  soclose,
  socreate,
  solisten,
  soreceive,
  soResult,
  type Socket,
  soupcall_set,
} from '../../src/kern/uipc_socket.ts';
import { ifSwitchCapabilities } from '../../src/net/if.ts';
import { IFCAP_NOMAP, IFCAP_TXCSUM_IPV6 } from '../../src/net/if_var.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { ip6stat } from '../../src/netinet6/ip6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { UIO_READ, Uio } from '../../src/vm/uio.ts';
import { needs } from '../support/needs.ts';
import { Site } from '../support/served.ts';
import { sin6 } from './pair.ts';
import { OUR6, Tap6 } from './tap6_rig.ts';

const BYTES = 5_000_000;

/** Serves one file to every client that sends anything, by sendfile. */
class FileServer {
  readonly #head: Socket;
  readonly #path: string;
  readonly #open = new Set<Socket>();

  constructor(machine: Machine, path: string) {
    this.#path = path;
    expect(socreate(machine.vnet, AF_INET6, SOCK_STREAM, 0)).to.equal(0);
    this.#head = soResult.so!;
    expect(sobind(this.#head, sin6('::', 80))).to.equal(0);
    expect(solisten(this.#head, 16)).to.equal(0);
    soupcall_set(this.#head, SO_RCV, {
      run: () => {
        while (soaccept(this.#head) === 0) this.#serve(soResult.so!);
      },
    });
  }

  #serve(so: Socket): void {
    this.#open.add(so);
    soupcall_set(so, SO_RCV, { run: () => this.#answer(so) });
    this.#answer(so);
  }

  #answer(so: Socket): void {
    const buf = new Uint8Array(4096);
    const uio = new Uio().single(buf, 0, buf.length, UIO_READ);
    if (soreceive(so, uio) !== 0 || uio.uio_resid === buf.length) return;
    soupcall_set(so, SO_RCV, null);
    const file = new File(openSync(this.#path, 'r'), closeSync);
    const head = Buffer.from(`HTTP/1.0 200 OK\r\nContent-Length: ${BYTES}\r\n\r\n`);
    const hdtr = { headers: [head], trailers: [] };
    sendfile(file, so, 0, 0, hdtr, 0, false, {
      sendfileDone: () => {
        file.drop();
        this.#open.delete(so);
        soclose(so);
      },
    });
  }

  close(): void {
    for (const so of this.#open) soclose(so);
    soclose(this.#head);
  }
}

describe('a TAP with IPv6', function () {
  needs('root', 'tap', 'netns', 'curl', 'ping');
  this.timeout(120_000);
  let tap: Tap6;
  let site: Site;
  let server: FileServer;
  let bytes: Buffer;

  beforeEach(() => {
    tap = new Tap6('in6');
    site = new Site();
    tap.add();
    bytes = site.file('big', BYTES);
    server = new FileServer(tap.machine, site.path('big'));
  });

  afterEach(() => {
    server.close();
    tap.close();
    site[Symbol.dispose]();
  });

  async function fetched(): Promise<boolean> {
    const out = site.path('out');
    const got = await tap.ns.run('curl', ['-6', '-sS', '-g', '-o', out, `http://[${OUR6}]/big`]);
    expect(got.status, got.stderr).to.equal(0);
    return readFileSync(out).equals(bytes);
  }

  it('serves a file by sendfile to curl -6; without txcsum6 or nomap, converted', async () => {
    expect(await fetched()).to.equal(true);
    expect(mbEmulator.conversions, 'the NIC reads the pages').to.equal(0);
    for (const cap of [IFCAP_TXCSUM_IPV6, IFCAP_NOMAP]) {
      const before = mbEmulator.conversions;
      expect(inPass(ifSwitchCapabilities, tap.nic.ifp, cap, false)).to.equal(0);
      expect(await fetched()).to.equal(true);
      expect(mbEmulator.conversions).to.be.above(before);
      expect(inPass(ifSwitchCapabilities, tap.nic.ifp, cap, true)).to.equal(0);
    }
  });

  it('answers ping6 of each size, in fragments both ways, and to the link-local address', async () => {
    for (const size of [0, 8, 56, 1451, 1452, 1453, 4000, 65_000])
      expect(await tap.ping(size), `${size} bytes`).to.contain(' 0% packet loss');
    expect(await tap.ping(56, `${tap.linklocal()}%tap6`)).to.contain(' 0% packet loss');
    expect(ip6stat(tap.machine.vnet).ip6s_reassembled).to.be.above(0);
    expect(ip6stat(tap.machine.vnet).ip6s_fragmented).to.be.above(0);
    expect(V_icmp6(tap.machine.vnet).stat.icp6s_checksum).to.equal(0);
  });
});
