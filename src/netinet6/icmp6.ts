/**
 * Types and codes of ICMPv6 messages, after sys/netinet/icmp6.h: RFC 4443, 4861, 3810. A message
 * starts with type 0, code 1, checksum 2 and four bytes that depend on the type. A library of constants.
 */

/** Bytes of the ICMPv6 header. */
export const ICMP6_MINLEN = 8;
export const ICMP6_CKSUM_OFF = 2;

// Errors: types below 128.
export const ICMP6_DST_UNREACH = 1;
export const ICMP6_DST_UNREACH_NOROUTE = 0;
export const ICMP6_DST_UNREACH_ADMIN = 1;
export const ICMP6_DST_UNREACH_BEYONDSCOPE = 2;
export const ICMP6_DST_UNREACH_ADDR = 3;
export const ICMP6_DST_UNREACH_NOPORT = 4;
export const ICMP6_PACKET_TOO_BIG = 2;
export const ICMP6_TIME_EXCEEDED = 3;
export const ICMP6_TIME_EXCEED_TRANSIT = 0;
export const ICMP6_TIME_EXCEED_REASSEMBLY = 1;
export const ICMP6_PARAM_PROB = 4;
export const ICMP6_PARAMPROB_HEADER = 0;
export const ICMP6_PARAMPROB_NEXTHEADER = 1;
export const ICMP6_PARAMPROB_OPTION = 2;

// Informational messages.
export const ICMP6_INFOMSG_MASK = 0x80;
export const ICMP6_ECHO_REQUEST = 128;
export const ICMP6_ECHO_REPLY = 129;
export const MLD_LISTENER_QUERY = 130;
export const MLD_LISTENER_REPORT = 131;
export const MLD_LISTENER_DONE = 132;
export const ND_ROUTER_SOLICIT = 133;
export const ND_ROUTER_ADVERT = 134;
export const ND_NEIGHBOR_SOLICIT = 135;
export const ND_NEIGHBOR_ADVERT = 136;
export const ND_REDIRECT = 137;
export const MLDV2_LISTENER_REPORT = 143;

// Neighbour discovery: RFC 4861.
/** The hop limit of every message; others are dropped. */
export const ND_HLIM = 255;
/** Bytes of a router advertisement without options. */
export const ND_ROUTER_ADVERT_LEN = 16;
/** Bytes of a solicitation or advertisement of a neighbour without options. */
export const ND_NEIGHBOR_LEN = 24;
/** The target's offset in it. */
export const ND_TARGET_OFF = 8;
// Flags of an advertisement, in bytes 4 to 7.
export const ND_NA_FLAG_ROUTER = 0x80000000 | 0;
export const ND_NA_FLAG_SOLICITED = 0x40000000;
export const ND_NA_FLAG_OVERRIDE = 0x20000000;
export const ND_OPT_SOURCE_LINKADDR = 1;
export const ND_OPT_TARGET_LINKADDR = 2;
export const ND_OPT_REDIRECTED_HEADER = 4;
export const ND_OPT_NONCE = 14;
/** Bytes of a redirect without options. */
export const ND_REDIRECT_LEN = 40;
/** The offset of its destination; the target is at ND_TARGET_OFF. */
export const ND_RD_DST_OFF = 24;
