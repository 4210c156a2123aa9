/*
 * A minimal TCP sender over a TAP: a bulk transfer without congestion control and driver. Answers
 * ARP or neighbour solicitations, accepts connections, waits for the first byte of each, then sends
 * each a stream gathered page by page from an arena with writev(2), as fast as the peer's windows
 * allow, and closes.
 *
 *   bulk_tx -t TAP -m wire|vnet -b BYTES [-6] [-a ARENA_BYTES] [-c CPU] [-n CONNECTIONS]
 *           [-M MTU] [-N] [-u]
 *
 * BYTES is the sum of all connections; each sends the same part. wire: segments of one MSS, with
 * the checksum computed here. vnet: segments of up to 64 KB after a virtio-net header that leaves
 * checksum and segmentation to Linux. At most 16 segments are sent between two reads of
 * acknowledgments. No timestamps, no SACK; after 200 ms without a frame it sends again from the
 * first unacknowledged bytes.
 *
 * -N: threaded NAPI; the caller may pin the thread "napi/..." after "ready", and ends the program. -u: the bytes
 * come from a buffer of a program, 1 MB, and are copied into a send buffer of 2 MB; one connection.
 *
 * Prints "ready" when the interface is up, and at the end one line of JSON. Linux's address is
 * 192.0.2.1/24, ours is 192.0.2.2, port 80; with -6 they are 2001:db8::1/64 and 2001:db8::2.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_addr.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum {
  PAGE = 4096,
  MTU_MAX = 9000,
  TSO_MAX = 64240, /* 44 segments of 1460 bytes */
  BURST = 16,
  CONNS_MAX = 1024,
  NAPI_SNDBUF = 4 << 20,
  USER_BUFFER = 1 << 20,
  SEND_BUFFER = 2 << 20, /* with -u */
  COPY = 1 << 16,        /* bytes of one copy from the program's buffer */
  VNET = 10, /* sizeof(struct virtio_net_hdr), the default header size of a TAP */
  ETH = 14,
  IP4 = 20,
  IP6 = 40,
  TCP = 20,
  HEADERS_MAX = VNET + ETH + IP6 + TCP + 40,
  PORT = 80,
  RETRY_MS = 200,
  LIMIT_S = 60, /* of the whole run */
};

enum { FIN = 1, SYN = 2, PSH = 8, ACK = 16 };

static const uint8_t our_mac[6] = {0x02, 0x00, 0x5e, 0x00, 0x53, 0x02};
static const uint8_t our_ip4[4] = {192, 0, 2, 2};
static const uint8_t our_ip6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 2};
static const uint8_t linux_ip6[16] = {0x20, 0x01, 0x0d, 0xb8, [15] = 1};
static const uint32_t iss = 0x10000;

static int fd;
static int vnet; /* bytes of virtio-net header, 0 in wire mode */
static bool v6;
/* Length of the IP header we send; address of either family with its length. */
static size_t ip_len = IP4, addr_len = 4;
static const uint8_t *our_ip = our_ip4;
static uint32_t mtu = 1500;
static uint8_t *arena;
static uint32_t *order; /* the pages in the order of the stream */
static uint64_t pages;
static uint8_t *user;   /* with -u: the program's buffer */
static uint64_t copied; /* bytes of the stream that were copied from it */
static uint8_t peer_mac[6], peer_ip[16];

struct conn {
  uint16_t port; /* the peer's */
  unsigned wscale;
  uint32_t mss, segment;
  uint32_t rcv_nxt;
  /* Stream offsets: first unacknowledged, next to send, highest sent. The FIN is the byte after
   * the last. */
  uint64_t una, nxt, sent_max;
  uint64_t wnd;
  bool open, asked, peer_fin;
};

static struct conn conns[CONNS_MAX];
static uint16_t by_port[65536]; /* index in conns + 1 */
static int nconns = 1, made, asked, finished, done;
static uint64_t total; /* bytes of each connection */
static uint64_t segments, retransmits;

static void die(const char *what) {
  fprintf(stderr, "bulk_tx: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void put16(uint8_t *p, unsigned v) {
  p[0] = (uint8_t)(v >> 8);
  p[1] = (uint8_t)v;
}

static void put32(uint8_t *p, uint32_t v) {
  put16(p, v >> 16);
  put16(p + 2, v & 0xffff);
}

static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }
static uint32_t get32(const uint8_t *p) { return (uint32_t)get16(p) << 16 | get16(p + 2); }

