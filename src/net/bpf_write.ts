/** Writing to a descriptor of bpf(4): one packet for each write, after bpfwrite in sys/net/bpf.c. */

import { EMSGSIZE, ENETDOWN, ENOBUFS, ENXIO, EPERM, type Errno } from '../sys/errno.ts';
import { m_freem } from '../kern/kern_mbuf.ts';
import { M_BCAST, type Mbuf, M_MCAST, M_NOWAIT, M_PKTHDR, M_PROMISC, mtod } from '../kern/mbuf.ts';
import { m_uiotombuf } from '../kern/m_uiotombuf.ts';
import { m_adj, m_dup } from '../kern/uipc_mbuf.ts';
import { mem, memView } from '../vm/arena.ts';
import { Uio, UIO_WRITE } from '../vm/uio.ts';
import { BPF_D_INOUT, DLT_EN10MB } from './bpf.ts';
import type { BpfDesc } from './bpf_desc.ts';
import { bpfFilterMbuf } from './bpf_filter_mbuf.ts';
import { IFF_DRV_RUNNING, IFF_MONITOR, IFF_UP, type Ifnet, OutputDst } from './if_var.ts';

const $uio = new Uio();

/** Sends a frame with a complete Ethernet header, as ether_output does with AF_UNSPEC. Takes `m`. */
function etherWrite(ifp: Ifnet, m: Mbuf, hdrcmplt: boolean): Errno {
  if (
    (ifp.if_flags & (IFF_UP | IFF_MONITOR)) !== IFF_UP ||
    (ifp.if_drv_flags & IFF_DRV_RUNNING) === 0 ||
    ifp.if_driver === null
  ) {
    m_freem(m);
    return ENETDOWN;
  }
  if (!hdrcmplt) mem.set(ifp.if_lladdr, mtod(m) + 6);
  return ifp.if_driver.if_transmit(ifp, m);
}

/** Sends a packet of lo0: the header of 4 bytes is the family. Takes `m`. */
function nullWrite(ifp: Ifnet, m: Mbuf): Errno {
  const dst = new OutputDst(memView.getUint32(mtod(m), true));
  m_adj(m, 4);
  return ifp.if_output!(ifp, m, dst);
}

function output(d: BpfDesc, ifp: Ifnet, buf: Uint8Array): Errno {
  const { bif_hdrlen, bif_dlt } = d.bd_bif!;
  if (buf.length < bif_hdrlen || buf.length - bif_hdrlen > ifp.if_mtu) return EMSGSIZE;
  const m = m_uiotombuf($uio.single(buf, 0, buf.length, UIO_WRITE), M_NOWAIT, 0, 0, M_PKTHDR);
  if (m === null) return ENOBUFS;
  if (d.bd_wfilter !== null && bpfFilterMbuf(d.bd_wfilter, m, buf.length) === 0) {
    m_freem(m);
    return EPERM;
  }
  d.bd_wfcount++;
  const ether = bif_dlt === DLT_EN10MB;
  if (ether && (mem[mtod(m)]! & 1) !== 0)
    m.m_flags |= buf.subarray(0, 6).every((b) => b === 0xff) ? M_BCAST : M_MCAST;
  // With feedback the packet is also input of the interface, and shown once, not twice.
  const copy = d.bd_feedback ? m_dup(m, M_NOWAIT) : null;
  if (copy !== null) {
    copy.m_pkthdr.rcvif = ifp;
    if (d.bd_direction === BPF_D_INOUT) m.m_flags |= M_PROMISC;
  }
  const error = ether ? etherWrite(ifp, m, d.bd_hdrcmplt) : nullWrite(ifp, m);
  if (copy === null) return error;
  if (error === 0) ifp.if_input!(ifp, copy);
  else m_freem(copy);
  return error;
}

/**
 * Sends `buf`, a packet with its link header. ENXIO: no interface. ENETDOWN: it is down. EMSGSIZE:
 * shorter than the link header or longer than the MTU. EPERM: the write filter refuses it. Else the
 * errno of the driver.
 */
export function bpfwrite(d: BpfDesc, buf: Uint8Array): Errno {
  d.bd_wcount++;
  const error = write(d, buf);
  if (error !== 0) d.bd_wdcount++;
  return error;
}

function write(d: BpfDesc, buf: Uint8Array): Errno {
  if (d.bd_bif === null) return ENXIO;
  const { bif_ifp: ifp } = d.bd_bif;
  if ((ifp.if_flags & IFF_UP) === 0) return ENETDOWN;
  return buf.length === 0 ? 0 : output(d, ifp, buf);
}
