import { expect } from 'chai';
import { Mbuf } from '../../src/kern/mbuf.ts';
import { dmaStats, dmaStatsReset } from '../../src/bus/bus_dma.ts';
import { formatArp } from '../../src/ctl/arp.ts';
import { formatNetstatAn, type SocketColumns } from '../../src/ctl/netstat_an.ts';
import { formatNetstatB, gatherNetstatB } from '../../src/ctl/netstat_b.ts';
import { formatNetstatM, gatherNetstatM, SFSTAT_NAMES } from '../../src/ctl/netstat_m.ts';
import { formatNetstatS, gatherNetstatS, statFields } from '../../src/ctl/netstat_s.ts';
import { formatZones } from '../../src/ctl/vmstat.ts';
import { m_freem, m_getcl, mb_alloc_ext_pgs, mbuf_init } from '../../src/kern/kern_mbuf.ts';
import { M_NOWAIT, M_PKTHDR, MT_DATA } from '../../src/kern/mbuf.ts';
import { sfstat } from '../../src/kern/sendfile_io.ts';
import { SeededPrng } from '../../src/host/prng.ts';
import { vnet_alloc } from '../../src/kern/vnet.ts';
import { V_icmp6 } from '../../src/netinet6/icmp6_var.ts';
import { ip6stat } from '../../src/netinet6/ip6_var.ts';
import { ICMP6, IP6 } from '../../src/ctl/netstat_s6.ts';
import { Ipstat } from '../../src/netinet/ip_var.ts';
import { Tcpstat } from '../../src/netinet/tcp_var.ts';
import { count, R_IP_NOTUS, resetReasons } from '../../src/sys/reason.ts';
import { payloadReset } from '../../src/vm/payload.ts';
import { sfBufInit } from '../../src/vm/sf_buf.ts';
import { vm_page_startup } from '../../src/vm/vm_page.ts';
import { BPF_D_OUT, bpfOf } from '../../src/net/bpf.ts';
import { BpfDesc } from '../../src/net/bpf_desc.ts';
import { captureClose, captureOpen } from '../../src/net/capture.ts';
import { CAPTURE_IF, CAPTURE_WIRE } from '../../src/sys/capture.ts';
import { Rig, US } from '../netinet/rig.ts';
import { expectMachineClean } from '../support/machine.ts';

const MIB = 1024 * 1024;

