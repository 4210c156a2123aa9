/*
 * A minimal web client: many connections on one epoll. Each requests one file after another over
 * HTTP/1.1 keep-alive, the next when the last response is complete. The sockets have the kernel's
 * default buffers; bodies are discarded.
 *
 *   web -d ADDRESS -l LIST -n CONNECTIONS [-p PORT] [-c CPU] [-t]
 *
 * LIST has a line `PATH BYTES` for each request; connection i makes requests i, i+n, i+2n, ... A
 * response that is not 200 with exactly that Content-Length ends the program with status 1. Prints
 * one line of JSON; the time is from the first request to the last byte. With -t it has the times of
 * the first requests in microseconds, each from its sending to the last byte of its response.
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

enum { BUFFER = 1 << 20, HEAD = 2048, CONNECTIONS = 4096, REQUESTS = 1 << 20, LIMIT_S = 60,
       TIMES = 10000 };

struct Request {
  char path[128];
  uint64_t bytes;
};

struct Conn {
  int fd;
  size_t next;        /* index of the request in progress */
  size_t head_len;    /* bytes of its response's header so far */
  int in_body;
  uint64_t left;      /* bytes of the body still to come */
  double asked;       /* when the request was sent */
  char head[HEAD + 1];
};

static struct Request *requests;
static size_t nrequests;
static double times[TIMES];
static size_t ntimes;

static void die(const char *what) {
  fprintf(stderr, "web: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void fail(const char *what, const char *detail) {
  fprintf(stderr, "web: %s: %.200s\n", what, detail);
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

static void read_list(const char *name) {
  FILE *f = fopen(name, "r");
  if (f == NULL) die(name);
  requests = calloc(REQUESTS, sizeof *requests);
  if (requests == NULL) die("calloc");
  unsigned long long bytes;
  while (nrequests < REQUESTS && fscanf(f, "%127s %llu", requests[nrequests].path, &bytes) == 2)
    requests[nrequests++].bytes = bytes;
  fclose(f);
}

static void ask(struct Conn *c, const char *host) {
  char text[512];
  const int v6 = strchr(host, ':') != NULL;
  const int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s%s%s\r\n\r\n",
                         requests[c->next].path, v6 ? "[" : "", host, v6 ? "]" : "");
  c->head_len = 0;
  c->in_body = 0;
  c->asked = now();
  if (n <= 0 || n >= (int)sizeof text || send(c->fd, text, (size_t)n, MSG_NOSIGNAL) != n)
    die("send");
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
    c->left = strtoull(length + 17, NULL, 10);
    if (c->left != requests[c->next].bytes) fail("length", c->head);
    c->in_body = 1;
  }
  const uint64_t body = n - used < c->left ? n - used : c->left;
  if (c->in_body) {
    c->left -= body;
    used += body;
  }
  return used;
}

int main(int argc, char **argv) {
  const char *address = NULL, *list = NULL, *port = "80";
  int cpu = -1;
  size_t n = 1;
  int timed = 0;
  for (int o; (o = getopt(argc, argv, "d:p:l:n:c:t")) != -1;) {
    if (o == 'd') address = optarg;
    else if (o == 'p') port = optarg;
    else if (o == 'l') list = optarg;
    else if (o == 'n') n = strtoull(optarg, NULL, 10);
    else if (o == 'c') cpu = atoi(optarg);
    else if (o == 't') timed = 1;
    else return 2;
  }
  struct addrinfo *to = address == NULL ? NULL : resolve(address, port);
  if (to == NULL || list == NULL || n == 0 || n > CONNECTIONS) {
    fputs("usage: web -d ADDRESS -l LIST -n CONNECTIONS [-p PORT] [-c CPU] [-t]\n", stderr);
    return 2;
  }
  alarm(LIMIT_S);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  read_list(list);
  if (nrequests < n) fail("too few requests", list);
  char *buffer = malloc(BUFFER);
  struct Conn *conns = calloc(n, sizeof *conns);
  if (buffer == NULL || conns == NULL) die("malloc");
  memset(buffer, 1, BUFFER);
  const int ep = epoll_create1(0);
  if (ep < 0) die("epoll_create1");
  for (size_t i = 0; i < n; i++) {
    struct Conn *c = &conns[i];
    c->next = i;
    c->fd = socket(to->ai_family, SOCK_STREAM, 0);
    if (c->fd < 0) die("socket");
    if (connect(c->fd, to->ai_addr, to->ai_addrlen) < 0) die("connect");
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) < 0) die("epoll_ctl");
  }

  const double t0 = now();
  uint64_t bytes = 0;
  size_t live = n;
  for (size_t i = 0; i < n; i++) ask(&conns[i], address);
  while (live > 0) {
    struct epoll_event events[64];
    const int ready = epoll_wait(ep, events, 64, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct Conn *c = events[i].data.ptr;
      const ssize_t got = recv(c->fd, buffer, BUFFER, MSG_DONTWAIT);
      if (got == 0) fail("connection closed early", requests[c->next].path);
      if (got < 0 && errno != EAGAIN && errno != EINTR) die("recv");
      if (got <= 0) continue;
      if (take(c, buffer, (size_t)got) != (size_t)got) fail("bytes after the response", "");
      if (!c->in_body || c->left != 0) continue;
      bytes += requests[c->next].bytes;
      if (timed && ntimes < TIMES) times[ntimes++] = (now() - c->asked) * 1e6;
      c->next += n;
      if (c->next < nrequests) {
        ask(c, address);
      } else {
        close(c->fd);
        live--;
      }
    }
  }
  const double seconds = now() - t0;
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"bytes\":%llu,\"responses\":%zu,\"seconds\":%.6f,\"cpuSeconds\":%.6f",
         (unsigned long long)bytes, nrequests, seconds,
         (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  if (timed) {
    printf(",\"latencies\":[");
    for (size_t i = 0; i < ntimes; i++) printf("%s%.1f", i == 0 ? "" : ",", times[i]);
    printf("]");
  }
  puts("}");
  return 0;
}
