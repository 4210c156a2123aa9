/*
 * A minimal TCP reader over a TAP: does the handshake, acknowledges once per batch of frames and
 * discards the data. It has no socket buffer, no reassembly and no driver. A segment that is not the
 * next one is dropped and acknowledged at once.
 *
 *   bulk_rx -t TAP -m wire|vnet [-n] [-w WINDOW_BYTES] [-c CPU]
 *
 * wire: no offload, so frames have at most one MSS, and the checksum of each segment is verified
 * here unless -n is given. vnet: checksum and segmentation offload, so Linux sends up to 64 KB in
 * one frame behind a virtio-net header and leaves the checksum out. Frames are read with read(2)
 * into one buffer until EAGAIN, then epoll(7) waits. A batch ends there, or when a quarter of the
 * window has been received. No timestamps, no SACK.
 *
 * Prints "ready" when the interface is up, and after the peer has closed one line of JSON. Linux's
 * address is 192.0.2.1/24, ours is 192.0.2.2, every port is open.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  MTU = 1500,
  VNET = 10, /* sizeof(struct virtio_net_hdr), the default header size of a TAP */
  ETH = 14,
  IP4 = 20,
  TCP = 20,
  WSCALE = 7,
  WAIT_MS = 200,
  LIMIT_S = 60, /* of the whole run */
};

enum { FIN = 1, SYN = 2, RST = 4, ACK = 16 };

static const uint8_t our_mac[6] = {0x02, 0x00, 0x5e, 0x00, 0x53, 0x02};
static const uint8_t our_ip[4] = {192, 0, 2, 2};
static const uint32_t iss = 0x10000;

static int fd, ep;
static size_t vnet; /* bytes of virtio-net header, 0 in wire mode */
static bool verify;
static uint32_t window = 1 << 20;

static uint8_t peer_mac[6], peer_ip[4];
static uint16_t our_port, peer_port;
static uint32_t rcv_nxt, acked;
static bool open_, peer_fin, done;
static uint64_t frames, bytes, acks, bad_sums, out_of_order, waits;

static void die(const char *what) {
  fprintf(stderr, "bulk_rx: %s: %s\n", what, strerror(errno));
  exit(1);
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

/* Sums in memory order. */
static uint64_t sum(const uint8_t *p, size_t n, uint64_t s) {
  size_t i = 0;
  for (; i + 4 <= n; i += 4) {
    uint32_t w;
    memcpy(&w, p + i, 4);
    s += w;
  }
  uint32_t rest = 0;
  memcpy(&rest, p + i, n - i);
  return s + rest;
}

static uint16_t fold(uint64_t s) {
  s = (s & 0xffffffff) + (s >> 32);
  s = (s & 0xffffffff) + (s >> 32);
  s = (s & 0xffff) + (s >> 16);
  s = (s & 0xffff) + (s >> 16);
  return (uint16_t)s;
}

static void store_sum(uint8_t *at, uint16_t v) { memcpy(at, &v, 2); }

/* The sum of pseudo-header and segment of `len` bytes. */
static uint16_t tcp_sum(const uint8_t *ip, const uint8_t *tcp, size_t len) {
  uint8_t tail[4] = {0, IPPROTO_TCP, 0, 0};
  put16(tail + 2, (unsigned)len);
  return fold(sum(tcp, len, sum(tail, 4, sum(ip + 12, 8, 0))));
}

/* Sends a segment without data. `seq` is relative to our initial sequence number. */
static void emit(uint32_t seq, unsigned flags, const uint8_t *opts, size_t optlen) {
  uint8_t h[VNET + ETH + IP4 + TCP + 40] = {0};
  uint8_t *eth = h + vnet, *ip = eth + ETH, *tcp = ip + IP4;
  const size_t thl = TCP + optlen;
  memcpy(eth, peer_mac, 6);
  memcpy(eth + 6, our_mac, 6);
  put16(eth + 12, 0x0800);
  ip[0] = 0x45;
  put16(ip + 2, (unsigned)(IP4 + thl));
  ip[6] = 0x40; /* don't fragment */
  ip[8] = 64;
  ip[9] = IPPROTO_TCP;
  memcpy(ip + 12, our_ip, 4);
  memcpy(ip + 16, peer_ip, 4);
  store_sum(ip + 10, (uint16_t)~fold(sum(ip, IP4, 0)));
  put16(tcp, our_port);
  put16(tcp + 2, peer_port);
  put32(tcp + 4, iss + seq);
  put32(tcp + 8, rcv_nxt);
  tcp[12] = (uint8_t)(thl / 4 << 4);
  tcp[13] = (uint8_t)flags;
  put16(tcp + 14, (flags & SYN) != 0 ? 0xffff : window >> WSCALE);
  if (optlen > 0) memcpy(tcp + TCP, opts, optlen);
  store_sum(tcp + 16, (uint16_t)~tcp_sum(ip, tcp, thl));
  ssize_t sent;
  do sent = write(fd, h, vnet + ETH + IP4 + thl);
  while (sent < 0 && errno == EINTR);
  if (sent < 0) die("write");
}

static void acknowledge(void) {
  acked = rcv_nxt;
  acks++;
  emit(1, ACK, NULL, 0);
}

static void arp(const uint8_t *f) {
  if (get16(f + 20) != 1 || memcmp(f + 38, our_ip, 4) != 0) return;
  uint8_t r[VNET + 42] = {0};
  uint8_t *eth = r + vnet;
  memcpy(eth, f + 6, 6);
  memcpy(eth + 6, our_mac, 6);
  put16(eth + 12, 0x0806);
  memcpy(eth + 14, f + 14, 6);
  put16(eth + 20, 2);
  memcpy(eth + 22, our_mac, 6);
  memcpy(eth + 28, our_ip, 4);
  memcpy(eth + 32, f + 22, 10);
  if (write(fd, r, vnet + 42) < 0) die("write");
}

static void syn(const uint8_t *f, const uint8_t *tcp) {
  memcpy(peer_mac, f + 6, 6);
  memcpy(peer_ip, f + ETH + 12, 4);
  peer_port = (uint16_t)get16(tcp);
  our_port = (uint16_t)get16(tcp + 2);
  rcv_nxt = get32(tcp + 4) + 1;
  const unsigned mss = MTU - IP4 - TCP;
  const uint8_t opts[] = {2, 4, (uint8_t)(mss >> 8), (uint8_t)mss, 1, 3, 3, WSCALE};
  emit(0, SYN | ACK, opts, sizeof opts);
  acked = rcv_nxt;
  open_ = true;
}

static void tcp_in(const uint8_t *f, size_t len) {
  const uint8_t *ip = f + ETH;
  const size_t ihl = (ip[0] & 15u) * 4, iplen = get16(ip + 2);
  if (ip[9] != IPPROTO_TCP || memcmp(ip + 16, our_ip, 4) != 0) return;
  if (ihl < IP4 || ETH + iplen > len || iplen < ihl + TCP) return;
  const uint8_t *tcp = ip + ihl;
  const size_t thl = (tcp[12] >> 4) * 4u;
  if (thl < TCP || ihl + thl > iplen) return;
  if (verify && tcp_sum(ip, tcp, iplen - ihl) != 0xffff) {
    bad_sums++;
    return;
  }
  if (tcp[13] & SYN) {
    syn(f, tcp);
    return;
  }
  if (!open_ || get16(tcp) != peer_port || get16(tcp + 2) != our_port) return;
  if (tcp[13] & RST) {
    fputs("bulk_rx: reset by the peer\n", stderr);
    exit(1);
  }
  const uint32_t data = (uint32_t)(iplen - ihl - thl);
  if (peer_fin) {
    /* The acknowledgment of our FIN. */
    if (get32(tcp + 8) == iss + 2) done = true;
    return;
  }
  if (data == 0 && !(tcp[13] & FIN)) return;
  if (get32(tcp + 4) != rcv_nxt) {
    out_of_order++;
    acknowledge();
    return;
  }
  rcv_nxt += data;
  bytes += data;
  if (tcp[13] & FIN) {
    rcv_nxt++;
    peer_fin = true;
    emit(1, FIN | ACK, NULL, 0);
  } else if (rcv_nxt - acked >= window / 4) {
    acknowledge();
  }
}

/* Reads and handles all frames that wait, and acknowledges them. */
static void drain(void) {
  static uint8_t f[VNET + 65536 + ETH];
  for (;;) {
    const ssize_t n = read(fd, f, sizeof f);
    if (n < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN) break;
      die("read");
    }
    frames++;
    if (n < (ssize_t)(vnet + ETH + IP4)) continue;
    const uint8_t *eth = f + vnet;
    const size_t len = (size_t)n - vnet;
    if (get16(eth + 12) == 0x0806 && len >= 42) arp(eth);
    else if (get16(eth + 12) == 0x0800) tcp_in(eth, len);
  }
  if (acked != rcv_nxt && !peer_fin) acknowledge();
}

