/**
 * Features of DMA, captures, VLANs, lagg and local delivery, and the routines that must refuse
 * unmapped mbufs.
 */

import { expect } from 'chai';
import { tn_attach } from '../../drivers/if_tn.ts';
import {
  bus_dma_tag_create,
  bus_dma_tag_destroy,
  bus_dmamap_create,
  bus_dmamap_destroy,
  type BusDmamapRef,
  bus_dmamap_load_mbuf_sg,
  bus_dmamap_unload,
  BUS_SPACE_MAXADDR,
  BUS_SPACE_MAXADDR_32BIT,
  BusDmaSegs,
  type BusDmaTagParams,
  type BusDmaTagRef,
} from '../../src/bus/bus_dma.ts';
import type { InterfaceInfo } from '../../src/ctl/ifconfig.ts';
import { M_NOWAIT, type Mbuf, mtod } from '../../src/kern/mbuf.ts';
import { m_freem, mb_unmapped_to_ext } from '../../src/kern/kern_mbuf.ts';
import { m_apply, m_copyback, m_copyup } from '../../src/kern/m_copyback.ts';
import { m_unshare } from '../../src/kern/m_unshare.ts';
import { m_copym, m_dup, m_pullup } from '../../src/kern/uipc_mbuf.ts';
import { nicModel } from '../../src/machine/nic_models.ts';
import type { NicModel } from '../../src/machine/nic_model.ts';
import { captureClose, captureOpen, captureRing } from '../../src/net/capture.ts';
import { ifhwioctl } from '../../src/net/if.ts';
import { if_clone_create, ifCloned } from '../../src/net/if_clone.ts';
import { lagg_port_create } from '../../src/net/if_lagg.ts';
import { IFCAP_NOMAP, type Ifnet, SIOCSIFCAP } from '../../src/net/if_var.ts';
import { in_cksum, in_cksum_skip } from '../../src/netinet/in_cksum.ts';
import { CAPTURE_IF, type CaptureRecord, type CaptureSink } from '../../src/sys/capture.ts';
import { EFBIG, EINVAL } from '../../src/sys/errno.ts';
import { Panic } from '../../src/sys/kassert.ts';
import { inPass } from '../../src/sys/pass.ts';
import { kva } from '../../src/sys/types.ts';
import { mem, PAGE_SIZE } from '../../src/vm/arena.ts';
import { timeoutEnd } from '../../src/kern/kern_timeout.ts';
import { chainBytes, must } from '../kern/chains.ts';
import { expectSame, npgsOf } from '../kern/sendfile_rig.ts';
import { connectTo, tcpSocket } from '../sim/endpoint.ts';
import { HOST_ADDR } from '../support/reader.ts';
import { type Conn, inWorld, World, type WorldFile } from '../support/world.ts';
import {
  cpuReads,
  dataFrames,
  expectAllReleased,
  expectArrives,
  expectArrivesLocally,
} from './rows.ts';

const tn = must(nicModel('tn'));

/** Returns the output of `ifconfig NAME --json`. */
function interfaceOf(w: World, name: string): InterfaceInfo {
  return w.ask('ifconfig', { if: name, words: [] }) as InterfaceInfo;
}

/**
 * A connection whose send buffer holds `n` unmapped bytes of a file. The peer's window is 0, so
 * none is sent.
 */
function stalled(w: World, n: number): { conn: Conn; file: WorldFile; chain: Mbuf } {
  const conn = w.connect({ window: 0 });
  conn.so.so_snd.sb_hiwat = 1 << 20;
  conn.so.so_snd.sb_mbmax = 1 << 23;
  const file = w.file(n);
  w.sendfile(conn, file);
  w.pass(1);
  return { conn, file, chain: must(conn.so.so_snd.sb_mb) };
}

/**
 * Loads a chain for DMA with a tag of `params`. Returns the errno, the segment lengths and the
 * bytes.
 */
