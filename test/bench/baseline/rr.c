/*
 * A client of small requests over the kernel's sockets: sends requests, waits for the answers, and
 * measures rate and latency.
 *
 *   rr MODE -d ADDRESS [-p PORT] [-n OUTSTANDING] [-t SECONDS] [-c CPU]
 *
 * udp:    datagrams of 64 bytes to an echo service; OUTSTANDING of them are on the way.
 * icmp:   the same with echo requests.
 * tcp:    requests of 1 byte to an echo service, one at a time on each of OUTSTANDING connections.
 * accept: opens connections and resets each when it is established; OUTSTANDING handshakes are on
 *         the way.
 *
 * The content of each answer is compared with the request. A datagram that is not answered in 200 ms
 * counts as lost and is replaced. The first tenth of the time is a warm-up and does not count. The
 * latency is from the send call to the return of the receive call. Prints one line of JSON with the
 * latencies, in microseconds, of up to 4096 requests, each with the same chance to be among them.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/icmp6.h>
#include <netinet/ip.h>
#include <netinet/ip_icmp.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
  PAYLOAD = 64,
  WINDOW = 1024, /* the most requests on the way, a power of two */
  SAMPLES = 4096,
  LOST_MS = 200,
  ICMP_ID = 0x7461,
};

static struct addrinfo *to;
static double seconds = 1;
static int64_t t_warm, t_end;
static uint64_t answers, lost;
static float samples[SAMPLES];
static int64_t sent_at[WINDOW];
static double cpu0;

static void die(const char *what) {
  fprintf(stderr, "rr: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void bad(const char *what) {
  fprintf(stderr, "rr: %s\n", what);
  exit(1);
}

static int64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* The sockets are ready: the time starts. */
static void start(void) {
  t_warm = now() + (int64_t)(seconds * 1e8);
  t_end = t_warm + (int64_t)(seconds * 1e9);
}

/* Counts an answer at time `t` to a request of time `t0`. Returns false when the time is over. */
static bool answered(int64_t t0, int64_t t) {
  if (t >= t_end) return false;
  if (t < t_warm) return true;
  if (answers == 0) cpu0 = cpu_seconds();
  static uint64_t x = 88172645463325252; /* xorshift */
  x ^= x << 13, x ^= x >> 7, x ^= x << 17;
  const uint64_t slot = answers < SAMPLES ? answers : x % (answers + 1);
  if (slot < SAMPLES) samples[slot] = (float)(t - t0) / 1000;
  answers++;
  return true;
}

static int socket_to(int type, int proto) {
  const int s = socket(to->ai_family, type, proto);
  if (s < 0) die("socket");
  return s;
}

static uint8_t request_[8 + PAYLOAD];

/* Sends request `seq`, in a packet with `head` bytes of header. */
static void put_request(int s, size_t head, uint32_t seq) {
  uint8_t *data = request_ + head;
  memset(data, (int)(seq & 0xff), PAYLOAD);
  memcpy(data, &seq, sizeof seq);
  if (head != 0) {
    request_[0] = to->ai_family == AF_INET6 ? ICMP6_ECHO_REQUEST : ICMP_ECHO;
    request_[4] = ICMP_ID >> 8;
    request_[5] = ICMP_ID & 0xff;
    request_[6] = (uint8_t)(seq >> 8);
    request_[7] = (uint8_t)seq;
    request_[2] = request_[3] = 0;
    uint32_t sum = 0;
    for (size_t i = 0; i < sizeof request_; i += 2) sum += (uint32_t)(request_[i] << 8 | request_[i + 1]);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = ~(sum + (sum >> 16)) & 0xffff;
    request_[2] = (uint8_t)(sum >> 8);
    request_[3] = (uint8_t)sum;
  }
  sent_at[seq % WINDOW] = now();
  if (send(s, request_, head + PAYLOAD, 0) < 0 && errno != ENOBUFS && errno != ECONNREFUSED) die("send");
}

/* The payload of a received packet of `n` bytes; NULL if it is not an answer to us. */
static const uint8_t *payload_of(const uint8_t *packet, ssize_t n, size_t head) {
  if (head != 0 && to->ai_family == AF_INET) {
    const size_t ip = (size_t)(packet[0] & 15) * 4;
    if (n < (ssize_t)ip) return NULL;
    packet += ip;
    n -= (ssize_t)ip;
  }
  if (head != 0) {
    if (n < 8 || packet[4] != ICMP_ID >> 8 || packet[5] != (ICMP_ID & 0xff)) return NULL;
    if (packet[0] != (to->ai_family == AF_INET6 ? ICMP6_ECHO_REPLY : ICMP_ECHOREPLY)) return NULL;
  }
  if (n != (ssize_t)head + PAYLOAD) bad("an answer has another length");
  return packet + head;
}

static int packet_socket(bool icmp) {
  const bool v6 = to->ai_family == AF_INET6;
  const int s = icmp ? socket_to(SOCK_RAW, v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP) : socket_to(SOCK_DGRAM, 0);
  if (icmp && v6) {
    struct icmp6_filter f;
    ICMP6_FILTER_SETBLOCKALL(&f);
    ICMP6_FILTER_SETPASS(ICMP6_ECHO_REPLY, &f);
    if (setsockopt(s, IPPROTO_ICMPV6, ICMP6_FILTER, &f, sizeof f) < 0) die("ICMP6_FILTER");
  } else if (icmp) {
    const uint32_t blocked = ~(1u << ICMP_ECHOREPLY);
    if (setsockopt(s, SOL_RAW, 1 /* ICMP_FILTER */, &blocked, sizeof blocked) < 0) die("ICMP_FILTER");
  }
  const struct timeval wait = {.tv_usec = LOST_MS * 1000};
  if (setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait) < 0) die("SO_RCVTIMEO");
  if (connect(s, to->ai_addr, to->ai_addrlen) < 0) die("connect");
  return s;
}