static void wait_frames(void) {
  struct epoll_event e;
  waits++;
  const int n = epoll_wait(ep, &e, 1, WAIT_MS);
  if (n < 0 && errno != EINTR) die("epoll_wait");
  if (n == 0 && peer_fin && !done) emit(1, FIN | ACK, NULL, 0);
}

static void open_tap(const char *name) {
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq ifr = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | (vnet ? IFF_VNET_HDR : 0))};
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
  ifr.ifr_flags = IFF_UP | IFF_RUNNING;
  if (ioctl(s, SIOCSIFFLAGS, &ifr) < 0) die("SIOCSIFFLAGS");
  close(s);
  ep = epoll_create1(EPOLL_CLOEXEC);
  struct epoll_event e = {.events = EPOLLIN};
  if (ep < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, fd, &e) < 0) die("epoll");
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

int main(int argc, char **argv) {
  const char *tap = NULL;
  int cpu = -1;
  verify = true;
  for (int o; (o = getopt(argc, argv, "t:m:nw:c:")) != -1;) {
    if (o == 't') tap = optarg;
    else if (o == 'm') vnet = strcmp(optarg, "vnet") == 0 ? VNET : 0;
    else if (o == 'n') verify = false;
    else if (o == 'w') window = (uint32_t)strtoul(optarg, NULL, 10);
    else if (o == 'c') cpu = atoi(optarg);
    else return 2;
  }
  if (tap == NULL || window < 65536 || window >> WSCALE > 0xffff) {
    fputs("usage: bulk_rx -t TAP -m wire|vnet [-n] [-w WINDOW_BYTES] [-c CPU]\n", stderr);
    return 2;
  }
  if (vnet) verify = false;
  alarm(LIMIT_S);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  open_tap(tap);
  puts("ready");
  fflush(stdout);

  double cpu0 = 0, t0 = 0;
  while (!done) {
    wait_frames();
    if (!open_) {
      cpu0 = cpu_seconds();
      t0 = now();
    }
    drain();
  }
  printf("{\"bytes\":%llu,\"frames\":%llu,\"acks\":%llu,\"badSums\":%llu,\"outOfOrder\":%llu,"
         "\"waits\":%llu,\"seconds\":%.6f,\"cpuSeconds\":%.6f}\n",
         (unsigned long long)bytes, (unsigned long long)frames, (unsigned long long)acks,
         (unsigned long long)bad_sums, (unsigned long long)out_of_order, (unsigned long long)waits,
         now() - t0, cpu_seconds() - cpu0);
  return 0;
}
