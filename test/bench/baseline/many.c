/*
 * A web client with up to 16,000 connections, which it keeps between runs. A run makes requests over
 * HTTP/1.1 keep-alive, one at a time on each connection; bodies are discarded. The sockets have the
 * kernel's default buffers.
 *
 *   many -d ADDRESS -n CONNECTIONS [-p PORT] [-c CPU]
 *
 * Prints `ready` when all connections are established. Then each line `PATH BYTES REQUESTS` on standard
 * input is a run; connection i makes requests i, i+n, i+2n, ... A response that is not 200 with exactly
 * that Content-Length ends the program with status 1. Prints one line of JSON for each run: the time is
 * from the first request to the last byte. The end of standard input ends the program.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER = 1 << 20, HEAD = 1024, CONNECTIONS = 16000, LIMIT_S = 120 };

struct Conn {
  int fd;
  uint32_t left;      /* requests to make, the present one included */
  uint32_t head_len;  /* bytes of the response's header so far */
  int in_body;
  uint64_t body;      /* bytes of the body still to come */
  char head[HEAD + 1];
};

static char request[512];
static size_t request_len;
static uint64_t expected;

static void die(const char *what) {
  fprintf(stderr, "many: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "many: %s: %.200s\n", what, detail);
  exit(1);
}

/* The address and port of the server; NULL if `address` is not a literal of IPv4 or IPv6. */
static struct addrinfo *resolve(const char *address, const char *port) {
  const struct addrinfo hints = {.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
                                 .ai_socktype = SOCK_STREAM};
  struct addrinfo *to;
  return getaddrinfo(address, port, &hints, &to) == 0 ? to : NULL;
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

static void ask(struct Conn *c) {
  c->head_len = 0;
  c->in_body = 0;
  if (send(c->fd, request, request_len, MSG_NOSIGNAL) != (ssize_t)request_len) die("send");
}

/* Consumes bytes of the current response; returns how many belong to it. */
static size_t take(struct Conn *c, const char *p, size_t n) {
  size_t used = 0;
  while (!c->in_body && used < n) {
    if (c->head_len == HEAD) fail("header too long", c->head);
    c->head[c->head_len++] = p[used++];
    c->head[c->head_len] = 0;
    if (c->head_len < 4 || memcmp(c->head + c->head_len - 4, "\r\n\r\n", 4) != 0) continue;
    const char *length = strcasestr(c->head, "\r\ncontent-length:");
    if (strncmp(c->head, "HTTP/1.1 200 ", 13) != 0 || length == NULL) fail("answer", c->head);
    c->body = strtoull(length + 17, NULL, 10);
    if (c->body != expected) fail("length", c->head);
    c->in_body = 1;
  }
  const uint64_t body = n - used < c->body ? n - used : c->body;
  if (c->in_body) {
    c->body -= body;
    used += body;
  }
  return used;
}

/* Makes `total` requests on `n` connections. */
static void run(int ep, struct Conn *conns, size_t n, uint64_t total, char *buffer) {
  const double t0 = now(), cpu0 = cpu_seconds();
  uint64_t done = 0;
  alarm(LIMIT_S);
  for (size_t i = 0; i < n; i++) {
    conns[i].left = (uint32_t)(total / n + (i < total % n));
    if (conns[i].left > 0) ask(&conns[i]);
  }
  while (done < total) {
    struct epoll_event events[256];
    const int ready = epoll_wait(ep, events, 256, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct Conn *c = events[i].data.ptr;
      const ssize_t got = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
      if (got == 0) fail("connection closed early", "");
      if (got < 0 && errno != EAGAIN && errno != EINTR) die("recv");
      if (got <= 0) continue;
      if (c->left == 0 || take(c, buffer, (size_t)got) != (size_t)got)
        fail("bytes after the response", "");
      if (!c->in_body || c->body != 0) continue;
      done++;
      if (--c->left > 0) ask(c);
    }
  }
  alarm(0);
  printf("{\"bytes\":%llu,\"requests\":%llu,\"seconds\":%.6f,\"cpuSeconds\":%.6f}\n",
         (unsigned long long)(total * expected), (unsigned long long)total, now() - t0,
         cpu_seconds() - cpu0);
  fflush(stdout);
}

static void usage(void) {
  fputs("usage: many -d ADDRESS -n CONNECTIONS [-p PORT] [-c CPU]\n", stderr);
  exit(2);
}

int main(int argc, char **argv) {
  const char *address = NULL, *port = "80";
  int cpu = -1;
  size_t n = 1;
  for (int o; (o = getopt(argc, argv, "d:p:n:c:")) != -1;) {
    if (o == 'd') address = optarg;
    else if (o == 'p') port = optarg;
    else if (o == 'n') n = strtoull(optarg, NULL, 10);
    else if (o == 'c') cpu = atoi(optarg);
    else usage();
  }
  struct addrinfo *to = address == NULL ? NULL : resolve(address, port);
  if (to == NULL || n == 0 || n > CONNECTIONS) usage();
  struct rlimit files;
  getrlimit(RLIMIT_NOFILE, &files);
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  char *buffer = malloc(BUFFER);
  struct Conn *conns = calloc(n, sizeof *conns);
  if (buffer == NULL || conns == NULL) die("malloc");
  memset(buffer, 1, BUFFER);
  const int ep = epoll_create1(0);
  if (ep < 0) die("epoll_create1");
  alarm(LIMIT_S);
  for (size_t i = 0; i < n; i++) {
    struct Conn *c = &conns[i];
    c->fd = socket(to->ai_family, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, to->ai_addr, to->ai_addrlen) < 0) die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll_ctl");
  }
  alarm(0);
  puts("ready");
  fflush(stdout);
  char line[256], path[128];
  while (fgets(line, sizeof line, stdin) != NULL) {
    unsigned long long bytes, total;
    if (sscanf(line, "%127s %llu %llu", path, &bytes, &total) != 3) fail("bad line", line);
    const int v6 = strchr(address, ':') != NULL;
    request_len = (size_t)snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: %s%s%s\r\n\r\n",
                                   path, v6 ? "[" : "", address, v6 ? "]" : "");
    expected = bytes;
    run(ep, conns, n, total, buffer);
  }
  return 0;
}
