/** A frame as data: what patterns compare and what texts print. */

/** TCP's fields. Sequence numbers are relative to the connection's, as packetdrill counts them. */
export interface TcpFields {
  /** tcpdump's letters in the order FSRP.UEWe. */
  readonly flags: string;
  readonly seq: number;
  /** 0 without the flag `.`. */
  readonly ack: number;
  readonly win: number;
  readonly urg: number;
  /** As tcpdump prints them: `mss 1460`, `nop`, `TS val 1 ecr 0`. */
  readonly options: readonly string[];
}

/** ICMP's or ICMPv6's fields. */
export interface IcmpFields {
  readonly type: number;
  readonly code: number;
  /** Of echo; else bytes 4 to 7 of the header. */
  readonly id: number;
  readonly seq: number;
  /** Target of neighbour discovery; empty: none. */
  readonly target: string;
}

export interface ArpFields {
  readonly op: number;
  readonly senderMac: string;
  readonly sender: string;
  readonly target: string;
}

export type Protocol = 'tcp' | 'udp' | 'icmp' | 'icmp6' | 'igmp' | 'arp' | 'ip' | 'ip6' | 'ether';

/** A frame that a stack sent (`out`) or received (`in`). */
export interface Frame {
  readonly direction: 'out' | 'in';
  /** Milliseconds since the log began; of virtual time on a link. */
  readonly timeMs: number;
  /** From the Ethernet header on, without FCS. */
  readonly bytes: Uint8Array;
  readonly protocol: Protocol;
  /** IP addresses; Ethernet addresses if the frame has none. */
  readonly src: string;
  readonly dst: string;
  /** Of TCP and UDP; -1: none. */
  readonly sport: number;
  readonly dport: number;
  readonly ttl: number;
  /** Bytes behind the headers that this object describes, without padding. */
  readonly payload: Uint8Array;
  readonly tcp: TcpFields | null;
  readonly icmp: IcmpFields | null;
  readonly arp: ArpFields | null;
  /** The Ethernet type, or the protocol number of IP. */
  readonly type: number;
  readonly vlan: number | null;
  /** Offset of a fragment; -1: not a fragment. */
  readonly fragment: number;
}

/** What `stack[FRAMES]` has: the log of the frames of a stack. */
export interface FrameSource {
  readonly name: string;
  /** Whether the stack is one of a link: leaks are the link's. */
  readonly onLink: boolean;
  /** All frames since the log began, in order. Throws TapnicError: ENOBUFS, frames are missing. */
  frames(): readonly Frame[];
  /** Drops since the log began, by reason. */
  drops(): ReadonlyMap<string, number>;
}

/** The property of a stack that holds its FrameSource. The same for every copy of this module. */
export const FRAMES: unique symbol = Symbol.for('tapnic.frames');
