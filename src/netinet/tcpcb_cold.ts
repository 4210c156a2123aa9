/**
 * The part of TCP's control block that an undisturbed connection does not need: loss recovery, SACK,
 * reassembly, socket options, urgent data. It takes 350 bytes, so a connection gets it when one of its
 * fields first changes. Until then it shares `noCold`.
 */

import type { Errno } from '../sys/errno.ts';
import { tcpSeq, type TcpSeq } from '../sys/types.ts';
import { AnyCallout } from '../kern/kern_timeout.ts';
import type { TfoConn } from './tcp_fastopen.ts';
import type { Sackhole, TsegQent } from './tcp_var.ts';

/** SACK blocks kept per connection, and the most in one option. @see sys/netinet/tcp_var.h */
export const MAX_SACK_BLKS = 6;

/** Shared, read-only `sackblks` of all connections that have not reported a SACK block yet. */
export const noSackblks = new Int32Array(2 * MAX_SACK_BLKS);

class TcpcbCold {
  // Loss recovery: duplicate ACKs, RFC 3042's segments, the state before a time-out.
  t_dupacks = 0;
  /** New segments that the first two duplicate ACKs have sent: RFC 3042. */
  snd_limited = 0;
  /** More than TCP_RTT_INVALIDATE retransmissions have passed since the last measurement. */
  rttStale = false;
  t_softerror: Errno = 0;
  /** t_maxseg before black hole detection lowered it. */
  t_pmtud_saved_maxseg = 0;
  // State before the last time-out, valid with TF_PREVVALID. t_badrxtwin: see ccSaveForUndo.
  snd_cwnd_prev = 0;
  snd_ssthresh_prev = 0;
  snd_recover_prev: TcpSeq = tcpSeq(0);
  t_badrxtwin = 0;
  // The sender's SACK scoreboard: holes in order.
  snd_holes: Sackhole | null = null;
  snd_holesTail: Sackhole | null = null;
  snd_numholes = 0;
  /** Bytes beyond snd_una that the peer has. */
  sacked_bytes = 0;
  /** Bytes of holes that were retransmitted. */
  sack_bytes_rexmit = 0;
  /** Bytes that the last ACK newly reported as received. */
  delivered_data = 0;
  /** Whether that ACK showed a new hole. */
  sack_newloss = false;
  /** Whether it showed the loss of a retransmission beyond snd_recover. */
  sack_again = false;
  /** RFC 6675's RescueRxt: a rescue retransmission requires that snd_una is beyond it. */
  rescueRxt: TcpSeq = tcpSeq(0);
  // PRR, RFC 6937: bytes in flight when recovery began, bytes delivered and bytes sent since.
  recover_fs = 0;
  prr_delivered = 0;
  prr_out = 0;
  // The receiver's side of SACK.
  /** SACK blocks to report, the latest first: pairs of first byte and byte after the last. */
  sackblks: Int32Array = noSackblks;
  rcv_numsacks = 0;
  /** Whether the first pair of sackblks is a D-SACK (RFC 2883), which is reported once. */
  dsack = false;
  // Reassembly queue, in order of sequence numbers.
  t_segq: TsegQent | null = null;
  t_segqlen = 0;
  /** Bytes of memory that its mbufs take, counted as in a socket buffer. */
  t_segqmbuflen = 0;
  // Set by socket options; times in ms; 0: use the value of the sysctl.
  t_keepinit = 0;
  t_keepidle = 0;
  t_keepintvl = 0;
  t_keepcnt = 0;
  t_maxunacktime = 0;
  // Challenge ACKs, RFC 5961: end of the current interval of the rate limit, and ACKs sent in it.
  t_challenge_ack_end = 0;
  t_challenge_ack_cnt = 0;
  // Urgent data: TCPOOB_* flags, and the urgent byte.
  t_oobflags = 0;
  t_iobc = 0;
  // Accurate ECN: CE marks that the peer reported, and that we received; both start at 5.
  t_scep = 0;
  t_rcep = 0;
  /** Fast Open's part, of connections and listeners that use it. */
  t_tfo: TfoConn | null = null;
  // For netstat: retransmitted segments, out-of-order segments, zero windows sent.
  t_sndrexmitpack = 0;
  t_rcvoopack = 0;
  t_sndzerowin = 0;
}

const noCold = new TcpcbCold();

/** Access to the fields of TcpcbCold as if they were fields of the control block. */
export abstract class TcpcbBase extends AnyCallout {
  #cold = noCold;

  #own(): TcpcbCold {
    if (this.#cold === noCold) this.#cold = new TcpcbCold();
    return this.#cold;
  }

  get t_dupacks(): number {
    return this.#cold.t_dupacks;
  }
  set t_dupacks(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_dupacks = v;
    else if (v !== cold.t_dupacks) this.#own().t_dupacks = v;
  }

  get snd_limited(): number {
    return this.#cold.snd_limited;
  }
  set snd_limited(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_limited = v;
    else if (v !== cold.snd_limited) this.#own().snd_limited = v;
  }