/* Sums in memory order. Every piece of a segment except the last must have an even length. */
static uint64_t sum(const uint8_t *p, size_t n, uint64_t s) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    uint32_t w;
    memcpy(&w, p + i, 4);
    s += w;
  }
  uint16_t half = 0;
  if (i + 2 <= n) {
    memcpy(&half, p + i, 2);
    s += half;
    i += 2;
  }
  if (i < n) {
    half = 0;
    memcpy(&half, p + i, 1);
    s += half;
  }
  return s;
}

static uint16_t fold(uint64_t s) {
  s = (s & 0xffffffff) + (s >> 32);
  s = (s & 0xffffffff) + (s >> 32);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  return (uint16_t)s;
}

static void store_sum(uint8_t *at, uint16_t v) { memcpy(at, &v, 2); }

/* Writes the IP header of a TCP segment of `len` bytes, header included. */
static void ip_header(uint8_t *ip, size_t len) {
  static uint16_t id;
  if (v6) {
    ip[0] = 0x60;
    put16(ip + 4, (unsigned)len);
    ip[6] = IPPROTO_TCP;
    ip[7] = 64;
    memcpy(ip + 8, our_ip6, 16);
    memcpy(ip + 24, peer_ip, 16);
    return;
  }
  ip[0] = 0x45;
  put16(ip + 2, (unsigned)(IP4 + len));
  put16(ip + 4, id++);
  ip[6] = 0x40; /* don't fragment */
  ip[8] = 64;
  ip[9] = IPPROTO_TCP;
  memcpy(ip + 12, our_ip4, 4);
  memcpy(ip + 16, peer_ip, 4);
  store_sum(ip + 10, (uint16_t)~fold(sum(ip, IP4, 0)));
}

/* Writes the headers, virtio-net header included, of the segment at `off`; returns their length. */
static size_t headers(const struct conn *c, uint8_t *h, uint64_t off, unsigned flags,
                      const uint8_t *opts, size_t optlen, const struct iovec *iov, int iovcnt,
                      size_t len) {
  uint8_t *eth = h + vnet, *ip = eth + ETH, *tcp = ip + ip_len;
  const size_t thl = TCP + optlen;
  const bool tso = vnet && len > c->mss, partial = vnet && len > 0;
  memset(h, 0, (size_t)vnet + ETH + ip_len + TCP);
  memcpy(eth, peer_mac, 6);
  memcpy(eth + 6, our_mac, 6);
  put16(eth + 12, v6 ? 0x86dd : 0x0800);
  ip_header(ip, thl + len);
  put16(tcp, PORT);
  put16(tcp + 2, c->port);
  put32(tcp + 4, iss + 1 + (uint32_t)off - ((flags & SYN) != 0));
  put32(tcp + 8, c->rcv_nxt);
  tcp[12] = (uint8_t)(thl / 4 << 4);
  tcp[13] = (uint8_t)flags;
  put16(tcp + 14, 0xffff);
  if (optlen > 0) memcpy(tcp + TCP, opts, optlen);
  uint8_t tail[4] = {0, IPPROTO_TCP, 0, 0};
  put16(tail + 2, (unsigned)(thl + len));
  const size_t addrs = 2 * addr_len; /* the last fields of either header */
  uint64_t s = sum(tail, 4, sum(tcp - addrs, addrs, 0));
  if (partial) {
    const uint8_t gso = v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
    struct virtio_net_hdr v = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
                               .gso_type = tso ? gso : VIRTIO_NET_HDR_GSO_NONE,
                               .hdr_len = (uint16_t)(ETH + ip_len + TCP),
                               .gso_size = tso ? (uint16_t)c->mss : 0,
                               .csum_start = (uint16_t)(ETH + ip_len),
                               .csum_offset = 16};
    memcpy(h, &v, VNET);
    store_sum(tcp + 16, fold(s));
  } else {
    s = sum(tcp, thl, s);
    for (int i = 0; i < iovcnt; i++) s = sum(iov[i].iov_base, iov[i].iov_len, s);
    store_sum(tcp + 16, (uint16_t)~fold(s));
  }
  return (size_t)vnet + ETH + ip_len + thl;
}