describe('ctl: netstat -m', () => {
  beforeEach(() => {
    vm_page_startup(16 * MIB, 0);
    sfBufInit(4096);
    payloadReset();
    mbuf_init();
  });

  it('gathers the items and bytes in use', () => {
    const head = m_getcl(M_NOWAIT, MT_DATA, M_PKTHDR)!;
    const unmapped = mb_alloc_ext_pgs(M_NOWAIT, false, () => undefined)!;
    expect(head).to.be.instanceOf(Mbuf);

    const s = gatherNetstatM();

    expect(s.mbufs).to.include({ current: 2, cache: 14, total: 16 });
    // maxmbufmem is half of 16 MiB: tuning(7).
    expect(s.clusters).to.include({ current: 1, cache: 1, total: 2, max: 1024 });
    expect(s.ext_pgs).to.deep.equal({ current: 1, total: 16 });
    expect(s.bytes).to.deep.equal({ current: 2560, cache: 14 * 256 + 2048, total: 8192 });
    expect(s.emulator.unmapped_mbufs_current).to.equal(1);
    expect(s.emulator.payload_bytes_read).to.have.all.keys(
      'small',
      'checksum',
      'copy',
      'bpf',
      'pio',
      'other',
    );
    const { wired, cached, free, total } = s.emulator.pages;
    expect(wired + cached + free).to.equal(total);
    expect(s.sendfile).to.have.all.keys(...Object.keys(sfstat));

    m_freem(head);
    m_freem(unmapped);
    expectMachineClean();
  });

  it('has the JSON fields that scripts rely on', () => {
    const { mbufs, clusters, ext_pgs, bytes, sendfile, emulator } = gatherNetstatM();
    for (const usage of [mbufs, clusters, bytes])
      expect(usage).to.include.all.keys('current', 'cache', 'total');
    expect(clusters).to.include.all.keys('max');
    expect(ext_pgs).to.have.all.keys('current', 'total');
    expect(Object.keys(sendfile)).to.deep.equal([...SFSTAT_NAMES]);
    expect(emulator).to.include.all.keys(
      'unmapped_mbufs_current',
      'conversions',
      'conversion_failures',
    );
    expect(emulator.sf_bufs).to.include.all.keys('current', 'peak', 'total');
    expect(emulator.pages).to.include.all.keys('wired', 'cached', 'free', 'total');
    expect(emulator.dma).to.include.all.keys('loads', 'segments', 'bounced', 'defrags', 'faults');
    // Histograms too: counts by number of segments.
    dmaStats.segHist[1] = 300;
    dmaStats.segHist[3] = 20;
    const s = gatherNetstatM();
    dmaStatsReset();
    expect(s.emulator.dma.histogram).to.deep.equal({ 1: 300, 3: 20 });
    expect(formatNetstatM(s)).to.include('\t300 x 1, 20 x 3 DMA loads by number of segments\n');
    expect(formatNetstatM(gatherNetstatM())).to.include('\tno DMA loads by number of segments\n');
  });

  it("prints FreeBSD's lines in FreeBSD's order, then its own", () => {
    const s = gatherNetstatM();
    Object.assign(s.mbufs, { current: 1026, cache: 1479, total: 2505, denied: 7 });
    Object.assign(s.clusters, { current: 1024, cache: 740, total: 1764, max: 2048, denied: 8 });
    Object.assign(s.jumbop, { current: 3, cache: 1, total: 4, max: 512, denied: 9 });
    Object.assign(s.jumbo16, { current: 64, cache: 2, total: 66, max: 170, denied: 10 });
    Object.assign(s.bytes, { current: 2359550, cache: 1909759, total: 4270079 });
    s.emulator.sf_bufs = { current: 5, peak: 6, total: 70, max: 4096 };
    SFSTAT_NAMES.forEach((name, i) => (s.sendfile[name] = 101 + i));

    const text = formatNetstatM(s);
    const ours = text.indexOf("tapnic's own counts, not in FreeBSD's report:\n");

    expect(text.slice(0, ours)).to.equal(
      `1026/1479/2505 mbufs in use (current/cache/total)
1024/740/1764/2048 mbuf clusters in use (current/cache/total/max)
0/0 mbuf+clusters out of packet secondary zone in use (current/cache)
3/1/4/512 4k (page size) jumbo clusters in use (current/cache/total/max)
0/0/0/0 9k jumbo clusters in use (current/cache/total/max)
64/2/66/170 16k jumbo clusters in use (current/cache/total/max)
2304K/1864K/4169K bytes allocated to network (current/cache/total)
7/8/0 requests for mbufs denied (mbufs/clusters/mbuf+clusters)
0/0/0 requests for mbufs delayed (mbufs/clusters/mbuf+clusters)
0/0/0 requests for jumbo clusters delayed (4k/9k/16k)
9/0/10 requests for jumbo clusters denied (4k/9k/16k)
5/6/4096 sfbufs in use (current/peak/max)
101 sendfile syscalls
102 sendfile syscalls completed without I/O request
103 requests for I/O initiated by sendfile
104 pages read by sendfile as part of a request
105 pages were valid at time of a sendfile request
111 pages were valid and substituted to bogus page
106 pages were requested for read ahead by applications
107 pages were read ahead by sendfile
108 times sendfile encountered an already busy page
109 requests for sfbufs denied
110 requests for sfbufs delayed
`,
    );
    expect(text.slice(ours)).to.match(/\t0 unmapped mbufs in use\n/);
    expect(text.slice(ours)).to.match(
      /\t0\/0\/0\/0\/0\/0 file-page bytes read by the CPU \(small\/checksum\/copy\/bpf\/pio\/other\)/,
    );
  });
});

describe('ctl: vmstat -z', () => {
  it("prints zones as FreeBSD's vmstat does", () => {
    const zone = { name: 'mbuf_extpgs', size: 256, limit: 8192, used: 37, free: 11 };
    expect(formatZones([{ ...zone, requests: 12345, failures: 2 }])).to.equal(
      [
        'ITEM                   SIZE  LIMIT     USED     FREE      REQ FAIL SLEEP',
        '',
        'mbuf_extpgs:            256,   8192,      37,      11,   12345,   2,   0',
        '',
      ].join('\n'),
    );
  });
});

/** A connection with the given columns. */
function socket(change: Partial<SocketColumns>): SocketColumns {
  return {
    proto: 'tcp4',
    recvq: 0,
    sendq: 0,
    local: '*.80',
    foreign: '*.*',
    state: 'LISTEN',
    ...change,
  };
}

