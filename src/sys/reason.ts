/**
 * The list of all reasons for a drop, copy, mapping, conversion or delay. Code counts every
 * occurrence with `count()`; `netstat -s --json` prints the counts. Layers are named after folders.
 */

const layers: string[] = [];
const names: string[] = [];

/** Index into the counters. */
export type Reason = number;

function reason(layer: string, name: string): Reason {
  layers.push(layer);
  names.push(name);
  return names.length - 1;
}

// The machine: pages, mappings, mbufs.
export const R_VM_WAIT = reason('vm', 'page_wait'); // sendfile waited for a free page
export const R_VM_WIRE_LIMIT = reason('vm', 'wire_limit'); // 75 % of memory wired by files
export const R_VM_WIRE_SHARE = reason('vm', 'wire_share'); // one connection had its share of them
export const R_SFBUF_NOBUFS = reason('vm', 'sf_buf_exhausted');
export const R_PAGER_EIO = reason('vm', 'pagein_error');
export const R_MBUF_DENIED = reason('mbuf', 'mbuf_denied');
export const R_CLUSTER_DENIED = reason('mbuf', 'cluster_denied');
export const R_EXTPGS_DENIED = reason('mbuf', 'extpgs_denied');
export const R_CONVERT_NOMAP = reason('mbuf', 'convert_no_ifcap_nomap');
export const R_CONVERT_CSUM = reason('mbuf', 'convert_software_checksum');
export const R_CONVERT_FAILED = reason('mbuf', 'convert_failed');
export const R_COMPRESS = reason('mbuf', 'unmapped_compress');

// Sockets and sendfile.
export const R_SO_LISTEN_OVERFLOW = reason('socket', 'listen_queue_overflow');
export const R_SO_MAXSOCKETS = reason('socket', 'maxsockets');
export const R_SF_TRUNCATED = reason('sendfile', 'file_truncated');
export const R_SF_IOERR = reason('sendfile', 'async_io_error');
export const R_SF_BUSY = reason('sendfile', 'page_busy');

// Ethernet and ARP.
export const R_ETHER_SHORT = reason('ether', 'short_frame');
export const R_ETHER_LONG = reason('ether', 'oversize_frame');
export const R_ETHER_NOTUS = reason('ether', 'not_for_us');
export const R_ETHER_LOOP = reason('ether', 'own_source_address');
export const R_ETHER_TYPE = reason('ether', 'unknown_ethertype');
export const R_ETHER_DOWN = reason('ether', 'interface_down');
export const R_ETHER_VLAN = reason('ether', 'no_vlan_interface');
export const R_VLAN_DOWN = reason('vlan', 'interface_down');
export const R_VLAN_PARENT = reason('vlan', 'no_running_parent');
export const R_LAGG_DOWN = reason('lagg', 'interface_down');
export const R_LAGG_INACTIVE = reason('lagg', 'not_the_active_port');
export const R_LAGG_NOPORT = reason('lagg', 'no_active_port');
export const R_NETISR_FULL = reason('net', 'netisr_queue_full');
export const R_IF_NOBUFS = reason('net', 'no_buffers');
export const R_ARP_BAD = reason('arp', 'bad_packet');
export const R_ARP_HOLD_FULL = reason('arp', 'hold_queue_full');
export const R_ARP_TIMEOUT = reason('arp', 'unresolved');
export const R_ARP_EVICTED = reason('arp', 'entry_evicted'); // the table was full
export const R_ARP_DUPLICATE = reason('arp', 'address_conflict');
/** A conflict within ten seconds of the last defence: only logged. */
export const R_ARP_UNDEFENDED = reason('arp', 'conflict_not_defended');

