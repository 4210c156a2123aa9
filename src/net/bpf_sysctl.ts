/** net.bpf.*, after sys/net/bpf.c. */

import type { Vnet } from '../kern/vnet.ts';
import { BPF_MINBUFSIZE, V_bpf } from './bpf_desc.ts';

const BUFSIZE_MAX = 1 << 30;

/** Adds net.bpf.* to a stack. */
export function bpfSysctls(vnet: Vnet): void {
  const { sysctl } = vnet;
  const v = V_bpf(vnet);
  sysctl.intField(
    'net.bpf.bufsize',
    'Default bpf buffer size',
    v,
    'bufsize',
    BPF_MINBUFSIZE,
    v.maxbufsize,
  );
  sysctl.intField(
    'net.bpf.maxbufsize',
    'Maximum bpf buffer size',
    v,
    'maxbufsize',
    BPF_MINBUFSIZE,
    BUFSIZE_MAX,
  );
  sysctl.intField('net.bpf.maxinsns', 'Maximum bpf program instructions', v, 'maxinsns', 0, 65_536);
}