describe('ctl: netstat -an', () => {
  it('aligns its columns under their heads', () => {
    const lines = [
      socket({
        sendq: 149504,
        local: '192.0.2.2.80',
        foreign: '192.0.2.1.40000',
        state: 'ESTABLISHED',
      }),
      socket({}),
      socket({ proto: 'udp4', local: '*.7', state: '' }),
    ];
    expect(formatNetstatAn(lines, true)).to.equal(
      [
        'Active Internet connections (including servers)',
        'Proto Recv-Q Send-Q Local Address          Foreign Address        (state)',
        'tcp4       0 149504 192.0.2.2.80           192.0.2.1.40000        ESTABLISHED',
        'tcp4       0      0 *.80                   *.*                    LISTEN',
        'udp4       0      0 *.7                    *.*',
        '',
      ].join('\n'),
    );
    expect(formatNetstatAn(lines, false)).to.match(/^Active Internet connections\n/);
    expect(formatNetstatAn([], true)).to.equal('');
  });

  it('cuts an IPv6 address, not its port; -W prints all of it', () => {
    const proto = 'tcp6';
    const local = '2001:db8:1:2:3:4:5:6.8080';
    const lines = [socket({ proto, local, foreign: 'fe80::1%tn0.443', state: 'ESTABLISHED' })];
    expect(formatNetstatAn(lines, false).split('\n')[2]).to.equal(
      'tcp6       0      0 2001:db8:1:2:3:4.8080  fe80::1%tn0.443        ESTABLISHED',
    );
    const wide = formatNetstatAn(lines, false, true).split('\n');
    expect(wide[2]).to.equal(
      `tcp6       0      0 ${local.padEnd(45)} ${'fe80::1%tn0.443'.padEnd(45)} ESTABLISHED`,
    );
    expect(wide[1]!.indexOf('(state)')).to.equal(wide[2]!.indexOf('ESTABLISHED'));
  });
});

