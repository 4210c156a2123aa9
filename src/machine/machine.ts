/**
 * The machine: boots everything below a stack, in the order of dependencies, and accounts for its
 * resources, so that leaks are found when it stops. One machine exists per isolate.
 */

import { NativeCksum } from '../host/cksum.ts';
import { allocArena } from '../host/arena.ts';
import { RealClock } from '../host/clock.ts';
import { NativePager } from '../host/pager.ts';
import { OsPrng, SeededPrng } from '../host/prng.ts';
import { busDmaInit, busDmaWatch, dmaStats } from '../bus/bus_dma.ts';
import { bouncePageCounts } from '../bus/busdma_bounce.ts';
import { dmaCheckSysctlInit } from '../bus/busdma_check.ts';
import { busDmaSysctlInit } from '../bus/busdma_sysctl.ts';
import { iommuSysctlInit } from '../bus/iommu.ts';
import type { CksumKernel } from '../sys/cksum.ts';
import type { Clock } from '../sys/clock.ts';
import { ENOENT, type Errno } from '../sys/errno.ts';
import type { Pager } from '../sys/pager.ts';
import { inPass, passReset } from '../sys/pass.ts';
import type { Prng } from '../sys/prng.ts';
import { resetReasons } from '../sys/reason.ts';
import { fileStats } from '../kern/kern_descrip.ts';
import { hostuuidInit } from '../kern/kern_hostuuid.ts';
import { ipcSysctlInit } from '../kern/kern_ipc_sysctl.ts';
import { mbEmulator, mbuf_init, mbufZones } from '../kern/kern_mbuf.ts';
import { machineSysctl } from '../kern/kern_sysctl.ts';
import { timeoutInit } from '../kern/kern_timeout.ts';
import { sendfileLive, sfstatReset } from '../kern/sendfile_io.ts';
import { soStats } from '../kern/uipc_socket.ts';
import { type Vnet, vnet_alloc } from '../kern/vnet.ts';
import { captureInit } from '../net/capture.ts';
import { ifqInit } from '../net/ifq.ts';
import { bpfStats } from '../net/bpf_desc.ts';
import { netAttach } from '../net/net_attach.ts';
import { in_cksumInit } from '../netinet/in_cksum.ts';
import { inet_domain_attach } from '../netinet/in_proto.ts';
import { inet6_domain_attach } from '../netinet6/in6_proto.ts';
import { arenaBytes } from '../vm/arena.ts';
import { payloadReset } from '../vm/payload.ts';
import { sfBufInit, sfstatBufs } from '../vm/sf_buf.ts';
import { vmObjectInit } from '../vm/vm_object.ts';
import { vm_page_startup, vmPageCounts } from '../vm/vm_page.ts';

/** kern.ipc.nsfbufs at boot. Ours; on FreeBSD it depends on the architecture. */
const NSFBUFS = 4096;

/** The parts of a machine. */
interface MachineParts {
  /** Bytes of RAM, 16 MiB to 4096 MiB in whole pages. */
  readonly memory: number;
  /** Physical address of the first byte; default 0. */
  readonly base?: number;
  /** IOMMU: devices can access only loaded memory. Requires the `ts` build of a device. */
  readonly iommu?: boolean;
  /** Check the drivers' bus_dma calls. Requires the `ts` build of a device. */
  readonly dmaCheck?: boolean;
  /** kern.hostuuid; default: FreeBSD's, all zeros. */
  readonly hostuuid?: string;
  /** The seed of `prng`, for output. */
  readonly seed: number;
  readonly clock: Clock;
  readonly prng: Prng;
  readonly pager: Pager;
  readonly cksum: CksumKernel;
  /** arenaBytes(memory) bytes, zeroed. */
  readonly arena: ArrayBuffer;
}

/** A booted machine with a network stack, and more if they are added. */
export class Machine {
  readonly seed: number;
  readonly clock: Clock;
  readonly prng: Prng;
  readonly cksum: CksumKernel;
  readonly arena: ArrayBuffer;
  /** The first stack. */
  readonly vnet: Vnet;
  readonly #atBoot: Record<string, number>;