/* udp and icmp */
static void packets(bool icmp, uint32_t outstanding) {
  const int s = packet_socket(icmp);
  const size_t head = icmp ? 8 : 0;
  uint32_t next = 0;
  start();
  for (uint32_t i = 0; i < outstanding; i++) put_request(s, head, next++);
  for (;;) {
    uint8_t packet[2048];
    const ssize_t n = recv(s, packet, sizeof packet, 0);
    const int64_t t = now();
    if (n < 0) {
      if (errno == ECONNREFUSED) continue;
      if (errno != EAGAIN && errno != EINTR) die("recv");
      if (t >= t_end) return;
      /* All are lost: none came for so long. */
      lost += outstanding;
      for (uint32_t i = 0; i < outstanding; i++) put_request(s, head, next++);
      continue;
    }
    const uint8_t *data = payload_of(packet, n, head);
    if (data == NULL) continue;
    uint32_t seq;
    memcpy(&seq, data, sizeof seq);
    if (next - seq > WINDOW) bad("an answer to no request");
    for (size_t i = sizeof seq; i < PAYLOAD; i++)
      if (data[i] != (seq & 0xff)) bad("an answer has other bytes");
    if (!answered(sent_at[seq % WINDOW], t)) return;
    put_request(s, head, next++);
  }
}

static int tcp_socket(bool connected) {
  const int s = socket_to(SOCK_STREAM | (connected ? 0 : SOCK_NONBLOCK), 0);
  const int on = 1;
  if (setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0) die("TCP_NODELAY");
  if (setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0) die("TCP_CONGESTION");
  if (connect(s, to->ai_addr, to->ai_addrlen) < 0 && (connected || errno != EINPROGRESS)) die("connect");
  return s;
}

static void ask(int s, uint8_t byte, uint32_t i) {
  sent_at[i] = now();
  if (send(s, &byte, 1, MSG_NOSIGNAL) != 1) die("send");
}

static void take(int s, uint8_t byte) {
  uint8_t got;
  const ssize_t n = recv(s, &got, 1, 0);
  if (n != 1) die("recv");
  if (got != byte) bad("an answer has another byte");
}

static void tcp_one(void) {
  const int s = tcp_socket(true);
  start();
  for (uint8_t byte = 0;; byte++) {
    ask(s, byte, 0);
    take(s, byte);
    if (!answered(sent_at[0], now())) return;
  }
}