describe('ctl: netstat -s', () => {
  beforeEach(() => resetReasons());
  afterEach(() => resetReasons());

  it("prints the fields the stack keeps, in FreeBSD's words", () => {
    const tcp = new Tcpstat();
    tcp.tcps_sndtotal = 1;
    tcp.tcps_sndpack = 2;
    tcp.tcps_sndbyte = 1;
    tcp.tcps_sndacks = 5;
    tcp.tcps_delack = 4;
    tcp.tcps_closed = 1;
    tcp.tcps_drops = 2;
    const ip = new Ipstat();
    ip.ips_cantfrag = 3;
    const text = formatNetstatS(gatherNetstatS({ tcp, ip }), false);
    const lines = text.split('\n');

    expect(lines.slice(0, 3)).to.deep.equal([
      'tcp:',
      '\t1 packet sent',
      '\t\t2 data packets (1 byte)',
    ]);
    expect(lines).to.include('\t\t5 ack-only packets (4 delayed)');
    expect(lines).to.include('\t1 connection closed (including 2 drops)');
    expect(lines).to.include("\t3 datagrams that can't be fragmented");
    expect(lines.indexOf('ip:')).to.be.above(10);
    expect(text, 'no placeholder is left').not.to.match(/[#~]/);
  });

  it('prints singular and plural: entry and entries, reply and replies', () => {
    const line = (n: number): string =>
      formatNetstatS({ protocols: { arp: { txreplies: n, timeouts: n } }, reasons: [] }, false);
    expect(line(1)).to.equal('arp:\n\t1 ARP reply sent\n\t1 ARP entry timed out\n');
    expect(line(2)).to.equal('arp:\n\t2 ARP replies sent\n\t2 ARP entries timed out\n');
  });

  it('omits zeros on request, and always lines whose field is missing', () => {
    const s = { protocols: { ip: { ips_total: 9, ips_badsum: 0 } }, reasons: [] };
    expect(formatNetstatS(s, false)).to.equal(
      'ip:\n\t9 total packets received\n\t0 bad header checksums\n',
    );
    expect(formatNetstatS(s, true)).to.equal('ip:\n\t9 total packets received\n');
  });

  it('prints histograms and states by name', () => {
    const icmp = { icps_outhist: [3, 0, 0, 1], icps_inhist: [] };
    expect(formatNetstatS({ protocols: { icmp }, reasons: [] }, false)).to.equal(
      'icmp:\n\tOutput histogram:\n\t\techo reply: 3\n\t\tdestination unreachable: 1\n',
    );
    const tcp = statFields({ states: Int32Array.of(0, 1, 0, 0, 2) });
    expect(formatNetstatS({ protocols: { tcp }, reasons: [] }, true)).to.equal(
      'tcp:\n\tTCP connection count by state:\n' +
        '\t\t1 connection in LISTEN state\n\t\t2 connections in ESTABLISHED state\n',
    );
  });

  it('prints the counters of IPv6 and ICMPv6 with FreeBSD words', () => {
    const ip6 = { ip6s_total: 1, ip6s_notmember: 2, ip6s_nxthist: [0, 0, 0, 0, 0, 0, 7] };
    expect(formatNetstatS({ protocols: { ip6 }, reasons: [] }, true)).to.equal(
      "ip6:\n\t1 total packet received\n\t2 multicast packets which we don't join\n" +
        '\tInput histogram:\n\t\tTCP: 7\n',
    );
    const inhist = Array.from({ length: 256 }, (_, type) => (type === 135 ? 3 : 0));
    const icmp6 = { icp6s_inhist: inhist, icp6s_odst_unreach_noport: 1, icp6s_badns: 1 };
    expect(formatNetstatS({ protocols: { icmp6 }, reasons: [] }, true)).to.equal(
      'icmp6:\n\tInput histogram:\n\t\tneighbor solicitation: 3\n' +
        '\tHistogram of error messages to be generated:\n\t\t1 port unreachable\n' +
        '\t1 bad neighbor solicitation message\n',
    );
  });

  it('has a line for each counter of IPv6 and ICMPv6', () => {
    const vnet = vnet_alloc(new SeededPrng(1));
    for (const [name, stat, lines] of [
      ['ip6', ip6stat(vnet), IP6],
      ['icmp6', V_icmp6(vnet).stat, ICMP6],
    ] as const) {
      const fields = lines.flatMap(([, ...more]) => more);
      for (const field of Object.keys(statFields(stat)))
        expect(fields, `${name} ${field}`).to.include(field);
    }
  });

  it('prints the reasons that occurred; JSON has all of them', () => {
    count(R_IP_NOTUS, 4);
    const s = gatherNetstatS({});
    expect(s.reasons.length).to.be.above(50);
    expect(s.reasons).to.deep.include({ layer: 'ip', reason: 'not_for_us', count: 4 });
    expect(formatNetstatS(s, false)).to.equal(
      "reasons (tapnic's own, those that occurred):\n\t4 ip: not_for_us\n",
    );
  });
});

describe('ctl: arp -a', () => {
  it('prints complete, permanent and incomplete entries', () => {
    const line = { addr: '192.0.2.1', ether: '02:00:5e:00:53:01', if: 'tn0', expires: 1199 };
    expect(
      formatArp([
        line,
        { ...line, addr: '192.0.2.2', expires: null },
        { ...line, addr: '192.0.2.9', ether: null, expires: 0 },
      ]),
    ).to.equal(
      '? (192.0.2.1) at 02:00:5e:00:53:01 on tn0 expires in 1199 seconds [ethernet]\n' +
        '? (192.0.2.2) at 02:00:5e:00:53:01 on tn0 permanent [ethernet]\n' +
        '? (192.0.2.9) at (incomplete) on tn0 expired [ethernet]\n',
    );
  });
});

describe('ctl: netstat -B', () => {
  it('lists descriptors of bpf(4) and the points of captures, with the columns of FreeBSD', () => {
    const rig = new Rig();
    const d = new BpfDesc(rig.vnet);
    const idle = new BpfDesc(rig.vnet);
    d.attach(bpfOf(rig.ifp)!);
    d.bd_immediate = d.bd_locked = true;
    d.bd_direction = BPF_D_OUT;
    const places = [CAPTURE_IF, CAPTURE_WIRE].map((point) => ({ point, ifp: rig.ifp }));
    const capture = captureOpen(places, {}, { captureRecord: () => undefined });
    rig.arpAsk(US);
    rig.clock.runPosted();
    const lines = gatherNetstatB(rig.vnet).map((line) => ({ ...line, pid: 77 }));
    const head = '  Pid  Netif   Flags      Recv      Drop     Match Sblen Hblen Command\n';
    const desc = '   77    tn0 -ifo--l         1         0         1    68     0 tapnic\n';
    const at = (point: string, n: number): string =>
      `   77 ${`tn0@${point}`.padStart(6)} -ifs---         ${n}         0         ${n}     0     0 tapnic\n`;
    expect(formatNetstatB(lines, null)).to.equal(`${head}${desc}${at('if', 2)}${at('wire', 0)}`);
    expect(formatNetstatB(lines, 'tn1')).to.equal(head);
    captureClose(capture);
    d.close();
    idle.close();
    rig.sent.length = 0;
    rig.close();
  });
});