function load(
  m: Mbuf,
  params: BusDmaTagParams,
): { error: number; lengths: number[]; bytes: Uint8Array } {
  const ref: BusDmaTagRef = { tag: null };
  expect(bus_dma_tag_create(params, ref)).to.equal(0);
  const tag = must(ref.tag);
  const mapRef: BusDmamapRef = { map: null };
  expect(bus_dmamap_create(tag, 0, mapRef)).to.equal(0);
  const map = must(mapRef.map);
  const segs = new BusDmaSegs(64);
  const error = bus_dmamap_load_mbuf_sg(tag, map, m, segs);
  const at = Array.from({ length: error === 0 ? segs.nsegs : 0 }, (_, i) => i);
  const lengths = at.map((i) => segs.ds_len[i]!);
  const bytes = Buffer.concat(
    at.map((i) => mem.slice(segs.ds_addr[i], segs.ds_addr[i]! + segs.ds_len[i]!)),
  );
  if (error === 0) bus_dmamap_unload(tag, map);
  expect(bus_dmamap_destroy(tag, map)).to.equal(0);
  expect(bus_dma_tag_destroy(tag)).to.equal(0);
  return { error, lengths, bytes };
}

/** Physical page numbers of an unmapped mbuf. */
function pagesOf(m: Mbuf): number[] {
  const pgs = must(m.m_ext.ext_pgs);
  return Array.from({ length: npgsOf(m) }, (_, i) => pgs.pa[pgs.pa0 + i]! / PAGE_SIZE);
}

/** Counts the runs of adjacent pages. */
const runs = (pages: number[]): number => pages.filter((p, i) => p !== pages[i - 1]! + 1).length;

