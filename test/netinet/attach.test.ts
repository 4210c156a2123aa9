import { expect } from 'chai';
import { SeededPrng } from '../../src/host/prng.ts';
import { AF_INET, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { soclose, socreate, soResult } from '../../src/kern/uipc_socket.ts';
import { type Vnet, vnet_alloc } from '../../src/kern/vnet.ts';
import { if_alloc, if_detach, ifunit } from '../../src/net/if.ts';
import { if_clone_create } from '../../src/net/if_clone.ts';
import { ether_ifattach } from '../../src/net/if_ethersubr.ts';
import { IFF_DRV_RUNNING, type IfDriver } from '../../src/net/if_var.ts';
import { netAttach, netDetach } from '../../src/net/net_attach.ts';
import { m_freem } from '../../src/kern/kern_mbuf.ts';
import { inAddrOf, inet_ntoa } from '../../src/netinet/in.ts';
import { inRoutes } from '../../src/netinet/in_fib.ts';
import { in_aifaddr, inIfaddrs } from '../../src/netinet/in_ifaddr.ts';
import { inet_domain_attach, inet_domain_detach } from '../../src/netinet/in_proto.ts';
import { EEXIST } from '../../src/sys/errno.ts';
import { bootMachine, expectMachineClean } from '../support/machine.ts';
import { addr, US } from './rig.ts';

/** A driver that drops what it is given. */
const driver: IfDriver = {
  if_init(ifp): void {
    ifp.if_drv_flags |= IFF_DRV_RUNNING;
  },
  if_transmit(_ifp, m): number {
    m_freem(m);
    return 0;
  },
  if_qflush(): void {},
  if_ioctl: () => 0,
  if_txflush(): void {},
};

const plug = (vnet: Vnet): void => {
  const ifp = if_alloc(vnet, 'tn0');
  ifp.if_driver = driver;
  ether_ifattach(ifp, Uint8Array.from([2, 0, 0, 0, 0, 2]));
};
const address = (vnet: Vnet): void => {
  expect(in_aifaddr(ifunit(vnet, 'tn0')!, addr(US), 24)).to.equal(0);
};
const net = (vnet: Vnet): void => {
  expect(netAttach(vnet)).to.equal(0);
};
const inet = (vnet: Vnet): void => {
  expect(inet_domain_attach(vnet)).to.equal(0);
};

/** The orders in which a machine may build its stack. */
const ORDERS: Record<string, ((vnet: Vnet) => void)[]> = {
  'net, inet, NIC, address': [net, inet, plug, address],
  'inet, net, NIC, address': [inet, net, plug, address],
  'NIC, net, inet, address': [plug, net, inet, address],
  'inet, NIC, address, net': [inet, plug, address, net],
};

describe('a stack is attached', () => {
  for (const [name, steps] of Object.entries(ORDERS))
    it(`in the order ${name}`, () => {
      bootMachine();
      const vnet = vnet_alloc(new SeededPrng(1));
      for (const step of steps) step(vnet);
      const routes = inRoutes(vnet).map(
        (rt) =>
          `${inet_ntoa(inAddrOf(rt.rt_dst))}/${rt.rt_prefixlen} ${rt.rt_nhop.nh_ifp.if_xname}`,
      );
      expect(routes).to.have.members(['127.0.0.1/32 lo0', `${US}/32 lo0`, '192.0.2.0/24 tn0']);
      const own = inIfaddrs(vnet).map((ia) => `${ia.ifa_ifp.if_xname} ${inet_ntoa(ia.ia_addr)}`);
      expect(own).to.have.members(['lo0 127.0.0.1', `tn0 ${US}`]);
      for (const leaf of [
        'net.isr.defaultqlimit',
        'net.inet.tcp.mssdflt',
        'net.inet.udp.maxdgram',
        'net.link.lagg.failover_rx_all',
      ])
        expect(vnet.sysctl.find(leaf), leaf).to.not.equal(undefined);
      for (const kind of ['vlan', 'lagg']) expect(if_clone_create(vnet, kind, null)).to.equal(0);
      expect(socreate(vnet, AF_INET, SOCK_STREAM, 0)).to.equal(0);
      soclose(soResult.so!);
      expect([netAttach(vnet), inet_domain_attach(vnet)]).to.deep.equal([EEXIST, EEXIST]);
      netDetach(vnet);
      inet_domain_detach(vnet);
      expect([inRoutes(vnet), inIfaddrs(vnet)]).to.deep.equal([[], []]);
      if_detach(ifunit(vnet, 'tn0')!);
      expectMachineClean();
    });
});
