/** A stack with IPv6 on a TAP: the peer is Linux with its own programs. */

import { closeSync, openSync, readFileSync } from 'node:fs';
import { expect } from 'chai';
import { bootHostMachine, type Machine } from '../../src/machine/machine.ts';
import { type Nic, openNic } from '../../src/machine/nic.ts';
import { File } from '../../src/kern/kern_descrip.ts';
import { sendfile } from '../../src/kern/kern_sendfile.ts';
import { mbEmulator, mbParams } from '../../src/kern/kern_mbuf.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
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
import { netDetach } from '../../src/net/net_attach.ts';
import { inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { tcp_shutdownVnet } from '../../src/netinet/tcp_pcblist.ts';
import { in6Ntop, parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { inet6_domain_detach } from '../../src/netinet6/in6_proto.ts';
import { IN6_IFF_NODAD, in6ifa_ifpforlinklocal } from '../../src/netinet6/in6_var.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { ip6stat, V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { inPass } from '../../src/sys/pass.ts';
import { UIO_READ, Uio } from '../../src/vm/uio.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';
import { sin6 } from './pair.ts';

const HOST = '2001:db8::1';
const US = '2001:db8::2';
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
  let ns: Netns;
  let site: Site;
  let machine: Machine;
  let nic: Nic;
  let server: FileServer;
  let bytes: Buffer;

  beforeEach(() => {
    ns = new Netns('in6');
    site = new Site();
    machine = bootHostMachine({ memory: 32 << 20, seed: 1 });
    mbParams.mb_use_ext_pgs = true;
    nic = openNic(machine, {
      tap: 'tap6',
      hostAddr: null,
      hostAddr6: null,
      addr: null,
      gateway: null,
      mtu: 1500,
      nic: 'tn',
      caps: [],
      mode: 'wire',
      napi: 'off',
      engine: 'ts',
      netns: ns.name,
      captures: [],
    });
    ns.exec('ip', ['-6', 'addr', 'add', `${HOST}/64`, 'dev', 'tap6', 'nodad']);
    V_ip6(machine.vnet).params.dad_count = 0;
    const add = (): number => in6_aifaddr(nic.ifp, parseIn6(US)!, 64, IN6_IFF_NODAD);
    expect(inPass(add)).to.equal(0);
    bytes = site.file('big', BYTES);
    server = new FileServer(machine, site.path('big'));
  });

  afterEach(() => {
    server.close();
    inPass(() => tcp_shutdownVnet(machine.vnet, 'rst'));
    inPass(() => tcp_shutdownVnet(machine.vnet, 'discard'));
    nic.stop();
    inPass(() => {
      netDetach(machine.vnet);
      inet6_domain_detach(machine.vnet);
      inet_domain_detach(machine.vnet);
    });
    timeoutEnd();
    ns[Symbol.dispose]();
    site[Symbol.dispose]();
  });

  const pinged = async (size: number, to = US): Promise<string> => {
    const args = ['-6', '-n', '-c', '2', '-i', '0.05', '-W', '10', '-s', `${size}`, to];
    return (await ns.run('ping', args)).stdout;
  };

  async function fetched(): Promise<boolean> {
    const out = site.path('out');
    const got = await ns.run('curl', ['-6', '-sS', '-g', '-o', out, `http://[${US}]/big`]);
    expect(got.status, got.stderr).to.equal(0);
    return readFileSync(out).equals(bytes);
  }

  it('serves a file by sendfile to curl -6; without txcsum6 or nomap, converted', async () => {
    expect(await fetched()).to.equal(true);
    expect(mbEmulator.conversions, 'the NIC reads the pages').to.equal(0);
    for (const cap of [IFCAP_TXCSUM_IPV6, IFCAP_NOMAP]) {
      const before = mbEmulator.conversions;
      expect(inPass(ifSwitchCapabilities, nic.ifp, cap, false)).to.equal(0);
      expect(await fetched()).to.equal(true);
      expect(mbEmulator.conversions).to.be.above(before);
      expect(inPass(ifSwitchCapabilities, nic.ifp, cap, true)).to.equal(0);
    }
  });

  it('answers ping6 of each size, in fragments both ways, and to the link-local address', async () => {
    for (const size of [0, 8, 56, 1451, 1452, 1453, 4000, 65_000])
      expect(await pinged(size), `${size} bytes`).to.contain(' 0% packet loss');
    const { w2, w3 } = in6ifa_ifpforlinklocal(nic.ifp, 0)!.ifa_addr;
    const local = in6Ntop({ w0: 0xfe800000, w1: 0, w2, w3 });
    expect(await pinged(56, `${local}%tap6`)).to.contain(' 0% packet loss');
    expect(ip6stat(machine.vnet).ip6s_reassembled).to.be.above(0);
    expect(ip6stat(machine.vnet).ip6s_fragmented).to.be.above(0);
    expect(V_icmp6(machine.vnet).stat.icp6s_checksum).to.equal(0);
  });
});