static void tcp_many(uint32_t outstanding) {
  static int sockets[WINDOW];
  static uint8_t bytes[WINDOW];
  const int ep = epoll_create1(0);
  if (ep < 0) die("epoll_create1");
  for (uint32_t i = 0; i < outstanding; i++) {
    sockets[i] = tcp_socket(true);
    struct epoll_event e = {.events = EPOLLIN, .data.u32 = i};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, sockets[i], &e) < 0) die("epoll_ctl");
  }
  start();
  for (uint32_t i = 0; i < outstanding; i++) ask(sockets[i], 0, i);
  for (;;) {
    struct epoll_event events[64];
    const int n = epoll_wait(ep, events, 64, 5000);
    if (n < 0) die("epoll_wait");
    if (n == 0) bad("no answer in five seconds");
    for (int k = 0; k < n; k++) {
      const uint32_t i = events[k].data.u32;
      take(sockets[i], bytes[i]);
      if (!answered(sent_at[i], now())) return;
      ask(sockets[i], ++bytes[i], i);
    }
  }
}

static void open_one(int ep, uint32_t i) {
  sent_at[i] = now();
  const int s = tcp_socket(false);
  struct epoll_event e = {.events = EPOLLOUT, .data.u64 = (uint64_t)i << 32 | (uint32_t)s};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, s, &e) < 0) die("epoll_ctl");
}

static void accepts(uint32_t outstanding) {
  const int ep = epoll_create1(0);
  if (ep < 0) die("epoll_create1");
  start();
  for (uint32_t i = 0; i < outstanding; i++) open_one(ep, i);
  for (;;) {
    struct epoll_event events[64];
    const int n = epoll_wait(ep, events, 64, 5000);
    if (n < 0) die("epoll_wait");
    if (n == 0) bad("no connection in five seconds");
    for (int k = 0; k < n; k++) {
      const int s = (int)(uint32_t)events[k].data.u64;
      const uint32_t i = (uint32_t)(events[k].data.u64 >> 32);
      int error;
      socklen_t len = sizeof error;
      if (getsockopt(s, SOL_SOCKET, SO_ERROR, &error, &len) < 0) die("SO_ERROR");
      if (error != 0) lost++;
      const struct linger reset = {.l_onoff = 1};
      if (setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset) < 0) die("SO_LINGER");
      close(s);
      if (error == 0 && !answered(sent_at[i], now())) return;
      open_one(ep, i);
    }
  }
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "", *address = NULL, *port = "7";
  uint32_t outstanding = 1;
  int cpu = -1;
  for (int o; (o = getopt(argc, argv, "d:p:n:t:c:")) != -1;) {
    if (o == 'd') address = optarg;
    else if (o == 'p') port = optarg;
    else if (o == 'n') outstanding = (uint32_t)strtoul(optarg, NULL, 10);
    else if (o == 't') seconds = strtod(optarg, NULL);
    else if (o == 'c') cpu = atoi(optarg);
    else return 2;
  }
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV, .ai_socktype = SOCK_DGRAM};
  if (address == NULL || outstanding == 0 || outstanding > WINDOW / 2 || !(seconds > 0) ||
      getaddrinfo(address, port, &hints, &to) != 0) {
    fputs("usage: rr udp|icmp|tcp|accept -d ADDRESS [-p PORT] [-n OUTSTANDING] [-t SECONDS] [-c CPU]\n", stderr);
    return 2;
  }
  alarm((unsigned)seconds + 20);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  if (strcmp(mode, "udp") == 0 || strcmp(mode, "icmp") == 0) packets(mode[0] == 'i', outstanding);
  else if (strcmp(mode, "tcp") == 0 && outstanding == 1) tcp_one();
  else if (strcmp(mode, "tcp") == 0) tcp_many(outstanding);
  else if (strcmp(mode, "accept") == 0) accepts(outstanding);
  else return 2;
  if (answers == 0) bad("no answer");
  printf("{\"answers\":%llu,\"lost\":%llu,\"seconds\":%.6f,\"cpuSeconds\":%.6f,\"latencies\":[",
         (unsigned long long)answers, (unsigned long long)lost, seconds, cpu_seconds() - cpu0);
  for (uint64_t i = 0; i < answers && i < SAMPLES; i++) printf(i == 0 ? "%.1f" : ",%.1f", samples[i]);
  puts("]}");
  return 0;
}
