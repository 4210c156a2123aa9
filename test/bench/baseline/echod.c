/*
 * A minimal TCP server over the kernel's sockets, with one thread and one epoll: port 7 sends the
 * received bytes back, port 9 discards them.
 *
 *   echod [-c CPU]
 *
 * Prints "ready" when it listens, and at the end, on SIGTERM, one line of JSON.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ECHO = 7, DISCARD = 9, BACKLOG = 1024, BUFFER = 65536, EVENTS = 64 };
/* What an event is about, in the upper half of its data. */
enum { LISTEN_ECHO, LISTEN_DISCARD, CONN_ECHO, CONN_DISCARD };

static volatile sig_atomic_t ended;
static uint64_t accepted, bytes;
static uint8_t buffer[BUFFER];

static void die(const char *what) {
  fprintf(stderr, "echod: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void stop(int sig) {
  (void)sig;
  ended = 1;
}

static void watch(int ep, int s, uint32_t kind) {
  struct epoll_event e = {.events = EPOLLIN, .data.u64 = (uint64_t)kind << 32 | (uint32_t)s};
  if (epoll_ctl(ep, EPOLL_CTL_ADD, s, &e) < 0) die("epoll_ctl");
}

static void listen_on(int ep, uint16_t port, uint32_t kind) {
  const int s = socket(AF_INET6, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  const int on = 1;
  const struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
  if (s < 0) die("socket");
  if (setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) < 0) die("SO_REUSEADDR");
  if (bind(s, (const struct sockaddr *)&any, sizeof any) < 0) die("bind");
  if (listen(s, BACKLOG) < 0) die("listen");
  watch(ep, s, kind);
}

static void accept_all(int ep, int listener, uint32_t kind) {
  for (;;) {
    const int s = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (s < 0) {
      if (errno == EAGAIN) return;
      if (errno == ECONNABORTED || errno == EINTR) continue;
      die("accept4");
    }
    const int on = 1;
    if (kind == CONN_ECHO && setsockopt(s, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on) < 0)
      die("TCP_NODELAY");
    accepted++;
    watch(ep, s, kind);
  }
}

static void serve(int s, uint32_t kind) {
  const ssize_t n = recv(s, buffer, sizeof buffer, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    close(s);
    return;
  }
  bytes += (uint64_t)n;
  if (kind == CONN_DISCARD) return;
  /* Requests are small: the send buffer has room. */
  if (send(s, buffer, (size_t)n, MSG_NOSIGNAL) != n) close(s);
}

int main(int argc, char **argv) {
  int cpu = -1;
  for (int o; (o = getopt(argc, argv, "c:")) != -1;) {
    if (o == 'c') cpu = atoi(optarg);
    else return 2;
  }
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  const struct sigaction act = {.sa_handler = stop};
  sigaction(SIGTERM, &act, NULL);
  const int ep = epoll_create1(EPOLL_CLOEXEC);
  if (ep < 0) die("epoll_create1");
  listen_on(ep, ECHO, LISTEN_ECHO);
  listen_on(ep, DISCARD, LISTEN_DISCARD);
  puts("ready");
  fflush(stdout);
  while (!ended) {
    struct epoll_event events[EVENTS];
    const int n = epoll_wait(ep, events, EVENTS, -1);
    if (n < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < n; i++) {
      const int s = (int)(uint32_t)events[i].data.u64;
      const uint32_t kind = (uint32_t)(events[i].data.u64 >> 32);
      if (kind == LISTEN_ECHO || kind == LISTEN_DISCARD)
        accept_all(ep, s, kind == LISTEN_ECHO ? CONN_ECHO : CONN_DISCARD);
      else serve(s, kind);
    }
  }
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"accepted\":%llu,\"bytes\":%llu,\"cpuSeconds\":%.6f}\n", (unsigned long long)accepted,
         (unsigned long long)bytes,
         (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  return 0;
}
