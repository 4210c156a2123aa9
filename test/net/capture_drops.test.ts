/**
 * Every drop of a packet in the stack is an event of captures with the packet's id: one scenario for each
 * reason of src/sys/reason.ts in the layers that captures show.
 */

import { expect } from 'chai';
import { AF_INET, SOCK_DGRAM, SOCK_RAW } from '../../src/kern/protosw.ts';
import { sobind, soclose, socreate, type Socket, soResult } from '../../src/kern/uipc_socket.ts';
import { captureClose, captureOpen } from '../../src/net/capture.ts';
import { ifunit } from '../../src/net/if.ts';
import { if_clone_create, if_clone_destroy } from '../../src/net/if_clone.ts';
import { IFF_UP } from '../../src/net/if_var.ts';
import { ip_output } from '../../src/netinet/ip_output.ts';
import { parseIn6 } from '../../src/netinet6/in6.ts';
import { in6_aifaddr } from '../../src/netinet6/in6_ifattach.ts';
import { V_ip6 } from '../../src/netinet6/ip6_var.ts';
import { in6Ifextra, ND6_IFF_IFDISABLED } from '../../src/netinet6/in6_var.ts';
import { ip6_output } from '../../src/netinet6/ip6_output.ts';
import { CAPTURE_EVENT, CAPTURE_IF, CAPTURE_RX_ID } from '../../src/sys/capture.ts';
import { inPass } from '../../src/sys/pass.ts';
import { reasonCounts, reasonText, resetReasons } from '../../src/sys/reason.ts';
import { mem } from '../../src/vm/arena.ts';
import { metaOf } from '../../src/explain/records.ts';
import { OUR_MAC, outPacket, PEER, PEER_MAC, type Rig, US } from '../netinet/rig.ts';
import { type Conn, sin, TestHost } from '../netinet/tcp_host.ts';
import { PEER_LL, Rig6, TO_US, US6 } from '../netinet6/rig6.ts';
import {
  buildArp,
  buildEther,
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
  type Ip4Fields,
} from '../support/frames.ts';
import { buildIcmp6, buildIp6, type Ip6Fields, ip6 } from '../support/six.ts';

const TO = { src: PEER, dst: US };
const bytes = (n: number): Uint8Array => new Uint8Array(n);
const GROUP_MAC = '01:00:5e:00:00:01';

/** Calls that cause the reason, on a stack of both families. */
type Scenario = (r: Rig6) => void;

const ether = (type: number, payload: Uint8Array, more = {}): Uint8Array =>
  buildEther({ dst: OUR_MAC, src: PEER_MAC, ...more }, type, payload);
const v4 =
  (f: Partial<Ip4Fields>, proto = 17, payload = bytes(16)): Scenario =>
  (r) =>
    r.injectIp(buildIp4({ ...TO, ...f }, proto, payload));
const v6 =
  (f: Partial<Ip6Fields>, nxt = 17, payload: ArrayLike<number> = bytes(16)): Scenario =>
  (r) =>
    r.inject6(buildIp6({ ...TO_US, ...f }, nxt, payload));
const out4 =
  (dst: string, n = 8, f: Partial<Ip4Fields> = {}): Scenario =>
  (r) =>
    void inPass(
      ip_output,
      outPacket(buildIp4({ src: US, dst, ...f }, 17, bytes(n))),
      null,
      0,
      r.vnet,
    );
const out6 =
  (dst: string, n = 8): Scenario =>
  (r) => {
    const m = outPacket(buildIp6({ src: US6, dst }, 17, bytes(n)));
    inPass(ip6_output, m, null, null, 0, null, r.vnet);
  };
const igmp = (ttl: number, body: Uint8Array): Scenario => {
  const packet = buildIp4({ src: PEER, dst: '224.0.0.1', ttl }, 2, body);
  return (r) => r.injectIp(packet, 0, GROUP_MAC);
};
const udp =
  (f: { sport?: number; dport?: number; sum?: number }): Scenario =>
  (r) =>
    r.injectIp(buildUdp(TO, { sport: 1, dport: 9, payload: 'x', ...f }));
