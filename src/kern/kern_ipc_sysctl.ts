/**
 * The machine's sysctls: kern.ipc.*, vm.*, hw.*. Names, types and access are FreeBSD's; the
 * description marks tapnic's own variables. As in FreeBSD, the zone limits can only be raised.
 */

import { EINVAL, type Errno } from '../sys/errno.ts';
import { PAGE_SIZE, ramBytes } from '../vm/arena.ts';
import { sfBufLimit, sfstatBufs } from '../vm/sf_buf.ts';
import { vmPageCounts } from '../vm/vm_page.ts';
import { mbParams, mbufZones } from './kern_mbuf.ts';
import { machineSysctl, SysctlTree } from './kern_sysctl.ts';
import { max_hdr, max_linkhdr, max_protohdr, MCLBYTES, MSIZE } from './mbuf.ts';
import { sfstat, sfstatReset } from './sendfile_io.ts';
import { sbParams } from './uipc_sockbuf.ts';
import { maxsocketsDefault, soParams, soStats } from './uipc_socket.ts';
import type { UmaZone } from './uma.ts';

/**
 * Adds a read-write variable for a zone's limit. Raising it succeeds; lowering it returns EINVAL.
 * @see tuning(7)
 */
function zoneLimit<T>(tree: SysctlTree, name: string, descr: string, zone: UmaZone<T>): void {
  const set = (v: number): Errno => {
    if (v < zone.max) return EINVAL;
    zone.max = v;
    return 0;
  };
  tree.int(name, descr, () => zone.max, set, 1);
}

/** Adds the variables of sockets and header sizes, and sets the default of maxsockets. */
function socketSysctls(tree: SysctlTree): void {
  // kern.ipc.somaxconn is the old name of the same variable.
  for (const name of ['kern.ipc.soacceptqueue', 'kern.ipc.somaxconn'])
    tree.intField(
      name,
      'Maximum listen socket pending connection accept queue size',
      soParams,
      'somaxconn',
      1,
      0xffff,
    );
  soParams.maxsockets = maxsocketsDefault(ramBytes / PAGE_SIZE);
  tree.intField(
    'kern.ipc.maxsockets',
    'Maximum number of sockets available',
    soParams,
    'maxsockets',
    1,
  );
  tree.int('kern.ipc.max_linkhdr', 'Size of largest link layer header', () => max_linkhdr, null);
  tree.int('kern.ipc.max_protohdr', 'Size of largest protocol header', () => max_protohdr, null);
  tree.int('kern.ipc.max_hdr', 'Size of largest link plus protocol header', () => max_hdr, null);
  tree.int('kern.ipc.numopensockets', 'Number of open sockets', () => soStats.current, null);
}

/** Creates a new sysctl tree for the machine. Called at boot, after `mbuf_init`. */
export function ipcSysctlInit(): void {
  const tree = new SysctlTree();
  machineSysctl.tree = tree;
  const zones = mbufZones();
  tree.boolField(
    'kern.ipc.mb_use_ext_pgs',
    'Use unmapped mbufs for sendfile(2)',
    mbParams,
    'mb_use_ext_pgs',
  );
  zoneLimit(tree, 'kern.ipc.nmbufs', 'Maximum number of mbufs allowed', zones.mbuf);
  zoneLimit(tree, 'kern.ipc.nmbclusters', 'Maximum number of mbuf clusters allowed', zones.clust);
  zoneLimit(
    tree,
    'kern.ipc.nmbjumbop',
    'Maximum number of mbuf page size jumbo clusters allowed',
    zones.jumbop,
  );
  zoneLimit(
    tree,
    'kern.ipc.nmbjumbo16',
    'Maximum number of mbuf 16k jumbo clusters allowed',
    zones.jumbo16,
  );
  tree.int(
    'kern.ipc.nsfbufs',
    'Maximum number of sendfile(2) sf_bufs available',
    () => sfstatBufs.max,
    sfBufLimit,
    0,
  );
  tree.int('kern.ipc.nsfbufsused', 'Number of sf_bufs in use', () => sfstatBufs.current, null);
  tree.int('kern.ipc.nsfbufspeak', 'Number of sf_bufs at peak usage', () => sfstatBufs.peak, null);
  tree.counters(
    'kern.ipc.sfstat',
    'sendfile statistics, in the order of struct sfstat; writing resets',
    () => Object.values(sfstat),
    sfstatReset,
  );
  tree.intField(
    'kern.ipc.maxsockbuf',
    'Maximum socket buffer size',
    sbParams,
    'sb_max',
    MSIZE + MCLBYTES,
    Number.MAX_SAFE_INTEGER,
  );
  tree.intField(
    'kern.ipc.sockbuf_waste_factor',
    'Socket buffer size waste factor',
    sbParams,
    'sb_efficiency',
    1,
  );
  socketSysctls(tree);
  tree.int('hw.pagesize', 'System memory page size', () => PAGE_SIZE, null);
  tree.int('hw.physmem', 'Size of memory, bytes', () => ramBytes, null, 0, 2 ** 40);
  tree.int('vm.stats.vm.v_page_count', 'Total number of pages', () => vmPageCounts().total, null);
  tree.int('vm.stats.vm.v_free_count', 'Free pages', () => vmPageCounts().free, null);
  tree.int('vm.stats.vm.v_wire_count', 'Wired pages', () => vmPageCounts().wired, null);
  tree.int(
    'vm.stats.vm.v_inactive_count',
    'Cached file pages that can be reclaimed',
    () => vmPageCounts().cached,
    null,
  );
}