/* Sends `len` bytes of the stream from `off`, with `flags`. */
static void emit(const struct conn *c, uint64_t off, size_t len, unsigned flags,
                 const uint8_t *opts, size_t optlen) {
  uint8_t h[HEADERS_MAX];
  struct iovec iov[1 + TSO_MAX / PAGE + 3];
  iov[1] = (struct iovec){NULL, 0};
  int n = 1;
  for (size_t done = 0; done < len;) {
    const uint64_t pos = off + done;
    const size_t in = pos % PAGE;
    size_t piece = PAGE - in;
    if (piece > len - done) piece = len - done;
    iov[n++] = (struct iovec){arena + (uint64_t)order[pos / PAGE % pages] * PAGE + in, piece};
    done += piece;
  }
  iov[0] = (struct iovec){h, headers(c, h, off, flags, opts, optlen, iov + 1, n - 1, len)};
  ssize_t sent;
  while ((sent = writev(fd, iov, n)) < 0) {
    /* EAGAIN: the queue of the NAPI thread is full. */
    struct pollfd full = {.fd = fd, .events = POLLOUT};
    if (errno == EAGAIN) poll(&full, 1, RETRY_MS);
    else if (errno != EINTR) die("writev");
  }
}

static void arp(const uint8_t *f) {
  if (get16(f + 20) != 1 || memcmp(f + 38, our_ip4, 4) != 0) return;
  uint8_t r[VNET + 42];
  memset(r, 0, sizeof r);
  uint8_t *eth = r + vnet;
  memcpy(eth, f + 6, 6);
  memcpy(eth + 6, our_mac, 6);
  put16(eth + 12, 0x0806);
  memcpy(eth + 14, f + 14, 6);
  put16(eth + 20, 2);
  memcpy(eth + 22, our_mac, 6);
  memcpy(eth + 28, our_ip4, 4);
  memcpy(eth + 32, f + 22, 10);
  if (write(fd, r, (size_t)vnet + 42) < 0) die("write");
}

/* Answers a neighbour solicitation for our address, unless it is of address detection. */
static void solicited(const uint8_t *f, size_t len) {
  static const uint8_t unspecified[16];
  const uint8_t *ip = f + ETH, *icmp = ip + IP6;
  if (len < ETH + IP6 + 24 || ip[6] != IPPROTO_ICMPV6 || icmp[0] != 135) return;
  if (memcmp(icmp + 8, our_ip6, 16) != 0 || memcmp(ip + 8, unspecified, 16) == 0) return;
  uint8_t r[VNET + ETH + IP6 + 32] = {0};
  uint8_t *eth = r + vnet, *to = eth + ETH, *na = to + IP6;
  memcpy(eth, f + 6, 6);
  memcpy(eth + 6, our_mac, 6);
  put16(eth + 12, 0x86dd);
  to[0] = 0x60;
  put16(to + 4, 32);
  to[6] = IPPROTO_ICMPV6;
  to[7] = 255;
  memcpy(to + 8, our_ip6, 16);
  memcpy(to + 24, ip + 8, 16);
  na[0] = 136;
  na[4] = 0x60; /* solicited, override */
  memcpy(na + 8, our_ip6, 16);
  na[24] = 2; /* target link-layer address, 8 bytes */
  na[25] = 1;
  memcpy(na + 26, our_mac, 6);
  const uint8_t tail[4] = {0, 32, 0, IPPROTO_ICMPV6};
  store_sum(na + 2, (uint16_t)~fold(sum(na, 32, sum(tail, 4, sum(to + 8, 32, 0)))));
  if (write(fd, r, (size_t)vnet + ETH + IP6 + 32) < 0) die("write");
}

static void syn(const uint8_t *f, const uint8_t *tcp, size_t thl) {
  const unsigned port = get16(tcp);
  if (by_port[port] == 0) {
    if (made == nconns) return;
    conns[made].port = (uint16_t)port;
    by_port[port] = (uint16_t)++made;
  }
  struct conn *c = &conns[by_port[port] - 1];
  memcpy(peer_mac, f + 6, 6);
  memcpy(peer_ip, f + ETH + ip_len - 2 * addr_len, addr_len);
  const size_t own = mtu - ip_len - TCP;
  c->mss = (uint32_t)own;
  c->rcv_nxt = get32(tcp + 4) + 1;
  for (size_t i = TCP; i + 1 < thl && tcp[i] != 0;) {
    const unsigned kind = tcp[i], optlen = kind == 1 ? 1 : tcp[i + 1];
    if (optlen == 0 || i + optlen > thl) break;
    if (kind == 2 && optlen == 4 && get16(tcp + i + 2) < c->mss) c->mss = get16(tcp + i + 2);
    if (kind == 3 && optlen == 3) c->wscale = tcp[i + 2] > 14 ? 14 : tcp[i + 2];
    i += optlen;
  }
  c->segment = vnet ? TSO_MAX / c->mss * c->mss : c->mss;
  /* MSS, no-operation, window scale 0: our windows are small, but the peer may scale its own. */
  const uint8_t opts[] = {2, 4, (uint8_t)(own >> 8), (uint8_t)own, 1, 3, 3, 0};
  emit(c, 0, 0, SYN | ACK, opts, sizeof opts);
}