const icmp6 = (type: number, body: number[] = [0, 0, 0, 0]): Scenario =>
  v6({}, 58, buildIcmp6(TO_US, [type, 0, 0, 0, ...body]).subarray(40));
const times =
  (n: number, act: Scenario): Scenario =>
  (r) => {
    for (let i = 0; i < n; i++) act(r);
  };

/** With a socket that is bound to port 9, if it has ports. */
const withSocket =
  (type: number, proto: number, act: (r: Rig6, so: Socket) => void): Scenario =>
  (r) => {
    expect(socreate(r.vnet, AF_INET, type, proto)).to.equal(0);
    const so = soResult.so!;
    if (proto === 0) expect(sobind(so, sin('0.0.0.0', 9))).to.equal(0);
    act(r, so);
    soclose(so);
  };

const SCENARIOS: Record<string, Scenario> = {
  'ether.short_frame': (r) => r.inject(bytes(10)),
  'ether.oversize_frame': (r) => r.inject(ether(0x800, bytes(1600))),
  'ether.not_for_us': (r) => r.inject(ether(0x800, bytes(50), { dst: '02:00:00:00:00:77' })),
  'ether.own_source_address': (r) => r.inject(ether(0x800, bytes(50), { src: OUR_MAC })),
  'ether.unknown_ethertype': (r) => r.inject(ether(0x1234, bytes(50))),
  'ether.interface_down': (r) => {
    r.ifp.if_flags &= ~IFF_UP;
    r.inject(ether(0x800, bytes(50)));
    r.ifp.if_flags |= IFF_UP;
  },
  'ether.no_vlan_interface': (r) => r.inject(ether(0x800, bytes(50), { vlan: 5 })),
  'vlan.interface_down': (r) => {
    expect(if_clone_create(r.vnet, 'vlan5', { vlr_parent: 'tn0', vlr_tag: 5 })).to.equal(0);
    ifunit(r.vnet, 'vlan5')!.if_flags &= ~IFF_UP;
    r.inject(ether(0x800, bytes(50), { vlan: 5 }));
    if_clone_destroy(ifunit(r.vnet, 'vlan5')!);
  },
  'arp.bad_packet': (r) => {
    const frame = buildArp(
      { dst: OUR_MAC, src: PEER_MAC },
      { op: 1, sha: PEER_MAC, spa: PEER, tha: OUR_MAC, tpa: US },
    );
    frame[15] = 2; // hardware type
    r.inject(frame);
  },
  'arp.hold_queue_full': times(20, out4('192.0.2.77')),
  'arp.unresolved': (r) => {
    out4('192.0.2.77')(r);
    r.clock.advance(60e9);
  },
  'ip.too_short': (r) => r.injectIp(bytes(10)),
  'ip.bad_version': v4({ version: 5 }),
  'ip.bad_header_length': v4({ hl: 3 }),
  'ip.bad_length': v4({ len: 10 }),
  'ip.bad_checksum': v4({ sum: 1 }),
  'ip.bad_address': v4({ src: '127.0.0.1' }),
  'ip.not_for_us': v4({ dst: '192.0.2.99' }),
  'ip.fragment_dropped': v4({ mf: true }, 17, bytes(15)),
  'ip.no_protocol': v4({}, 200),
  'ip.bad_options': v4({ options: [7, 1, 0, 0] }),
  'ip.no_route': out4('8.8.8.8'),
  'ip.cant_fragment': out4(PEER, 1800, { df: true }),
  'icmp.too_short': v4({}, 1, bytes(4)),
  'icmp.bad_checksum': v4({}, 1, buildIcmp({ type: 8, sum: 1 })),
  'icmp.ignored': v4({}, 1, buildIcmp({ type: 40 })),
  'icmp.rate_limited': times(300, udp({})),
  'icmp.raw_socket_full': withSocket(SOCK_RAW, 1, (r) =>
    times(60, v4({}, 1, buildIcmp({ type: 0, payload: bytes(500) })))(r),
  ),
  'icmp.raw_ttl_below_minimum': withSocket(SOCK_RAW, 1, (r, so) => {
    (so.so_pcb as { inp_ip_minttl: number }).inp_ip_minttl = 255;
    v4({}, 1, buildIcmp({ type: 0 }))(r);
  }),
  'ip6.interface_disabled': (r) => {
    const nd = in6Ifextra(r.ifp)!.nd_ifinfo;
    nd.flags |= ND6_IFF_IFDISABLED;
    v6({})(r);
    nd.flags &= ~ND6_IFF_IFDISABLED;
  },
  'ip6.too_short': (r) => r.inject6(bytes(20)),
  'ip6.bad_version': (r) =>
    r.inject6(buildIp6(TO_US, 17, bytes(8)).map((b, i) => (i === 0 ? 0x50 : b))),
  'ip6.bad_address': v6({ src: US6 }),
  'ip6.bad_scope': v6({ src: 'ff02::1' }),
  'ip6.not_for_us': v6({ dst: '2001:db8::77' }),
  'ip6.address_not_ready': (r) => {
    V_ip6(r.vnet).params.dad_count = 1;
    expect(in6_aifaddr(r.ifp, parseIn6('2001:db8::9')!, 64, 0)).to.equal(0);
    v6({ dst: '2001:db8::9' })(r);
  },
  'ip6.too_many_headers': v6(
    {},
    60,
    Uint8Array.from({ length: 40 * 8 }, (_, i) => (i % 8 === 0 ? 60 : 0)),
  ),
  'ip6.bad_options': v6({}, 60, [17, 0, 0xc1, 9, 0, 0, 0, 0]),
  'ip6.bad_routing_header': v6({}, 43, [17, 0, 0, 1, 0, 0, 0, 0]),
  'ip6.fragment_dropped': v6({}, 44, [17, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0]),
  'ip6.no_protocol': v6({}, 200),
  'ip6.no_next_header': v6({}, 59),
  'ip6.no_route': out6('2001:db9::1'),
  'icmp6.too_short': v6({}, 58, bytes(3)),
  'icmp6.bad_checksum': v6({}, 58, [128, 0, 0, 0, 0, 0, 0, 0]),
  'icmp6.ignored': icmp6(200),
  'icmp6.rate_limited': times(300, v6({}, 200)),
  'nd6.bad_packet': icmp6(135, [0, 0, 0, 0, ...ip6(US6)]),
  'nd6.hold_queue_full': times(40, out6('2001:db8::77')),
  'nd6.unresolved': (r) => {
    out6('2001:db8::77')(r);
    r.clock.advance(60e9);
  },
  'nd6.fragmented': (r) => {
    const f = { ...TO_US, hlim: 255 };
    const body = buildIcmp6(f, [135, 0, 0, 0, 0, 0, 0, 0, ...ip6(US6)]).subarray(40);
    r.inject6(buildIp6(f, 44, [58, 0, 0, 0, 0, 0, 0, 1, ...body]));
  },
  'mld.too_short': (r) => {
    const f = { src: PEER_LL, dst: 'ff02::1', hlim: 1 };
    const body = buildIcmp6(f, [130, 0, 0, 0, 0, 0, 0, 0]).subarray(40);
    r.inject6(buildIp6(f, 0, [58, 0, 5, 2, 0, 0, 1, 0, ...body]), '33:33:00:00:00:01');
  },
  'mld.ignored': icmp6(130, [...bytes(20)]),
  'igmp.too_short': igmp(1, bytes(4)),
  'igmp.bad_checksum': igmp(1, Uint8Array.of(0x11, 0, 1, 1, 0, 0, 0, 0)),
  'igmp.ignored': igmp(2, Uint8Array.of(0x11, 0, 0xee, 0xff, 0, 0, 0, 0)),
  'udp.too_short': v4({}, 17, bytes(4)),
  'udp.bad_length': v4({}, 17, Uint8Array.of(0, 1, 0, 9, 0, 99, 0, 0)),
  'udp.bad_checksum': udp({ sum: 1 }),
  'udp.port_zero': udp({ dport: 0 }),
  'udp.no_socket': udp({}),
  'udp.socket_full': withSocket(SOCK_DGRAM, 0, (r) =>
    times(60, (one) => one.injectIp(buildUdp(TO, { sport: 1, dport: 9, payload: bytes(1000) })))(r),
  ),
  'udp.ttl_below_minimum': withSocket(SOCK_DGRAM, 0, (r, so) => {
    (so.so_pcb as { inp_ip_minttl: number }).inp_ip_minttl = 255;
    udp({})(r);
  }),
  'tcp.bad_data_offset': (r) => r.injectIp(buildTcp(TO, { sport: 1, dport: 2, off: 3 })),
  'tcp.too_short': v4({}, 6, bytes(8)),
  'tcp.bad_checksum': v4({}, 6, bytes(20)),
};

