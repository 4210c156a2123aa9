// The Unix socket to the process: one connection for all threads. One waiting thread at a time
// reads the socket and stores each reply for the thread that waits for it.
#define _GNU_SOURCE
#include "link.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

// packetdrill has two threads.
enum { kWaitersMax = 8 };

struct waiter {
  uint32_t id;  // 0: free
  bool done;
  struct reply reply;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t arrived = PTHREAD_COND_INITIALIZER;
static struct waiter waiters[kWaitersMax];
static int sock = -1;
static uint32_t next_id = 1;
static bool reading;

static void put32(uint8_t *p, uint32_t v) {
  for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (8 * i));
}
static void put64(uint8_t *p, uint64_t v) {
  put32(p, (uint32_t)v);
  put32(p + 4, (uint32_t)(v >> 32));
}
static uint32_t get32(const uint8_t *p) {
  return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t get64(const uint8_t *p) { return get32(p) | (uint64_t)get32(p + 4) << 32; }

static int64_t clock_ms(void) {
  struct timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

int link_open(const char *path) {
  struct sockaddr_un addr = {.sun_family = AF_UNIX};
  if (strlen(path) >= sizeof addr.sun_path) {
    errno = ENAMETOOLONG;
    return -1;
  }
  strcpy(addr.sun_path, path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  if (connect(fd, (struct sockaddr *)&addr, sizeof addr) != 0) {
    const int error = errno;
    close(fd);
    errno = error;
    return -1;
  }
  pthread_mutex_lock(&lock);
  sock = fd;
  pthread_mutex_unlock(&lock);
  return 0;
}

// Closes the socket and wakes all waiting threads. The caller holds the lock.
static void down(void) {
  if (sock < 0) return;
  // Do not close the descriptor while a thread reads it: its number could be reused.
  if (reading)
    shutdown(sock, SHUT_RDWR);
  else
    close(sock);
  sock = -1;
  pthread_cond_broadcast(&arrived);
}

void link_close(void) {
  pthread_mutex_lock(&lock);
  down();
  pthread_mutex_unlock(&lock);
}

void link_free(struct reply *r) {
  free(r->payload);
  r->payload = NULL;
}

static int send_all(int fd, const void *buf, size_t len) {
  const uint8_t *p = buf;
  while (len > 0) {
    const ssize_t n = send(fd, p, len, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    p += n;
    len -= (size_t)n;
  }
  return 0;
}

// Reads `len` bytes until `deadline`. Returns 0, or -1 with errno.
static int read_all(int fd, void *buf, size_t len, int64_t deadline) {
  uint8_t *p = buf;
  while (len > 0) {
    const int64_t left = deadline - clock_ms();
    struct pollfd pfd = {.fd = fd, .events = POLLIN};
    const int ready = left <= 0 ? 0 : poll(&pfd, 1, (int)left);
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) {
      if (ready == 0) errno = ETIMEDOUT;
      return -1;
    }
    const ssize_t n = recv(fd, p, len, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n == 0) errno = ECONNRESET;
    if (n <= 0) return -1;
    p += n;
    len -= (size_t)n;
  }
  return 0;
}

// Reads one reply and stores it for the thread that waits for it. The caller does not hold the
// lock.
static int read_reply(int fd, int64_t deadline) {
  uint8_t h[LINK_REPLY];
  if (read_all(fd, h, sizeof h, deadline) != 0) return -1;
  const uint32_t size = get32(h);
  if (size < LINK_REPLY || size > LINK_REPLY + LINK_PAYLOAD_MAX) {
    errno = EPROTO;
    return -1;
  }
  struct reply r = {.result = (int32_t)get32(h + 8),
                    .late = get32(h + 12) != 0,
                    .now = (int64_t)get64(h + 16),
                    .a = (int32_t)get32(h + 24),
                    .len = size - LINK_REPLY};
  if (r.len > 0) {
    r.payload = malloc(r.len);
    if (r.payload == NULL) return -1;
    if (read_all(fd, r.payload, r.len, deadline) != 0) {
      link_free(&r);
      return -1;
    }
  }
  const uint32_t id = get32(h + 4);
  pthread_mutex_lock(&lock);
  bool known = false;
  for (int i = 0; i < kWaitersMax && !known; i++) {
    if (id == 0 || waiters[i].id != id || waiters[i].done) continue;
    waiters[i].reply = r;
    waiters[i].done = true;
    known = true;
  }
  pthread_mutex_unlock(&lock);
  if (known) return 0;
  link_free(&r);
  errno = EPROTO;
  return -1;
}

// Writes the request as a frame. The caller holds the lock.
static int send_request(uint32_t id, const struct request *q) {
  const size_t len = q->len[0] + q->len[1];
  uint8_t h[LINK_REQUEST] = {0};
  put32(h, (uint32_t)(LINK_REQUEST + len));
  put32(h + 4, id);
  put32(h + 8, (uint32_t)q->op);
  put32(h + 12, (uint32_t)q->fd);
  put64(h + 16, (uint64_t)q->now);
  put32(h + 24, (uint32_t)q->a);
  put32(h + 28, (uint32_t)q->b);
  put32(h + 32, (uint32_t)q->c);
  put32(h + 36, q->no_wait ? 1 : 0);
  if (send_all(sock, h, sizeof h) != 0) return -1;
  for (int i = 0; i < 2; i++)
    if (q->len[i] > 0 && send_all(sock, q->part[i], q->len[i]) != 0) return -1;
  return 0;
}

// Waits until `w` has its reply. Returns 0, or -1 with errno. The caller holds the lock.
static int await(struct waiter *w, int64_t deadline) {
  while (!w->done) {
    if (sock < 0) {
      errno = ECONNRESET;
      return -1;
    }
    if (reading) {
      struct timespec until;
      clock_gettime(CLOCK_REALTIME, &until);
      until.tv_sec += 1;
      pthread_cond_timedwait(&arrived, &lock, &until);
      if (!w->done && clock_ms() >= deadline) {
        errno = ETIMEDOUT;
        return -1;
      }
      continue;
    }
    reading = true;
    const int fd = sock;
    pthread_mutex_unlock(&lock);
    const int result = read_reply(fd, deadline);
    const int error = errno;
    pthread_mutex_lock(&lock);
    reading = false;
    pthread_cond_broadcast(&arrived);
    // down() was called meanwhile and left the descriptor to this thread.
    if (sock != fd) close(fd);
    if (result != 0) {
      errno = error;
      return -1;
    }
  }
  return 0;
}

int link_call(const struct request *q, struct reply *r, int timeout_ms) {
  memset(r, 0, sizeof *r);
  if (q->len[0] > LINK_PAYLOAD_MAX || q->len[1] > LINK_PAYLOAD_MAX - q->len[0]) {
    errno = EMSGSIZE;
    return -1;
  }
  const int64_t deadline = clock_ms() + timeout_ms;
  pthread_mutex_lock(&lock);
  struct waiter *w = NULL;
  for (int i = 0; i < kWaitersMax && w == NULL; i++)
    if (waiters[i].id == 0) w = &waiters[i];
  int result = -1;
  if (sock < 0 || w == NULL) {
    errno = sock < 0 ? ENOTCONN : EBUSY;
  } else {
    w->id = next_id++;
    if (next_id == 0) next_id = 1;
    w->done = false;
    result = send_request(w->id, q);
    if (result == 0) result = await(w, deadline);
    if (result == 0) {
      *r = w->reply;
    } else {
      const int error = errno;
      down();
      errno = error;
    }
    w->id = 0;
  }
  pthread_mutex_unlock(&lock);
  return result;
}