static void tcp_in(const uint8_t *f, size_t len) {
  const uint8_t *ip = f + ETH;
  const size_t ihl = v6 ? IP6 : (ip[0] & 15u) * 4;
  const size_t iplen = v6 ? IP6 + get16(ip + 4) : get16(ip + 2);
  if (ip[v6 ? 6 : 9] != IPPROTO_TCP || memcmp(ip + ip_len - addr_len, our_ip, addr_len) != 0) return;
  if (ihl < ip_len || ETH + iplen > len || iplen < ihl + TCP) return;
  const uint8_t *tcp = ip + ihl;
  const size_t thl = (tcp[12] >> 4) * 4u;
  if (get16(tcp + 2) != PORT || thl < TCP || ihl + thl > iplen) return;
  if (tcp[13] & SYN) {
    syn(f, tcp, thl);
    return;
  }
  if (by_port[get16(tcp)] == 0 || !(tcp[13] & ACK)) return;
  struct conn *c = &conns[by_port[get16(tcp)] - 1];
  c->open = true;
  const uint32_t acked = get32(tcp + 8) - (iss + 1 + (uint32_t)c->una);
  if (acked <= c->sent_max - c->una) {
    if (c->una < total && c->una + acked >= total) finished++;
    c->una += acked;
    if (c->nxt < c->una) c->nxt = c->una; /* the bytes being sent again had arrived */
    c->wnd = (uint64_t)get16(tcp + 14) << c->wscale;
  }
  const uint32_t data = (uint32_t)(iplen - ihl - thl);
  if (get32(tcp + 4) == c->rcv_nxt && !c->peer_fin) {
    c->rcv_nxt += data;
    if (data > 0 && !c->asked) {
      c->asked = true;
      asked++;
    }
    if (tcp[13] & FIN) {
      c->rcv_nxt++;
      c->peer_fin = true;
      done++;
    }
  }
  /* No data segment will carry the acknowledgment, so send it alone. */
  if ((data > 0 || (tcp[13] & FIN)) && c->nxt >= total) emit(c, c->nxt, 0, ACK, NULL, 0);
}

/* Reads and handles all frames that wait; returns whether there was one. */
static bool drain(void) {
  static uint8_t f[VNET + 65536 + ETH];
  bool any = false;
  for (;;) {
    const ssize_t n = read(fd, f, sizeof f);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) return any;
      die("read");
    }
    any = true;
    if (n < vnet + ETH + (int)ip_len) continue;
    const uint8_t *eth = f + vnet;
    const size_t len = (size_t)(n - vnet);
    if (get16(eth + 12) == 0x0806 && len >= 42) arp(eth);
    else if (get16(eth + 12) == (v6 ? 0x86dd : 0x0800)) tcp_in(eth, len);
    if (v6 && get16(eth + 12) == 0x86dd) solicited(eth, len);
  }
}

/* With -u: copies bytes of the program into the send buffer, up to byte `end` of the stream. */
static void copy_in(const struct conn *c, uint64_t end) {
  while (copied < end && copied + COPY - c->una <= SEND_BUFFER) {
    memcpy(arena + copied % SEND_BUFFER, user + copied % USER_BUFFER, COPY);
    copied += COPY;
  }
}

/* Sends the next segment of `c` into its window; returns whether there was one. */
static bool send_next(struct conn *c) {
  if (c->nxt >= total || !c->asked) return false;
  const uint64_t room = c->una + c->wnd > c->nxt ? c->una + c->wnd - c->nxt : 0;
  uint64_t len = total - c->nxt < c->segment ? total - c->nxt : c->segment;
  if (len > room) {
    /* A small segment costs as much as a large one: wait for more window, unless all data is
     * acknowledged. */
    if (room == 0 || c->nxt != c->una) return false;
    len = room;
  }
  if (user != NULL && c->nxt + len > copied) {
    copy_in(c, c->nxt + len);
    if (c->nxt + len > copied) return false;
  }
  emit(c, c->nxt, (size_t)len, c->nxt + len == total ? ACK | PSH : ACK, NULL, 0);
  c->nxt += len;
  if (c->nxt > c->sent_max) c->sent_max = c->nxt;
  segments++;
  return true;
}

