/** FreeBSD's numbers for capability and checksum bits, which programs and crash dumps contain. */

import { expect } from 'chai';
import * as mbuf from '../../src/kern/mbuf.ts';
import * as ifvar from '../../src/net/if_var.ts';

/** sys/net/if.h of r349529, and the two bits that kernel TLS added. */
const IFCAP: Record<string, number> = {
  IFCAP_RXCSUM: 0x1,
  IFCAP_TXCSUM: 0x2,
  IFCAP_NETCONS: 0x4,
  IFCAP_VLAN_MTU: 0x8,
  IFCAP_VLAN_HWTAGGING: 0x10,
  IFCAP_JUMBO_MTU: 0x20,
  IFCAP_POLLING: 0x40,
  IFCAP_VLAN_HWCSUM: 0x80,
  IFCAP_TSO4: 0x100,
  IFCAP_TSO6: 0x200,
  IFCAP_LRO: 0x400,
  IFCAP_WOL_UCAST: 0x800,
  IFCAP_WOL_MCAST: 0x1000,
  IFCAP_WOL_MAGIC: 0x2000,
  IFCAP_TOE4: 0x4000,
  IFCAP_TOE6: 0x8000,
  IFCAP_VLAN_HWFILTER: 0x10000,
  IFCAP_VLAN_HWTSO: 0x40000,
  IFCAP_LINKSTATE: 0x80000,
  IFCAP_NETMAP: 0x100000,
  IFCAP_RXCSUM_IPV6: 0x200000,
  IFCAP_TXCSUM_IPV6: 0x400000,
  IFCAP_HWSTATS: 0x800000,
  IFCAP_TXRTLMT: 0x1000000,
  IFCAP_HWRXTSTMP: 0x2000000,
  IFCAP_NOMAP: 0x4000000,
  IFCAP_TXTLS4: 0x8000000,
  IFCAP_TXTLS6: 0x10000000,
  IFCAP_HWCSUM: 0x3,
  IFCAP_HWCSUM_IPV6: 0x600000,
  IFCAP_TSO: 0x300,
};

/** sys/sys/mbuf.h of r349529. */
const CSUM: Record<string, number> = {
  CSUM_IP: 0x1,
  CSUM_IP_UDP: 0x2,
  CSUM_IP_TCP: 0x4,
  CSUM_IP_SCTP: 0x8,
  CSUM_IP_TSO: 0x10,
  CSUM_IP_ISCSI: 0x20,
  CSUM_IP6_UDP: 0x200,
  CSUM_IP6_TCP: 0x400,
  CSUM_IP6_SCTP: 0x800,
  CSUM_IP6_TSO: 0x1000,
  CSUM_IP6_ISCSI: 0x2000,
  CSUM_L3_CALC: 0x01000000,
  CSUM_L3_VALID: 0x02000000,
  CSUM_L4_CALC: 0x04000000,
  CSUM_L4_VALID: 0x08000000,
  CSUM_L5_CALC: 0x10000000,
  CSUM_L5_VALID: 0x20000000,
  CSUM_COALESCED: 0x40000000,
  // Bit 31, as a signed 32-bit integer.
  CSUM_SND_TAG: 0x80000000 | 0,
  CSUM_TSO: 0x1010,
  CSUM_DELAY_DATA: 0x6,
  CSUM_DELAY_IP: 0x1,
  CSUM_DELAY_DATA_IPV6: 0x600,
  CSUM_IP_CHECKED: 0x01000000,
  CSUM_IP_VALID: 0x02000000,
  CSUM_PSEUDO_HDR: 0x04000000,
  CSUM_DATA_VALID: 0x08000000,
  CSUM_DATA_VALID_IPV6: 0x08000000,
};

const named = (module: object, prefix: string): Record<string, unknown> =>
  Object.fromEntries(Object.entries(module).filter(([name]) => name.startsWith(prefix)));

describe('net: bits of if_capabilities, if_hwassist and csum_flags', () => {
  it('IFCAP_* have the values of FreeBSD, and no others exist', () => {
    expect(named(ifvar, 'IFCAP_')).to.deep.equal(IFCAP);
  });

  it('CSUM_* have the values of FreeBSD', () => {
    expect({ ...CSUM, ...named(mbuf, 'CSUM_') }).to.deep.equal({
      ...CSUM,
      CSUM_UDP: 0x2,
      CSUM_TCP: 0x4,
      CSUM_UDP_IPV6: 0x200,
      CSUM_TCP_IPV6: 0x400,
    });
    expect(named(mbuf, 'CSUM_')).to.include.all.keys(...Object.keys(CSUM));
  });
});
