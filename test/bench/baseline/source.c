/*
 * A minimal sender over kernel TCP: connects, sends pieces of 256 KB from 16 MB of memory, shuts its
 * side down and waits until the peer has closed. Congestion control is cubic; the socket has the
 * kernel's default buffers.
 *
 *   source -d ADDRESS [-p PORT] -b BYTES [-e] [-c CPU]
 *
 * -e: the peer sends everything back, which is compared with what was sent. Prints one line of JSON;
 * the time is from the first byte to the peer's end of stream.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ARENA = 16 << 20, PIECE = 256 << 10, LIMIT_S = 60 };

static uint8_t *arena;
static uint64_t total, sent, echoed;

static void die(const char *what) {
  fprintf(stderr, "source: %s: %s\n", what, strerror(errno));
  exit(1);
}

static double now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double cpu_seconds(void) {
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
         (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

/* The bytes of the stream at `off` that are contiguous in memory, at most `most`. */
static size_t contiguous(uint64_t off, size_t most) {
  const size_t n = ARENA - off % ARENA;
  return n < most ? n : most;
}

/* Sends one piece; with MSG_DONTWAIT it may send less or nothing. */
static void send_piece(int s, int flags) {
  size_t n = contiguous(sent, PIECE);
  if (n > total - sent) n = (size_t)(total - sent);
  const ssize_t k = send(s, arena + sent % ARENA, n, MSG_NOSIGNAL | flags);
  if (k < 0 && errno != EINTR && errno != EAGAIN) die("send");
  if (k > 0) sent += (uint64_t)k;
  if (sent == total && shutdown(s, SHUT_WR) < 0) die("shutdown");
}

/* Receives what the peer echoes and compares it. Returns false at the end of the stream. */
static bool receive(int s) {
  static uint8_t buffer[PIECE];
  const ssize_t n = recv(s, buffer, contiguous(echoed, sizeof buffer), 0);
  if (n < 0 && errno == EINTR) return true;
  if (n < 0) die("recv");
  if (echoed + (uint64_t)n > sent || memcmp(buffer, arena + echoed % ARENA, (size_t)n) != 0) {
    fprintf(stderr, "source: wrong data after %llu bytes\n", (unsigned long long)echoed);
    exit(1);
  }
  echoed += (uint64_t)n;
  return n > 0;
}

static int dial(const char *address, const char *port) {
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                 .ai_socktype = SOCK_STREAM};
  struct addrinfo *to;
  if (getaddrinfo(address, port, &hints, &to) != 0) {
    fprintf(stderr, "source: not an address: %s\n", address);
    exit(2);
  }
  const int s = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (s < 0) die("socket");
  if (setsockopt(s, IPPROTO_TCP, TCP_CONGESTION, "cubic", 5) < 0) die("cubic");
  if (connect(s, to->ai_addr, to->ai_addrlen) < 0) die("connect");
  freeaddrinfo(to);
  return s;
}

int main(int argc, char **argv) {
  const char *address = NULL, *port = "9";
  bool echo = false;
  int cpu = -1;
  for (int o; (o = getopt(argc, argv, "d:p:b:ec:")) != -1;) {
    if (o == 'd') address = optarg;
    else if (o == 'p') port = optarg;
    else if (o == 'b') total = strtoull(optarg, NULL, 10);
    else if (o == 'e') echo = true;
    else if (o == 'c') cpu = atoi(optarg);
    else return 2;
  }
  if (address == NULL || total == 0) {
    fputs("usage: source -d ADDRESS [-p PORT] -b BYTES [-e] [-c CPU]\n", stderr);
    return 2;
  }
  alarm(LIMIT_S);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  arena = malloc(ARENA);
  if (arena == NULL) die("malloc");
  uint32_t x = 1; /* xorshift */
  for (size_t i = 0; i < ARENA; i += 4) {
    x ^= x << 13, x ^= x >> 17, x ^= x << 5;
    memcpy(arena + i, &x, 4);
  }
  const int s = dial(address, port);

  const double t0 = now(), cpu0 = cpu_seconds();
  while (echo && sent < total) {
    struct pollfd p = {.fd = s, .events = POLLIN | POLLOUT};
    if (poll(&p, 1, -1) < 0 && errno != EINTR) die("poll");
    if (p.revents & POLLOUT) send_piece(s, MSG_DONTWAIT);
    if (p.revents & (POLLIN | POLLHUP | POLLERR) && !receive(s)) die("peer closed early");
  }
  while (sent < total) send_piece(s, 0);
  while (receive(s));
  const double seconds = now() - t0;
  if (echo && echoed != total) die("not everything came back");
  struct tcp_info info;
  socklen_t len = sizeof info;
  if (getsockopt(s, IPPROTO_TCP, TCP_INFO, &info, &len) < 0) die("TCP_INFO");
  close(s);
  printf("{\"bytes\":%llu,\"echoed\":%llu,\"retransmits\":%u,\"seconds\":%.6f,"
         "\"cpuSeconds\":%.6f}\n",
         (unsigned long long)sent, (unsigned long long)echoed, info.tcpi_total_retrans, seconds,
         cpu_seconds() - cpu0);
  return 0;
}