/* Sends one burst, of all connections in turn; returns whether it sent a segment. */
static bool burst(void) {
  static int turn;
  int n = 0;
  for (int idle = 0; idle < made && n < BURST; idle++) {
    struct conn *c = &conns[turn];
    /* A connection sends its share of a burst in one go: its pages are near each other. */
    for (int share = nconns == 1 ? BURST : BURST / 4; share > 0 && n < BURST; share--) {
      if (!send_next(c)) break;
      n++;
      idle = -1;
    }
    turn = turn + 1 == made ? 0 : turn + 1;
  }
  return n > 0;
}

static void wait_frames(void) {
  struct pollfd p = {.fd = fd, .events = POLLIN};
  const int n = poll(&p, 1, RETRY_MS);
  if (n < 0 && errno != EINTR) die("poll");
  if (n != 0) return;
  for (int i = 0; i < made; i++) {
    struct conn *c = &conns[i];
    if (!c->asked || c->una >= total) continue;
    if (c->nxt > c->una) retransmits++;
    c->nxt = c->una;
    /* An old sequence number: the peer answers with its acknowledgment and its window. */
    emit(c, c->una - 1, 0, ACK, NULL, 0);
  }
}

/* Ends all connections, and waits up to 2 s for their peers. */
static void close_all(void) {
  for (const double end = now() + 2; done < made && now() < end;) {
    for (int i = 0; i < made; i++) {
      struct conn *c = &conns[i];
      if (c->peer_fin && c->una > total) continue;
      emit(c, total, 0, FIN | ACK, NULL, 0);
      c->nxt = c->sent_max = total + 1;
    }
    do wait_frames();
    while (drain() && done < made && now() < end);
  }
}

/* Lets a kernel thread receive the frames that we write. */
static void thread_napi(const char *name) {
  char path[64];
  snprintf(path, sizeof path, "/sys/class/net/%s/threaded", name);
  const int f = open(path, O_WRONLY | O_CLOEXEC);
  if (f < 0 || write(f, "1", 1) != 1) die(path);
  close(f);
  /* Without a limit, the queue of the thread grows without bound. */
  int size = NAPI_SNDBUF;
  if (ioctl(fd, TUNSETSNDBUF, &size) < 0) die("TUNSETSNDBUF");
}

/* Gives the interface linux_ip6/64 without duplicate address detection. */
static void add_address6(const char *name) {
  struct {
    struct nlmsghdr n;
    struct ifaddrmsg a;
    struct rtattr t;
    uint8_t address[16];
  } ask = {.n = {.nlmsg_len = sizeof ask,
                 .nlmsg_type = RTM_NEWADDR,
                 .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE},
           .a = {.ifa_family = AF_INET6,
                 .ifa_prefixlen = 64,
                 .ifa_flags = IFA_F_NODAD,
                 .ifa_index = if_nametoindex(name)},
           .t = {.rta_len = RTA_LENGTH(16), .rta_type = IFA_LOCAL}};
  memcpy(ask.address, linux_ip6, 16);
  struct {
    struct nlmsghdr n;
    struct nlmsgerr e;
    uint8_t rest[256];
  } answer;
  const int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (s < 0 || send(s, &ask, sizeof ask, 0) < 0) die("RTM_NEWADDR");
  if (recv(s, &answer, sizeof answer, 0) < (ssize_t)sizeof answer.n + 4) die("RTM_NEWADDR");
  errno = -answer.e.error;
  if (errno != 0) die("RTM_NEWADDR");
  close(s);
}

static void open_tap(const char *name, bool napi) {
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0) |
                                           (napi ? IFF_NAPI : 0))};
  strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &ifr) < 0) die("TUNSETIFF");
  if (vnet && ioctl(fd, TUNSETOFFLOAD, TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN) < 0)
    die("TUNSETOFFLOAD");
  const int s = socket(AF_INET, SOCK_DGRAM, 0);
  if (s < 0) die("socket");
  struct sockaddr_in sin = {.sin_family = AF_INET};
  sin.sin_addr.s_addr = htonl(0xc0000201);
  memcpy(&ifr.ifr_addr, &sin, sizeof sin);
  if (ioctl(s, SIOCSIFADDR, &ifr) < 0) die("SIOCSIFADDR");
  sin.sin_addr.s_addr = htonl(0xffffff00);
  memcpy(&ifr.ifr_netmask, &sin, sizeof sin);
  if (ioctl(s, SIOCSIFNETMASK, &ifr) < 0) die("SIOCSIFNETMASK");
  ifr.ifr_mtu = (int)mtu;
  if (ioctl(s, SIOCSIFMTU, &ifr) < 0) die("SIOCSIFMTU");
  if (napi) thread_napi(name);
  ifr.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(s, SIOCSIFFLAGS, &ifr) < 0) die("SIOCSIFFLAGS");
  close(s);
  if (v6) add_address6(name);
}

