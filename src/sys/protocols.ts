/**
 * Numbers of Ethernet, IP and TCP headers that the stack, the drivers and the devices all use,
 * after sys/net/ethernet.h, sys/netinet/in.h and sys/netinet/tcp.h. The files of the same names in
 * src/net, src/kern and src/netinet re-export them.
 */

/** Bytes of an Ethernet header, and of the 802.1Q tag that may follow it. */
export const ETHER_HDR_LEN = 14;
export const ETHER_VLAN_ENCAP_LEN = 4;

// EtherTypes
export const ETHERTYPE_IP = 0x0800;
export const ETHERTYPE_ARP = 0x0806;
export const ETHERTYPE_VLAN = 0x8100;
export const ETHERTYPE_IPV6 = 0x86dd;
export const ETHERTYPE_QINQ = 0x88a8;

// IP protocol numbers
export const IPPROTO_IP = 0;
export const IPPROTO_ICMP = 1;
export const IPPROTO_IGMP = 2;
export const IPPROTO_TCP = 6;
export const IPPROTO_UDP = 17;

// IPv6 extension headers
export const IPPROTO_HOPOPTS = 0;
export const IPPROTO_ROUTING = 43;
export const IPPROTO_DSTOPTS = 60;

// TCP header flags
export const TH_FIN = 0x01;
export const TH_SYN = 0x02;
export const TH_RST = 0x04;
export const TH_PUSH = 0x08;
export const TH_ACK = 0x10;
export const TH_URG = 0x20;
export const TH_ECE = 0x40;
export const TH_CWR = 0x80;

/** Byte offset of the checksum in a TCP and in a UDP header. */
export const TCP_CKSUM_OFF = 16;
export const UDP_CKSUM_OFF = 6;
