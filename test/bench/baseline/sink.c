/*
 * A minimal receiver: connects, requests a path over HTTP/1.1 a number of times on each connection,
 * at most four requests ahead of the responses, and discards the data until the peer closes. The
 * sockets have the kernel's default buffers.
 *
 *   sink -d ADDRESS -p PORT -f PATH -r REQUESTS -s BODY_BYTES [-c CPU] [-n CONNECTIONS]
 *
 * REQUESTS is the sum of all connections; each makes the same number. Responses are not parsed: a
 * response counts as complete after as many bytes as its body has. Headers count too, so a request
 * may be sent a little early. The caller checks the sum of bytes. Prints one line of JSON; the time
 * is from the first request to the end of the last stream.
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

enum { BUFFER = 1 << 20, AHEAD = 4, LIMIT_S = 60, CONNS_MAX = 1024, EVENTS = 64 };

struct conn {
  int s;
  uint64_t asked, bytes;
};

static void die(const char *what) {
  fprintf(stderr, "sink: %s: %s\n", what, strerror(errno));
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

static void request(int s, const char *host, const char *path, int last) {
  char text[1024];
  const int v6 = strchr(host, ':') != NULL;
  const int n = snprintf(text, sizeof text, "GET %s HTTP/1.1\r\nHost: %s%s%s\r\n%s\r\n", path,
                         v6 ? "[" : "", host, v6 ? "]" : "", last ? "Connection: close\r\n" : "");
  if (n <= 0 || n >= (int)sizeof text || send(s, text, (size_t)n, MSG_NOSIGNAL) != n) die("send");
}

static const char *address, *path = "/";
static uint64_t requests = 1, body; /* of each connection */

/* Sends the requests that are due. */
static void ask(struct conn *c) {
  for (; c->asked < requests && c->asked < c->bytes / body + AHEAD; c->asked++)
    request(c->s, address, path, c->asked + 1 == requests);
}

/* Receives once; returns whether the stream goes on. */
static int take(struct conn *c, char *buffer) {
  const ssize_t n = recv(c->s, buffer, BUFFER, 0);
  if (n == 0) return 0;
  if (n < 0 && errno != EINTR) die("recv");
  if (n > 0) c->bytes += (uint64_t)n;
  return 1;
}

/* Receives from all connections until they have ended. */
static void take_all(struct conn *conns, int n, char *buffer) {
  struct epoll_event events[EVENTS];
  const int ep = epoll_create1(EPOLL_CLOEXEC);
  if (ep < 0) die("epoll_create1");
  for (int i = 0; i < n; i++) {
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &conns[i]};
    if (epoll_ctl(ep, EPOLL_CTL_ADD, conns[i].s, &e) < 0) die("epoll_ctl");
  }
  for (int open = n; open > 0;) {
    const int ready = epoll_wait(ep, events, EVENTS, -1);
    if (ready < 0 && errno != EINTR) die("epoll_wait");
    for (int i = 0; i < ready; i++) {
      struct conn *c = events[i].data.ptr;
      ask(c);
      if (take(c, buffer)) continue;
      epoll_ctl(ep, EPOLL_CTL_DEL, c->s, NULL);
      open--;
    }
  }
  close(ep);
}

int main(int argc, char **argv) {
  const char *port = "80";
  int cpu = -1, n = 1;
  for (int o; (o = getopt(argc, argv, "d:p:f:r:s:c:n:")) != -1;) {
    if (o == 'd') address = optarg;
    else if (o == 'p') port = optarg;
    else if (o == 'f') path = optarg;
    else if (o == 'r') requests = strtoull(optarg, NULL, 10);
    else if (o == 's') body = strtoull(optarg, NULL, 10);
    else if (o == 'c') cpu = atoi(optarg);
    else if (o == 'n') n = atoi(optarg);
    else return 2;
  }
  struct addrinfo *to = address == NULL ? NULL : resolve(address, port);
  if (n > 0) requests /= (unsigned)n;
  if (to == NULL || n < 1 || n > CONNS_MAX || requests == 0 || body == 0) {
    fputs("usage: sink -d ADDRESS -p PORT -f PATH -r REQUESTS -s BODY_BYTES [-c CPU]\n"
          "            [-n CONNECTIONS]\n", stderr);
    return 2;
  }
  alarm(LIMIT_S);
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  char *buffer = malloc(BUFFER);
  if (buffer == NULL) die("malloc");
  memset(buffer, 1, BUFFER);
  static struct conn conns[CONNS_MAX];
  for (int i = 0; i < n; i++) {
    conns[i].s = socket(to->ai_family, SOCK_STREAM, 0);
    if (conns[i].s < 0) die("socket");
    if (connect(conns[i].s, to->ai_addr, to->ai_addrlen) < 0) die("connect");
  }

  const double t0 = now();
  for (int i = 0; i < n; i++) ask(&conns[i]);
  if (n > 1) take_all(conns, n, buffer);
  else while (take(conns, buffer)) ask(conns);
  const double seconds = now() - t0;
  uint64_t bytes = 0;
  for (int i = 0; i < n; i++) {
    bytes += conns[i].bytes;
    close(conns[i].s);
  }
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"bytes\":%llu,\"seconds\":%.6f,\"cpuSeconds\":%.6f}\n", (unsigned long long)bytes,
         seconds,
         (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  return 0;
}