  get rttStale(): boolean {
    return this.#cold.rttStale;
  }
  set rttStale(v: boolean) {
    const cold = this.#cold;
    if (cold !== noCold) cold.rttStale = v;
    else if (v !== cold.rttStale) this.#own().rttStale = v;
  }

  get t_softerror(): Errno {
    return this.#cold.t_softerror;
  }
  set t_softerror(v: Errno) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_softerror = v;
    else if (v !== cold.t_softerror) this.#own().t_softerror = v;
  }

  get t_pmtud_saved_maxseg(): number {
    return this.#cold.t_pmtud_saved_maxseg;
  }
  set t_pmtud_saved_maxseg(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_pmtud_saved_maxseg = v;
    else if (v !== cold.t_pmtud_saved_maxseg) this.#own().t_pmtud_saved_maxseg = v;
  }

  get snd_cwnd_prev(): number {
    return this.#cold.snd_cwnd_prev;
  }
  set snd_cwnd_prev(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_cwnd_prev = v;
    else if (v !== cold.snd_cwnd_prev) this.#own().snd_cwnd_prev = v;
  }

  get snd_ssthresh_prev(): number {
    return this.#cold.snd_ssthresh_prev;
  }
  set snd_ssthresh_prev(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_ssthresh_prev = v;
    else if (v !== cold.snd_ssthresh_prev) this.#own().snd_ssthresh_prev = v;
  }

  get snd_recover_prev(): TcpSeq {
    return this.#cold.snd_recover_prev;
  }
  set snd_recover_prev(v: TcpSeq) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_recover_prev = v;
    else if (v !== cold.snd_recover_prev) this.#own().snd_recover_prev = v;
  }

  get t_badrxtwin(): number {
    return this.#cold.t_badrxtwin;
  }
  set t_badrxtwin(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_badrxtwin = v;
    else if (v !== cold.t_badrxtwin) this.#own().t_badrxtwin = v;
  }

  get snd_holes(): Sackhole | null {
    return this.#cold.snd_holes;
  }
  set snd_holes(v: Sackhole | null) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_holes = v;
    else if (v !== cold.snd_holes) this.#own().snd_holes = v;
  }

  get snd_holesTail(): Sackhole | null {
    return this.#cold.snd_holesTail;
  }
  set snd_holesTail(v: Sackhole | null) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_holesTail = v;
    else if (v !== cold.snd_holesTail) this.#own().snd_holesTail = v;
  }

  get snd_numholes(): number {
    return this.#cold.snd_numholes;
  }
  set snd_numholes(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.snd_numholes = v;
    else if (v !== cold.snd_numholes) this.#own().snd_numholes = v;
  }

  get sacked_bytes(): number {
    return this.#cold.sacked_bytes;
  }
  set sacked_bytes(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.sacked_bytes = v;
    else if (v !== cold.sacked_bytes) this.#own().sacked_bytes = v;
  }

  get sack_bytes_rexmit(): number {
    return this.#cold.sack_bytes_rexmit;
  }
  set sack_bytes_rexmit(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.sack_bytes_rexmit = v;
    else if (v !== cold.sack_bytes_rexmit) this.#own().sack_bytes_rexmit = v;
  }

  get delivered_data(): number {
    return this.#cold.delivered_data;
  }
  set delivered_data(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.delivered_data = v;
    else if (v !== cold.delivered_data) this.#own().delivered_data = v;
  }

  get sack_newloss(): boolean {
    return this.#cold.sack_newloss;
  }
  set sack_newloss(v: boolean) {
    const cold = this.#cold;
    if (cold !== noCold) cold.sack_newloss = v;
    else if (v !== cold.sack_newloss) this.#own().sack_newloss = v;
  }

  get sack_again(): boolean {
    return this.#cold.sack_again;
  }
  set sack_again(v: boolean) {
    const cold = this.#cold;
    if (cold !== noCold) cold.sack_again = v;
    else if (v !== cold.sack_again) this.#own().sack_again = v;
  }

  get rescueRxt(): TcpSeq {
    return this.#cold.rescueRxt;
  }
  set rescueRxt(v: TcpSeq) {
    const cold = this.#cold;
    if (cold !== noCold) cold.rescueRxt = v;
    else if (v !== cold.rescueRxt) this.#own().rescueRxt = v;
  }

  get recover_fs(): number {
    return this.#cold.recover_fs;
  }
  set recover_fs(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.recover_fs = v;
    else if (v !== cold.recover_fs) this.#own().recover_fs = v;
  }

  get prr_delivered(): number {
    return this.#cold.prr_delivered;
  }
  set prr_delivered(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.prr_delivered = v;
    else if (v !== cold.prr_delivered) this.#own().prr_delivered = v;
  }

  get prr_out(): number {
    return this.#cold.prr_out;
  }
  set prr_out(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.prr_out = v;
    else if (v !== cold.prr_out) this.#own().prr_out = v;
  }

  get sackblks(): Int32Array {
    return this.#cold.sackblks;
  }
  set sackblks(v: Int32Array) {
    const cold = this.#cold;
    if (cold !== noCold) cold.sackblks = v;
    else if (v !== cold.sackblks) this.#own().sackblks = v;
  }

  get rcv_numsacks(): number {
    return this.#cold.rcv_numsacks;
  }
  set rcv_numsacks(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.rcv_numsacks = v;
    else if (v !== cold.rcv_numsacks) this.#own().rcv_numsacks = v;
  }

  get dsack(): boolean {
    return this.#cold.dsack;
  }
  set dsack(v: boolean) {
    const cold = this.#cold;
    if (cold !== noCold) cold.dsack = v;
    else if (v !== cold.dsack) this.#own().dsack = v;
  }

  get t_segq(): TsegQent | null {
    return this.#cold.t_segq;
  }
  set t_segq(v: TsegQent | null) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_segq = v;
    else if (v !== cold.t_segq) this.#own().t_segq = v;
  }

  get t_segqlen(): number {
    return this.#cold.t_segqlen;
  }
  set t_segqlen(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_segqlen = v;
    else if (v !== cold.t_segqlen) this.#own().t_segqlen = v;
  }

  get t_segqmbuflen(): number {
    return this.#cold.t_segqmbuflen;
  }
  set t_segqmbuflen(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_segqmbuflen = v;
    else if (v !== cold.t_segqmbuflen) this.#own().t_segqmbuflen = v;
  }

  get t_keepinit(): number {
    return this.#cold.t_keepinit;
  }
  set t_keepinit(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_keepinit = v;
    else if (v !== cold.t_keepinit) this.#own().t_keepinit = v;
  }

  get t_keepidle(): number {
    return this.#cold.t_keepidle;
  }
  set t_keepidle(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_keepidle = v;
    else if (v !== cold.t_keepidle) this.#own().t_keepidle = v;
  }

  get t_keepintvl(): number {
    return this.#cold.t_keepintvl;
  }
  set t_keepintvl(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_keepintvl = v;
    else if (v !== cold.t_keepintvl) this.#own().t_keepintvl = v;
  }

  get t_keepcnt(): number {
    return this.#cold.t_keepcnt;
  }
  set t_keepcnt(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_keepcnt = v;
    else if (v !== cold.t_keepcnt) this.#own().t_keepcnt = v;
  }

  get t_maxunacktime(): number {
    return this.#cold.t_maxunacktime;
  }
  set t_maxunacktime(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_maxunacktime = v;
    else if (v !== cold.t_maxunacktime) this.#own().t_maxunacktime = v;
  }

  get t_challenge_ack_end(): number {
    return this.#cold.t_challenge_ack_end;
  }
  set t_challenge_ack_end(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_challenge_ack_end = v;
    else if (v !== cold.t_challenge_ack_end) this.#own().t_challenge_ack_end = v;
  }

  get t_challenge_ack_cnt(): number {
    return this.#cold.t_challenge_ack_cnt;
  }
  set t_challenge_ack_cnt(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_challenge_ack_cnt = v;
    else if (v !== cold.t_challenge_ack_cnt) this.#own().t_challenge_ack_cnt = v;
  }

  get t_oobflags(): number {
    return this.#cold.t_oobflags;
  }
  set t_oobflags(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_oobflags = v;
    else if (v !== cold.t_oobflags) this.#own().t_oobflags = v;
  }

  get t_iobc(): number {
    return this.#cold.t_iobc;
  }
  set t_iobc(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_iobc = v;
    else if (v !== cold.t_iobc) this.#own().t_iobc = v;
  }

  get t_scep(): number {
    return this.#cold.t_scep;
  }
  set t_scep(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_scep = v;
    else if (v !== cold.t_scep) this.#own().t_scep = v;
  }

  get t_rcep(): number {
    return this.#cold.t_rcep;
  }
  set t_rcep(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_rcep = v;
    else if (v !== cold.t_rcep) this.#own().t_rcep = v;
  }

  get t_tfo(): TfoConn | null {
    return this.#cold.t_tfo;
  }
  set t_tfo(v: TfoConn | null) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_tfo = v;
    else if (v !== cold.t_tfo) this.#own().t_tfo = v;
  }

  get t_sndrexmitpack(): number {
    return this.#cold.t_sndrexmitpack;
  }
  set t_sndrexmitpack(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_sndrexmitpack = v;
    else if (v !== cold.t_sndrexmitpack) this.#own().t_sndrexmitpack = v;
  }

  get t_rcvoopack(): number {
    return this.#cold.t_rcvoopack;
  }
  set t_rcvoopack(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_rcvoopack = v;
    else if (v !== cold.t_rcvoopack) this.#own().t_rcvoopack = v;
  }

  get t_sndzerowin(): number {
    return this.#cold.t_sndzerowin;
  }
  set t_sndzerowin(v: number) {
    const cold = this.#cold;
    if (cold !== noCold) cold.t_sndzerowin = v;
    else if (v !== cold.t_sndzerowin) this.#own().t_sndzerowin = v;
  }
}