describe('unmapped mbufs: devices', () => {
  it('DMA load of page list', () => {
    inWorld({}, (w) => {
      const { chain, file } = stalled(w, 10 * PAGE_SIZE);
      const pages = pagesOf(chain);
      expect(pages.length).to.equal(10);
      const whole = { maxsize: 1 << 20, nsegments: 64, maxsegsz: 1 << 20 };
      const free = load(chain, whole);
      expect(free.lengths.length, 'one segment per run of adjacent pages').to.equal(runs(pages));
      expectSame(free.bytes, file.bytes);
      // Limit the segments to one page, then to 1000 bytes, then to a boundary of 2048.
      expect(load(chain, { ...whole, maxsegsz: PAGE_SIZE }).lengths).to.deep.equal(
        Array(10).fill(PAGE_SIZE),
      );
      const small = load(chain, { ...whole, maxsegsz: 1000 });
      expect(Math.max(...small.lengths)).to.equal(1000);
      expectSame(small.bytes, file.bytes);
      expect(load(chain, { ...whole, boundary: 2048 }).lengths).to.deep.equal(Array(20).fill(2048));
      expect(load(chain, { ...whole, maxsegsz: PAGE_SIZE, nsegments: 9 }).error).to.equal(EFBIG);
    });
    // A NIC that takes four fragments of 512 bytes: the driver copies a longer chain together, and
    // the data arrives.
    inWorld({ model: 'tl' }, (w) => {
      expectArrives(w, w.file(300_000));
      expect(w.m.emulator.dma.defrags, 'defrags').to.be.above(20);
      const most = Math.max(...Object.keys(w.m.emulator.dma.histogram).map(Number));
      expect(most, 'largest segment count in the histogram').to.equal(4);
      expect(w.m.emulator.dma.faults).to.equal(0);
      w.settle();
      expectAllReleased(w);
    });
    // Scattered pages: read two files in turn, so that no two pages of one file are adjacent.
    inWorld({}, (w) => {
      const a = w.connect({ window: 0 });
      const b = w.connect({ window: 0 });
      const [fa, fb] = [w.file(8 * PAGE_SIZE), w.file(8 * PAGE_SIZE + 1)];
      for (let i = 0; i < 8; i++)
        for (const [conn, file] of [
          [a, fa],
          [b, fb],
        ] as const) {
          w.sendfile(conn, file, { offset: i * PAGE_SIZE, nbytes: PAGE_SIZE, flags: 8 });
          w.pass(1);
        }
      const chain = must(a.so.so_snd.sb_mb);
      const { lengths, bytes } = load(chain, {
        maxsize: 1 << 20,
        nsegments: 64,
        maxsegsz: 1 << 20,
      });
      expect(lengths, 'one segment per page').to.deep.equal(Array(8).fill(PAGE_SIZE));
      expectSame(bytes, fa.bytes);
    });
  });

  it('bounce', () => {
    // A NIC with 32-bit addresses in a machine whose memory starts 4 MiB below 4 GiB.
    const params = {
      lowaddr: BUS_SPACE_MAXADDR_32BIT,
      highaddr: BUS_SPACE_MAXADDR,
      maxsize: 1 << 20,
      nsegments: 256,
      maxsegsz: 1 << 16,
    };
    const ref: BusDmaTagRef = { tag: null };
    const tn32: NicModel = {
      ...tn,
      attach: (ifp, device, intr) => {
        expect(bus_dma_tag_create(params, ref)).to.equal(0);
        return tn_attach(ifp, device, ref.tag, intr);
      },
      detach: (ifp) => {
        const error = tn.detach(ifp);
        expect(bus_dma_tag_destroy(must(ref.tag))).to.equal(0);
        return error;
      },
    };
    inWorld({ model: tn32, base: 0x1_0000_0000 - (4 << 20) }, (w) => {
      // The files are large enough that the cache uses pages above 4 GiB.
      const files = [3_500_000, 500_000].map((n) => w.file(n));
      const conn = w.connect();
      const got = w.transfer(conn, ...files);
      expectSame(got, Buffer.concat(files.map((f) => f.bytes)));
      const { bounced, faults } = w.m.emulator.dma;
      expect(bounced, 'bounced').to.be.above(100);
      expect(faults).to.equal(0);
      const leaves = w.ask('sysctl', { name: 'hw.busdma' }) as { name: string; value: number }[];
      const total = leaves
        .filter(({ name }) => name.endsWith('.total_bounced'))
        .reduce((n, { value }) => n + value, 0);
      expect(total, 'hw.busdma.zoneN.total_bounced').to.be.above(10);
      for (const { name, value } of leaves)
        if (name.endsWith('.active_bpages')) w.until(() => value === 0, 1);
      expect(w.m.emulator.conversions, 'bouncing does not convert mbufs').to.equal(0);
    });
  });

  it('zero copy proof', () => {
    inWorld({}, (w) => {
      const file = w.file(500_000);
      expectArrives(w, file);
      expect(cpuReads(w), 'CPU reads without a listener').to.equal(0);
      expect(w.m.emulator.sf_bufs.total, 'sf_bufs allocated').to.equal(0);
      const capture = captureOpen(
        [{ point: CAPTURE_IF, ifp: w.ifp }],
        {},
        { captureRecord(): void {} },
      );
      expectArrives(w, file);
      captureClose(capture);
      const { bpf, ...rest } = w.m.emulator.payload_bytes_read;
      expect(bpf, 'one copy for the listener').to.equal(file.bytes.length);
      expect(Object.values(rest).every((n) => n === 0)).to.equal(true);
    });
  });

  it('BPF copy', () => {
    /** Records frames as a listener at the interface gets them. */
    class Book implements CaptureSink {
      readonly frames: Buffer[] = [];
      readonly lengths: number[] = [];
      captureRecord({ off, caplen, wirelen }: CaptureRecord): void {
        this.frames.push(Buffer.from(mem.slice(off, off + caplen)));
        this.lengths.push(wirelen);
      }
    }
    const record = (caps: string[], snaplen: number): Book => {
      const book = new Book();
      inWorld({ caps }, (w) => {
        const capture = captureOpen([{ point: CAPTURE_IF, ifp: w.ifp }], { snaplen }, book);
        expectArrives(w, w.file(200_000));
        captureClose(capture);
        expect(capture.drops).to.equal(0);
        expect(capture.packets).to.equal(book.frames.length);
      });
      return book;
    };
    const plain = record([], 0);
    const mapped = record(['-nomap'], 0);
    expect(plain.frames.length).to.be.above(20);
    expectSame(Buffer.concat(mapped.frames), Buffer.concat(plain.frames));
    const cut = record([], 100);
    expect(cut.lengths, 'recorded lengths on the wire').to.deep.equal(plain.lengths);
    cut.frames.forEach((frame, i) => expectSame(frame, plain.frames[i]!.subarray(0, 100)));
    // A capture ring that is never drained: frames without room are counted as drops, and the
    // transfer still works.
    inWorld({ mode: 'vnet' }, (w) => {
      const capture = captureOpen([{ point: CAPTURE_IF, ifp: w.ifp }], {}, new Book());
      captureRing().setDrainTask({ run(): void {} });
      expectArrives(w, w.file(9_000_000));
      expect(capture.drops).to.be.above(0);
      captureClose(capture);
    });
  });

  it('VLAN', () => {
    for (const hwtag of [true, false])
      inWorld({ addr: '198.51.100.2/24', caps: hwtag ? [] : ['-vlanhwtag'] }, (w) => {
        inPass(() => {
          expect(if_clone_create(w.vnet, 'vlan7', { vlr_parent: 'tn0', vlr_tag: 7 })).to.equal(0);
        });
        const vlan = must(ifCloned.ifp);
        w.address(vlan);
        w.port.vlan = 7;
        const options = (): string[] => interfaceOf(w, 'vlan7').options_names;
        expect(options(), 'inherited from the parent').to.include('NOMAP');
        const book: Uint8Array[] = [];
        const capture = captureOpen(
          [{ point: CAPTURE_IF, ifp: w.ifp }],
          { snaplen: 64 },
          {
            captureRecord({ off, caplen }): void {
              book.push(mem.slice(off, off + caplen));
            },
          },
        );
        const file = w.file(200_000);
        expectArrives(w, file);
        captureClose(capture);
        expect(
          dataFrames(w).every((frame) => frame.vlan === 7),
          'tagged on the wire',
        ).to.equal(true);
        expect(dataFrames(w).length).to.be.above(100);
        // A capture at the parent shows the tag inside the frame, even if the NIC inserts it later.
        expect(book.filter((b) => b[12] === 0x81 && b[13] === 0 && b[15] === 7).length).to.equal(
          book.length,
        );
        // The VLAN has the NOMAP setting of its parent in both cases. A NIC that does not insert
        // the tag cannot compute checksums behind it, so ip_output computes them, after conversion
        // to mapped mbufs.
        expect(options().includes('TXCSUM')).to.equal(hwtag);
        expect(w.m.emulator.conversions > 0).to.equal(!hwtag);
        // A change at the parent changes the VLAN, too.
        w.ifconfig('-nomap');
        expect(options()).not.to.include('NOMAP');
        expectArrives(w, file);
        expect(w.m.emulator.conversions).to.be.above(0);
        w.ifconfig('nomap');
        expect(options()).to.include('NOMAP');
      });
  });

  it('lagg', () => {
    inWorld({ addr: '198.51.100.2/24' }, (w) => {
      inPass(() => {
        expect(if_clone_create(w.vnet, 'lagg0', null)).to.equal(0);
      });
      const lagg = must(ifCloned.ifp);
      const has = (name: string): boolean => interfaceOf(w, name).options_names.includes('NOMAP');
      expect(interfaceOf(w, 'lagg0').capabilities, 'capabilities without ports').to.equal(0);
      const add = (ifp: Ifnet): void => {
        inPass(() => {
          expect(lagg_port_create(lagg, ifp)).to.equal(0);
        });
      };
      add(w.ifp);
      expect([has('lagg0'), has('tn0')]).to.deep.equal([true, true]);
      w.address(lagg);
      const file = w.file(200_000);
      expectArrives(w, file);
      expect(w.m.emulator.conversions).to.equal(0);
      // Add a second port without NOMAP: the lagg and all its ports lose NOMAP.
      const without: NicModel = {
        ...tn,
        attach: (ifp, device, intr) => {
          const error = tn.attach(ifp, device, intr);
          ifp.if_capabilities &= ~IFCAP_NOMAP;
          ifp.if_capenable &= ~IFCAP_NOMAP;
          return error;
        },
      };
      const { nic } = w.plugAnother(without, '02:00:00:00:00:03', '198.51.100.3/24');
      add(nic.ifp);
      expect([has('lagg0'), has('tn0'), has('tn1')]).to.deep.equal([false, false, false]);
      expect(interfaceOf(w, 'tn0').capabilities_names, 'the capability remains').to.include(
        'NOMAP',
      );
      expectArrives(w, file);
      expect(w.m.emulator.conversions).to.be.above(0);
      // The link of the first port fails; traffic continues on the second.
      const before = w.port.frames.length;
      w.link.setUp(false);
      w.pass(100);
      expectArrives(w, file);
      expect(w.port.frames.length).to.be.above(before + 100);
    });
  });

  it('loopback / bridge / tap-like peers', () => {
    for (const to of ['127.0.0.1', HOST_ADDR])
      inWorld({}, (w) => {
        expect(interfaceOf(w, 'lo0').capabilities_names).not.to.include('NOMAP');
        const so = tcpSocket(w.vnet);
        inPass(() => {
          connectTo(so, to, 80);
        });
        expectArrivesLocally(w, so);
      });
  });

  it('m_pullup, m_dup, in_cksum ... on unmapped', () => {
    /** A shadow of some bytes, so that a routine does not consume mbufs of the socket buffer. */
    const shadow = (chain: Mbuf): Mbuf => must(m_copym(chain, 100, 5000, M_NOWAIT));
    const refusals: Record<string, (m: Mbuf) => unknown> = {
      mtod: (m) => mtod(m),
      m_pullup: (m) => m_pullup(m, 100),
      m_copyup: (m) => m_copyup(m, 60, 4),
      m_copyback: (m) => m_copyback(m, 10, 10, kva(PAGE_SIZE)),
      m_apply: (m) => m_apply(m, 0, 100, () => 0, null),
      m_unshare: (m) => m_unshare(m, M_NOWAIT),
      in_cksum: (m) => in_cksum(m, 100),
      in_cksum_skip: (m) => in_cksum_skip(m, 200, 100),
    };
    // Use a separate machine: the pools of a machine that panicked are not checked for leaks.
    const panicked = new World();
    const doomed = shadow(stalled(panicked, 20_000).chain);
    for (const [name, call] of Object.entries(refusals))
      expect(() => call(doomed), name).to.throw(Panic);
    timeoutEnd();
    inWorld({}, (w) => {
      const { chain, file } = stalled(w, 20_000);
      const want = file.bytes.subarray(100, 5100);
      // Unlike FreeBSD: m_dup copies unmapped data.
      const from = shadow(chain);
      const dup = must(m_dup(from, M_NOWAIT));
      expectSame(chainBytes(dup), want);
      m_freem(from);
      // After conversion the same bytes can be read at their addresses.
      const mapped = must(mb_unmapped_to_ext(shadow(chain)));
      expectSame(chainBytes(mapped), want);
      expect(in_cksum(mapped, 5000)).to.equal(in_cksum(dup, 5000)).and.not.equal(0);
      m_freem(dup);
      m_freem(mapped);
    });
  });

  it('unsupported interface', () => {
    inWorld({}, (w) => {
      // lo0 lacks NOMAP: ifconfig drops unsupported capabilities from the request, so nothing
      // changes.
      const before = interfaceOf(w, 'lo0');
      const after = w.ask('ifconfig', { if: 'lo0', words: ['nomap'] }) as InterfaceInfo;
      expect(after.options).to.equal(before.options);
      const lo0 = must(w.interface('lo0'));
      expect(
        ifhwioctl(lo0, SIOCSIFCAP, before.options | IFCAP_NOMAP),
        'SIOCSIFCAP with an unsupported capability',
      ).to.equal(EINVAL);
      expect(lo0.if_capenable).to.equal(before.options);
    });
    // NICs without NOMAP behave the same, and every unmapped packet is converted.
    for (const model of ['tl', 'tp'])
      inWorld({ model }, (w) => {
        const name = w.ifp.if_xname;
        const { options, capabilities_names } = interfaceOf(w, name);
        expect(capabilities_names).not.to.include('NOMAP');
        w.ifconfig('nomap');
        expect(interfaceOf(w, name).options).to.equal(options);
        expect(ifhwioctl(w.ifp, SIOCSIFCAP, options | IFCAP_NOMAP)).to.equal(EINVAL);
        expectArrives(w, w.file(50_000));
        expect(w.m.emulator.conversions).to.be.above(30);
      });
  });
});