/** Scenarios with a connection. */
const CONNECTIONS: Record<string, (h: TestHost, c: Conn) => void> = {
  'tcp.no_connection': (h) => h.seg({ flags: 'S', dport: 99, seq: 1 }),
  'tcp.bad_syn': (h) => h.seg({ flags: 'F', seq: 1 }),
  'tcp.bad_reset': (h) => h.seg({ flags: 'R', seq: 1 }),
  'tcp.bad_ack': (h) => h.seg({ flags: '.', seq: 1, ack: 2 }),
  'tcp.no_ack': (_h, c) => c.seg({ flags: 'P', payload: 'x' }),
  'tcp.out_of_window': (_h, c) => c.seg({ seq: c.seq + 10_000_000, payload: 'x' }),
  'tcp.duplicate_data': (_h, c) => {
    c.data('abc');
    c.seg({ seq: c.seq - 3, payload: 'abc' });
  },
  'tcp.reassembly_full': (_h, c) => {
    for (let i = 1; i < 400; i++) c.seg({ seq: c.seq + 10 * i, payload: 'x' });
  },
  'tcp.reassembly_flushed': (_h, c) => {
    // Three segments in two entries.
    for (const at of [10, 11, 20]) c.seg({ seq: c.seq + at, payload: 'x' });
    c.seg({ flags: 'R', seq: c.seq });
    expect(counted('tcp.reassembly_flushed')).to.equal(3);
  },
  'tcp.ttl_below_minimum': (_h, c) => {
    (c.so.so_pcb as { inp_ip_minttl: number }).inp_ip_minttl = 255;
    c.seg({ payload: 'x' });
  },
  'tcp.data_after_fin': (_h, c) => {
    c.data('', { flags: 'F.' });
    c.seg({ payload: 'late' });
  },
  'tcp.data_after_close': (h, c) => {
    h.write(c.so, 'x');
    h.closeSocket(c.so);
    c.seg({ flags: '.', ack: c.ack + 2 });
    c.seg({ payload: 'late', ack: c.ack + 2 });
  },
  'tcp.time_wait': (h, c) => {
    h.closeSocket(c.so);
    c.seg({ flags: 'F.', ack: c.ack + 1 });
    c.seg({ seq: c.seq + 1, ack: c.ack + 1, payload: 'x' });
  },
};