// IP and ICMP.
export const R_IP_SHORT = reason('ip', 'too_short');
export const R_IP_VERSION = reason('ip', 'bad_version');
export const R_IP_HLEN = reason('ip', 'bad_header_length');
export const R_IP_LEN = reason('ip', 'bad_length');
export const R_IP_SUM = reason('ip', 'bad_checksum');
export const R_IP_BADADDR = reason('ip', 'bad_address');
export const R_IP_NOTUS = reason('ip', 'not_for_us');
export const R_IP_FRAGMENT = reason('ip', 'fragment_dropped');
export const R_IP_NOPROTO = reason('ip', 'no_protocol');
export const R_IP_OPTIONS = reason('ip', 'bad_options');
export const R_IP_NOROUTE = reason('ip', 'no_route');
export const R_IP_NOBUFS = reason('ip', 'no_buffers');
export const R_IP_CANTFRAG = reason('ip', 'cant_fragment');
export const R_ICMP_SHORT = reason('icmp', 'too_short');
export const R_ICMP_SUM = reason('icmp', 'bad_checksum');
export const R_ICMP_IGNORED = reason('icmp', 'ignored');
export const R_ICMP_RATE = reason('icmp', 'rate_limited');
export const R_IP6_DISABLED = reason('ip6', 'interface_disabled'); // ND6_IFF_IFDISABLED
export const R_IP6_SHORT = reason('ip6', 'too_short');
export const R_IP6_VERSION = reason('ip6', 'bad_version');
export const R_IP6_BADADDR = reason('ip6', 'bad_address');
export const R_IP6_BADSCOPE = reason('ip6', 'bad_scope');
export const R_IP6_NOTUS = reason('ip6', 'not_for_us');
export const R_IP6_NOTREADY = reason('ip6', 'address_not_ready'); // tentative or duplicated
export const R_IP6_HEADERS = reason('ip6', 'too_many_headers');
export const R_IP6_OPTIONS = reason('ip6', 'bad_options');
export const R_IP6_ROUTING = reason('ip6', 'bad_routing_header');
export const R_IP6_FRAGMENT = reason('ip6', 'fragment_dropped');
export const R_IP6_NOPROTO = reason('ip6', 'no_protocol');
export const R_IP6_NONE = reason('ip6', 'no_next_header');
export const R_IP6_NOROUTE = reason('ip6', 'no_route');
export const R_IP6_NOBUFS = reason('ip6', 'no_buffers');
export const R_IP6_CANTFRAG = reason('ip6', 'cant_fragment');
export const R_ICMP6_SHORT = reason('icmp6', 'too_short');
export const R_ICMP6_SUM = reason('icmp6', 'bad_checksum');
export const R_ICMP6_IGNORED = reason('icmp6', 'ignored');
export const R_ICMP6_RATE = reason('icmp6', 'rate_limited');
export const R_ND6_BAD = reason('nd6', 'bad_packet');
export const R_ND6_HOLD_FULL = reason('nd6', 'hold_queue_full');
export const R_ND6_TIMEOUT = reason('nd6', 'unresolved');
export const R_ND6_FRAGMENT = reason('nd6', 'fragmented'); // RFC 6980
export const R_ND6_NOT_NEIGHBOR = reason('nd6', 'not_a_neighbor');
export const R_ND6_TABLE_FULL = reason('nd6', 'table_full'); // of static entries
export const R_ND6_EVICTED = reason('nd6', 'entry_evicted'); // the table was full
export const R_ND6_ROUTERS_FULL = reason('nd6', 'router_list_full');
export const R_ND6_PREFIXES_FULL = reason('nd6', 'prefix_list_full');
export const R_RIP_FULL = reason('icmp', 'raw_socket_full');
export const R_RIP_MINTTL = reason('icmp', 'raw_ttl_below_minimum');

export const R_MLD_SHORT = reason('mld', 'too_short');
export const R_MLD_IGNORED = reason('mld', 'ignored'); // bad hop limit, source or query, rate limit
export const R_IGMP_SHORT = reason('igmp', 'too_short');
export const R_IGMP_SUM = reason('igmp', 'bad_checksum');
export const R_IGMP_IGNORED = reason('igmp', 'ignored'); // bad TTL or query, rate limit, disabled

// UDP.
export const R_UDP_SHORT = reason('udp', 'too_short');
export const R_UDP_LEN = reason('udp', 'bad_length');
export const R_UDP_SUM = reason('udp', 'bad_checksum');
export const R_UDP_NOPCB = reason('udp', 'no_socket');
export const R_UDP_FULL = reason('udp', 'socket_full');
export const R_UDP_PORT0 = reason('udp', 'port_zero');
export const R_UDP_MINTTL = reason('udp', 'ttl_below_minimum');
export const R_UDP_FILTER = reason('udp', 'multicast_filter');

// The DHCP client.
export const R_DHCP_BAD = reason('dhcp', 'bad_message');
export const R_DHCP_STRAY = reason('dhcp', 'unexpected_message');

