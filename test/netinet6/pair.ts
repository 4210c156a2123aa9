/** Two stacks with IPv6 on a simulated wire, and sockets of AF_INET6 on them. */

import { expect } from 'chai';
import { AF_INET6 } from '../../src/kern/protosw.ts';
import type { Sockaddr } from '../../src/kern/sockaddr.ts';
import { ioResult, soRecvDgram } from '../../src/kern/sys_generic.ts';
import { soclose, socreate, soreceive, soResult, type Socket } from '../../src/kern/uipc_socket.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { in6Ntop, in6Sockaddr, parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { in6ifa_ifpforlinklocal } from '../../src/netinet6/in6_var.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { port } from '../../src/sys/types.ts';
import { UIO_READ, Uio } from '../../src/vm/uio.ts';
import { SimNet, type SimOptions, type SimPort } from '../sim/sim_net.ts';

export const A6 = '2001:db8::1';
export const B6 = '2001:db8::2';

export function sin6(text: string, n: number, scope = 0): Sockaddr {
  return in6Sockaddr(parseIn6(text)!, port(n), scope);
}

/** The link-local address of a port, without its zone. */
export function linklocal(p: SimPort): string {
  const { w1, w2, w3, w0 } = in6ifa_ifpforlinklocal(p.ifp, 0)!.ifa_addr;
  return in6Ntop({ w0: w0 & ~0xffff, w1, w2, w3 });
}

export class Pair6 {
  readonly net: SimNet;
  readonly sockets: Socket[] = [];

  constructor(options: Partial<SimOptions> & { dad_count?: number } = {}) {
    this.net = new SimNet({ seed: 1, ...options });
    for (const [p, text] of [
      [this.net.a, A6],
      [this.net.b, B6],
    ] as const) {
      V_ip6(p.vnet).params.dad_count = options.dad_count ?? 0;
      expect(in6_aifaddr(p.ifp, parseIn6(text)!, 64)).to.equal(0);
    }
  }

  socket(vnet: Vnet, type: number, protocol = 0): Socket {
    expect(socreate(vnet, AF_INET6, type, protocol)).to.equal(0);
    this.sockets.push(soResult.so!);
    return soResult.so!;
  }

  /** Lets time pass. */
  run(ms: number): void {
    this.net.clock.advance(ms * 1e6);
  }

  /** The next datagram, or the errno. */
  datagram(so: Socket): Uint8Array | number {
    const buf = new Uint8Array(70_000);
    const error = soRecvDgram(so, buf, 0, buf.length);
    return error === 0 ? buf.slice(0, ioResult.n) : error;
  }

  /** What a stream socket has received. */
  stream(so: Socket): Uint8Array | number {
    const buf = new Uint8Array(1 << 20);
    const uio = new Uio().single(buf, 0, buf.length, UIO_READ);
    const error = soreceive(so, uio);
    return error === 0 ? buf.slice(0, buf.length - uio.uio_resid) : error;
  }

  close(): void {
    for (const so of this.sockets.splice(0)) soclose(so);
    this.net.close();
  }
}