/** Reasons of the same layers that drop no packet, or that these tests cause in another file. */
const OTHERS: Record<string, string> = {
  'vlan.no_running_parent': 'needs vlan(4)',
  'lagg.interface_down': 'needs lagg(4)',
  'lagg.not_the_active_port': 'needs lagg(4)',
  'lagg.no_active_port': 'needs lagg(4)',
  'net.netisr_queue_full': 'capture.test.ts',
  'net.no_buffers': 'needs exhausted memory',
  'arp.entry_evicted': 'an entry, not a packet',
  'arp.address_conflict': 'an event, not a drop',
  'arp.conflict_not_defended': 'an event, not a drop',
  'ip.no_buffers': 'needs exhausted memory',
  'ip6.no_buffers': 'needs exhausted memory',
  'ip6.cant_fragment': 'as ip.cant_fragment',
  'nd6.not_a_neighbor': 'as nd6.hold_queue_full',
  'nd6.table_full': 'as nd6.hold_queue_full',
  'nd6.entry_evicted': 'an entry, not a packet',
  'nd6.router_list_full': 'an entry, not a packet',
  'nd6.prefix_list_full': 'an entry, not a packet',
  'udp.multicast_filter': 'as udp.no_socket',
  'tcp.other_worker': 'needs workers',
  'tcp.closed': 'as tcp.no_connection',
  'tcp.bad_sack_block': 'an option, not a packet',
  'tcp.sack_scoreboard_full': 'an entry, not a packet',
  'tcp.hostcache_evicted': 'an entry, not a packet',
  'tcp.sack_retransmit': 'a retransmission',
  'tcp.challenge_ack': 'an answer',
  'tcp.challenge_ack_limited': 'an answer that is not sent',
  'tcp.deprecated_address': 'as tcp.bad_syn',
  'tcp.paws': 'as tcp.no_ack',
  'tcp.reassembly_wait': 'the record at sockbuf has it: tcp_capture.test.ts',
  'tcp.time_wait_evicted': 'a connection, not a packet',
  'tcp.stale_icmp': 'the packet was processed',
  'tcp.syncache_overflow': 'an entry, not a packet',
  'tcp.handshake_timeout': 'an entry, not a packet',
  'tcp.synack_retransmit': 'a retransmission',
  'tcp.path_mtu_retransmit': 'a retransmission',
  'tcp.retransmit_timeout': 'a retransmission',
  'tcp.fast_retransmit': 'a retransmission',
  'tcp.persist_probe': 'a probe',
  'tcp.keepalive_drop': 'a connection, not a packet',
  'tcp.timeout_drop': 'a connection, not a packet',
};