// TCP.
export const R_TCP_SHORT = reason('tcp', 'too_short');
export const R_TCP_SUM = reason('tcp', 'bad_checksum');
export const R_TCP_OFF = reason('tcp', 'bad_data_offset');
export const R_TCP_NOPCB = reason('tcp', 'no_connection');
/** A reassembled segment of a connection of another worker. */
export const R_TCP_OTHER_WORKER = reason('tcp', 'other_worker');
export const R_TCP_MINTTL = reason('tcp', 'ttl_below_minimum');
export const R_TCP_CLOSED = reason('tcp', 'closed');
export const R_TCP_BADSEQ = reason('tcp', 'out_of_window');
export const R_TCP_BADACK = reason('tcp', 'bad_ack');
export const R_TCP_SACK_BAD = reason('tcp', 'bad_sack_block');
export const R_TCP_SACK_FULL = reason('tcp', 'sack_scoreboard_full');
export const R_TCP_HC_EVICTED = reason('tcp', 'hostcache_evicted');
export const R_TCP_SACK_REXMT = reason('tcp', 'sack_retransmit');
export const R_TCP_CHALLENGE = reason('tcp', 'challenge_ack');
export const R_TCP_CHALLENGE_LIMIT = reason('tcp', 'challenge_ack_limited');
export const R_TCP_BADRST = reason('tcp', 'bad_reset');
/** SYN to a deprecated IPv6 address, with net.inet6.ip6.use_deprecated=0. */
export const R_TCP_DEPRECATED = reason('tcp', 'deprecated_address');
export const R_TCP_BADSYN = reason('tcp', 'bad_syn');
export const R_TCP_PAWS = reason('tcp', 'paws');
export const R_TCP_DUP = reason('tcp', 'duplicate_data');
export const R_TCP_REASS_WAIT = reason('tcp', 'reassembly_wait'); // until missing data came
export const R_TCP_REASS_FULL = reason('tcp', 'reassembly_full');
export const R_TCP_REASS_FLUSHED = reason('tcp', 'reassembly_flushed'); // the connection ended
export const R_TCP_AFTERCLOSE = reason('tcp', 'data_after_close');
export const R_TCP_AFTERFIN = reason('tcp', 'data_after_fin');
export const R_TCP_NOACK = reason('tcp', 'no_ack');
export const R_TCP_TIMEWAIT = reason('tcp', 'time_wait');
export const R_TCP_TW_EVICTED = reason('tcp', 'time_wait_evicted'); // kern.ipc.maxsockets
export const R_TCP_STALE_ICMP = reason('tcp', 'stale_icmp'); // its quoted data is not in flight
export const R_TCP_SYNCACHE_FULL = reason('tcp', 'syncache_overflow');
export const R_TCP_HANDSHAKE = reason('tcp', 'handshake_timeout');
export const R_TCP_SYNACK_REXMT = reason('tcp', 'synack_retransmit');
export const R_TCP_MTU_REXMT = reason('tcp', 'path_mtu_retransmit');
export const R_TCP_REXMT = reason('tcp', 'retransmit_timeout');
export const R_TCP_FASTREXMT = reason('tcp', 'fast_retransmit');
export const R_TCP_PERSIST = reason('tcp', 'persist_probe');
export const R_TCP_KEEPDROP = reason('tcp', 'keepalive_drop');
export const R_TCP_TIMEOUTDROP = reason('tcp', 'timeout_drop');

// Bus, driver, device.
export const R_DMA_EFBIG = reason('bus', 'too_many_segments');
export const R_DMA_BOUNCED = reason('bus', 'bounced');
export const R_DMA_ENOMEM = reason('bus', 'no_bounce_pages');
export const R_DMA_CHECK_NO_PRE = reason('bus', 'check_missing_pre');
export const R_DMA_CHECK_NO_POST = reason('bus', 'check_missing_post');
export const R_DMA_CHECK_POST_FIRST = reason('bus', 'check_post_without_pre');
export const R_DMA_CHECK_UNLOADED = reason('bus', 'check_use_after_unload');
export const R_DMA_CHECK_UNLOAD_OWNED = reason('bus', 'check_unload_while_owned');
export const R_DMA_CHECK_DOUBLE_LOAD = reason('bus', 'check_double_load');
export const R_DMA_CHECK_NOT_LOADED = reason('bus', 'check_not_loaded');
export const R_DRV_DEFRAG = reason('driver', 'defrag');
export const R_DRV_RING_FULL = reason('driver', 'tx_ring_full');
export const R_DRV_TX_ERROR = reason('driver', 'tx_load_error');
export const R_DRV_RX_NOBUF = reason('driver', 'rx_no_buffer');
export const R_DRV_RX_ERROR = reason('driver', 'rx_error');
export const R_DRV_IFQ_FULL = reason('driver', 'if_snd_full');
export const R_DRV_IFQ_FLUSHED = reason('driver', 'if_snd_flushed'); // the interface went down
export const R_DRV_DOWN = reason('driver', 'not_running');
export const R_DRV_HW_ERROR = reason('driver', 'hardware_stopped');
export const R_DEV_DMA_FAULT = reason('device', 'dma_fault');
export const R_DEV_TX_BAD = reason('device', 'bad_tx_descriptor');
export const R_DEV_RX_NODESC = reason('device', 'no_rx_descriptor');
export const R_DEV_RX_OVERFLOW = reason('device', 'rx_ring_overflow');
export const R_DEV_RX_BAD = reason('device', 'bad_rx_descriptor');
export const R_DEV_RX_RUNT = reason('device', 'rx_runt');
export const R_DEV_BAD_RING = reason('device', 'bad_ring');
export const R_DEV_RX_OVERSIZE = reason('device', 'rx_oversize');
export const R_DEV_RX_FILTER = reason('device', 'rx_filtered');
export const R_DEV_BAD_REG = reason('device', 'bad_register_access');
export const R_DEV_WIRE_FULL = reason('device', 'wire_full'); // EAGAIN: delayed, not lost
export const R_DEV_WIRE_ERROR = reason('device', 'wire_error');
export const R_DEV_LINK_DOWN = reason('device', 'link_down');
/** A frame for another worker whose inbox was full. */
export const R_DEV_HANDOVER_FULL = reason('device', 'handover_full');