  constructor(parts: MachineParts) {
    passReset();
    resetReasons();
    vm_page_startup(parts.memory, parts.base ?? 0, parts.arena);
    sfBufInit(NSFBUFS);
    payloadReset();
    timeoutInit(parts.clock);
    mbuf_init();
    vmObjectInit(parts.pager);
    sfstatReset();
    busDmaInit();
    busDmaWatch({ iommu: parts.iommu ?? false, check: parts.dmaCheck ?? false });
    in_cksumInit(parts.cksum);
    ipcSysctlInit();
    hostuuidInit(parts.hostuuid);
    busDmaSysctlInit();
    dmaCheckSysctlInit();
    iommuSysctlInit();
    ifqInit();
    this.seed = parts.seed;
    this.clock = parts.clock;
    this.prng = parts.prng;
    this.cksum = parts.cksum;
    this.arena = parts.arena;
    captureInit(parts.clock);
    this.vnet = this.addVnet(parts.prng);
    this.#atBoot = inUse();
  }

  /** Adds a stack without NICs. It shares memory, clock and `kern.*` with the others. */
  addVnet(prng: Prng): Vnet {
    const vnet = vnet_alloc(prng);
    inPass(netAttach, vnet);
    inPass(inet_domain_attach, vnet);
    inPass(inet6_domain_attach, vnet);
    return vnet;
  }

  /** Writes a sysctl of the machine or of a stack. ENOENT, EPERM, EINVAL. */
  sysctlWrite(name: string, text: string, vnet = this.vnet): Errno {
    const error = machineSysctl.tree.write(name, text);
    return vnet.sysctl.find(name) !== undefined || error === ENOENT
      ? vnet.sysctl.write(name, text)
      : error;
  }

  /** The pools whose usage differs from that at boot, and the difference; empty: no leaks. */
  leaked(): Record<string, number> {
    const now = inUse();
    const more = Object.entries(now).map(([pool, n]): [string, number] => [
      pool,
      n - (this.#atBoot[pool] ?? 0),
    ]);
    return Object.fromEntries(more.filter(([, n]) => n !== 0));
  }
}

/**
 * The number of units in use, by pool. Pages of a zone itself are not counted as kernel pages in
 * use.
 */
function inUse(): Record<string, number> {
  const use: Record<string, number> = {};
  let zoneBytes = 0;
  for (const zone of Object.values(mbufZones())) {
    use[zone.uz_name] = zone.current;
    zoneBytes += zone.total * zone.size;
  }
  const pages = vmPageCounts();
  use['unmapped_mbufs'] = mbEmulator.unmappedCurrent;
  use['sf_bufs'] = sfstatBufs.current;
  use['wired_file_pages'] = pages.wiredFile;
  const bounce = bouncePageCounts();
  use['bounce_pages'] = bounce.inUse;
  use['kernel_pages'] = pages.wired - pages.wiredFile - zoneBytes / 4096 - bounce.total;
  use['unaccounted_pages'] = pages.total - pages.free - pages.cached - pages.wired;
  use['dma_maps'] = dmaStats.mapsLive;
  use['sockets'] = soStats.current;
  use['bpf_descriptors'] = bpfStats.current;
  use['files'] = fileStats.current;
  use['sendfile_calls'] = sendfileLive.calls;
  use['sendfile_ios'] = sendfileLive.ios;
  return use;
}

interface MachineOptions {
  /** Bytes of RAM. */
  readonly memory: number;
  /** Seed of all random choices; default: chosen by the operating system. */
  readonly seed?: number;
  /** See MachineParts. */
  readonly base?: number;
  readonly iommu?: boolean;
  readonly dmaCheck?: boolean;
  readonly hostuuid?: string;
}

/** Boots a machine on this host: by default real clock, real disk, memory shared with the addon. */
export function bootHostMachine(options: MachineOptions, clock: Clock = new RealClock()): Machine {
  const seed = options.seed ?? new OsPrng().next32();
  const arena = allocArena(arenaBytes(options.memory));
  return new Machine({
    ...options,
    seed,
    clock,
    prng: new SeededPrng(seed),
    pager: new NativePager(arena),
    cksum: new NativeCksum(arena),
    arena,
  });
}