interface Event {
  readonly id: number;
  readonly reason: string;
}

/** Gives each received frame an id, as a device does, and returns them and the drops while `act` runs. */
function eventsOf(rig: Rig, act: () => void): { received: Set<number>; events: Event[] } {
  const events: Event[] = [];
  const received = new Set<number>();
  const input = rig.ifp.if_input!;
  rig.ifp.if_input = (ifp, m): void => {
    m.m_pkthdr.pktId = CAPTURE_RX_ID + received.size + 1;
    received.add(m.m_pkthdr.pktId);
    input(ifp, m);
  };
  const capture = captureOpen(
    [{ point: CAPTURE_IF, ifp: rig.ifp }],
    { meta: true },
    {
      captureRecord({ point, metaOff, metaLen }): void {
        if (point !== CAPTURE_EVENT) return;
        const { id, why } = metaOf(0, mem.slice(metaOff, metaOff + metaLen));
        for (const { reason } of why) events.push({ id, reason: reasonText(Number(reason)) });
      },
    },
  );
  resetReasons();
  act();
  captureClose(capture);
  rig.ifp.if_input = input;
  return { received, events };
}

/** How often `name` was counted. */
const counted = (name: string): number =>
  reasonCounts().find((r) => `${r.layer}.${r.reason}` === name)!.count;

function check(name: string, rig: Rig, act: () => void): void {
  const { received, events } = eventsOf(rig, act);
  const mine = events.filter(({ reason }) => reason === name);
  expect(counted(name), 'counted').to.be.greaterThan(0);
  expect(mine.length, 'events').to.equal(counted(name));
  for (const { id } of mine)
    expect(received.has(id) || (id > 0 && id < CAPTURE_RX_ID), `id ${id}`).to.equal(true);
}

describe('captures: each drop in the stack is an event with the id of its packet', () => {
  for (const [name, act] of Object.entries(SCENARIOS))
    it(name, () => {
      const rig = new Rig6();
      check(name, rig, () => act(rig));
      rig.clock.advance(100e9);
      rig.sent.length = 0;
      rig.close();
    });

  for (const [name, act] of Object.entries(CONNECTIONS))
    it(name, () => {
      const h = new TestHost();
      h.listen(80);
      const c = h.establish({ dport: 81, win: 8000 });
      check(name, h, () => act(h, c));
      h.sent.length = 0;
      h.close();
    });

  it('no reason of these layers is left out', () => {
    const layers = Object.keys(SCENARIOS).map((name) => name.split('.')[0]!);
    const all = reasonCounts()
      .filter(({ layer }) => [...layers, 'vlan', 'lagg', 'net', 'tcp'].includes(layer))
      .map(({ layer, reason }) => `${layer}.${reason}`);
    const known = { ...SCENARIOS, ...CONNECTIONS, ...OTHERS };
    expect(Object.keys(known).sort()).to.deep.equal(all.sort());
  });
});