// Faults on the wire that the user configured.
export const R_FAULT_DROP = reason('fault', 'drop');
export const R_FAULT_DUPLICATE = reason('fault', 'duplicate');
export const R_FAULT_REORDER = reason('fault', 'reorder');
export const R_FAULT_DELAY = reason('fault', 'delay');
export const R_FAULT_CORRUPT = reason('fault', 'corrupt');
export const R_FAULT_TRUNCATE = reason('fault', 'truncate');
export const R_FAULT_QUEUE_FULL = reason('fault', 'queue_full');
export const R_FAULT_WIRE_ERROR = reason('fault', 'wire_error');

// Output.
export const R_LOG_SUPPRESSED = reason('log', 'line_suppressed'); // more than 100 per second

// Capture.
export const R_CAPTURE_FULL = reason('capture', 'ring_full');
export const R_CAPTURE_NO_READER = reason('capture', 'no_reader'); // of a FIFO
export const R_CAPTURE_SLOW = reason('capture', 'reader_too_slow'); // or the disk
export const R_CAPTURE_ENDED = reason('capture', 'file_ended'); // after a failed write

// Clients of the control socket.
export const R_CTL_CLIENTS = reason('control', 'too_many_clients');
export const R_CTL_IDLE = reason('control', 'idle_client');
export const R_CTL_LONG = reason('control', 'long_request');
export const R_CTL_UNREAD = reason('control', 'unread_answers');
export const R_CTL_STREAMS = reason('control', 'too_many_streams');
export const R_CTL_BEHIND = reason('control', 'line_to_slow_client');

// The program `serve`.
export const R_HTTP_FILE_EVICTED = reason('http', 'open_file_evicted'); // by another file
export const R_HTTP_CONN_LIMIT = reason('http', 'connection_limit');
export const R_HTTP_HEAD_TIMEOUT = reason('http', 'request_timeout'); // no whole request in time
export const R_HTTP_IDLE_TIMEOUT = reason('http', 'idle_timeout'); // no next request in time
export const R_HTTP_SEND_STALL = reason('http', 'send_stall'); // no progress of a response
export const R_HTTP_HEAD_SIZE = reason('http', 'header_too_large');
export const R_HTTP_BODY = reason('http', 'body_refused');
export const R_HTTP_BAD_REQUEST = reason('http', 'bad_request');
export const R_HTTP_FILE_TIMEOUT = reason('http', 'file_timeout'); // no answer of a file system
export const R_HTTP_LISTING_UNSORTED = reason('http', 'listing_unsorted');
export const R_HTTP_LOG_LIMIT = reason('http', 'log_line_suppressed');

const counts = new Float64Array(names.length);

/** Adds one occurrence, or `n`. */
export function count(why: Reason, n = 1): void {
  counts[why]! += n;
}

/** The count of `why` since start or the last reset. */
export function counted(why: Reason): number {
  return counts[why]!;
}

/** All reasons in order, including those with count 0. For printing. */
export function reasonCounts(): { layer: string; reason: string; count: number }[] {
  return names.map((name, i) => ({ layer: layers[i]!, reason: name, count: counts[i]! }));
}

/** `LAYER.NAME` of a reason; the number for one that does not exist. */
export function reasonText(why: Reason): string {
  const name = names[why];
  return name === undefined ? String(why) : `${layers[why]!}.${name}`;
}

/** Sets every counter to 0. For tests. */
export function resetReasons(): void {
  counts.fill(0);
}