static void fill_arena(uint64_t bytes) {
  pages = bytes / PAGE;
  arena = mmap(NULL, pages * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE,
               -1, 0);
  order = malloc(pages * sizeof *order);
  if (arena == MAP_FAILED || order == NULL) die("arena");
  uint32_t x = 1; /* xorshift: the same bytes and the same order in every run */
  for (uint64_t i = 0; i < pages * PAGE / 4; i++) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    memcpy(arena + 4 * i, &x, 4);
  }
  for (uint64_t i = 0; i < pages; i++) order[i] = (uint32_t)i;
  for (uint64_t i = pages - 1; i > 0; i--) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    const uint64_t j = x % (i + 1);
    const uint32_t t = order[i];
    order[i] = order[j];
    order[j] = t;
  }
}

/* The arena and the order of its pages; with -u a send buffer, and the program's buffer. */
static void make_arena(uint64_t bytes, bool program) {
  fill_arena(program ? SEND_BUFFER : bytes);
  if (!program) return;
  for (uint64_t i = 0; i < pages; i++) order[i] = (uint32_t)i;
  user = malloc(USER_BUFFER);
  if (user == NULL) die("malloc");
  memcpy(user, arena, USER_BUFFER);
}

static void pin(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
}

static int usage(void) {
  fputs("usage: bulk_tx -t TAP -m wire|vnet -b BYTES [-6] [-a ARENA_BYTES] [-c CPU]\n"
        "               [-n CONNECTIONS] [-M MTU] [-N] [-u]\n", stderr);
  return 2;
}

int main(int argc, char **argv) {
  const char *tap = NULL;
  uint64_t arena_bytes = 16 << 20, bytes = 0;
  int cpu = -1;
  bool napi = false, program = false;
  for (int o; (o = getopt(argc, argv, "t:m:b:a:c:n:M:6Nu")) != -1;) {
    if (o == 't') tap = optarg;
    else if (o == 'm') vnet = strcmp(optarg, "vnet") == 0 ? VNET : 0;
    else if (o == 'b') bytes = strtoull(optarg, NULL, 10);
    else if (o == 'a') arena_bytes = strtoull(optarg, NULL, 10);
    else if (o == 'c') cpu = atoi(optarg);
    else if (o == 'n') nconns = atoi(optarg);
    else if (o == 'M') mtu = (uint32_t)atoi(optarg);
    else if (o == '6') v6 = true;
    else if (o == 'N') napi = true;
    else if (o == 'u') program = true;
    else return usage();
  }
  if (tap == NULL || arena_bytes < PAGE || nconns < 1 || nconns > CONNS_MAX) return usage();
  if (mtu < 1280 || mtu > MTU_MAX || (program && nconns > 1)) return usage();
  total = bytes / (uint64_t)nconns;
  if (total == 0 || (program && total % COPY != 0)) return usage();
  if (v6) {
    ip_len = IP6;
    addr_len = 16;
    our_ip = our_ip6;
  }
  alarm(LIMIT_S);
  if (cpu >= 0) pin(cpu);
  make_arena(arena_bytes, program);
  open_tap(tap, napi);
  puts("ready");
  fflush(stdout);

  const double cpu0 = cpu_seconds();
  while (asked < nconns) {
    wait_frames();
    drain();
  }
  const double t0 = now();
  while (finished < nconns) {
    const bool sent = burst();
    if (!drain() && !sent) wait_frames();
  }
  const double seconds = now() - t0, cpu1 = cpu_seconds();
  close_all();
  printf("{\"bytes\":%llu,\"segments\":%llu,\"retransmits\":%llu,\"seconds\":%.6f,"
         "\"cpuSeconds\":%.6f}\n",
         (unsigned long long)total * (unsigned)nconns, (unsigned long long)segments,
         (unsigned long long)retransmits, seconds, cpu1 - cpu0);
  fflush(stdout);
  /* The caller reads the CPU time of the thread, which ends with the interface, and kills us. */
  if (napi) pause();
  return 0;
}
