// The shared object that packetdrill loads (--so_filename). It forwards every call to a `tapnic
// packetdrill` process over a Unix socket. Descriptors are local placeholders, because packetdrill
// calls libc's close() on those that a script left open. Time is the stack's virtual time. It
// advances in usleep and while netdev_receive waits for a packet, and by one microsecond at each
// gettimeofday, because packetdrill polls gettimeofday until a time is reached. Also exports
// getsockopt for LD_PRELOAD: packetdrill takes the snapshots of %{ }% blocks with libc's
// getsockopt.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "interface.h"
#include "link.h"

#define EXPORT __attribute__((visibility("default")))

enum {
  kFdMax = 4096,
  kIovMax = 1024,
  kPollMax = 1024,
  kEpollMax = 64,
  kSiocatmark = 0x8905,
  // Time-outs of a reply, in real time: of an ordinary call, and of one that may wait for the
  // script.
  kTimeoutMs = 10000,
  kWaitMs = 120000,
};

// Indexed by placeholder: the process's descriptor plus 1; 0: not a placeholder.
static int remote[kFdMax];
// Emulated epoll sets: epoll_wait polls their items, level-triggered.
static struct epoll_set {
  int fd;  // placeholder, 0: free
  int count;
  struct {
    int fd;
    struct epoll_event event;
  } items[kEpollMax];
} epolls[4];

// The thread that called init. It advances time, so a call of it that waits would never end:
// packetdrill runs the calls that the script marks as blocking (t...t2) on its second thread.
static pthread_t main_thread;

static atomic_llong now_us;
// Time at which the blocking call of this thread completed, for its next gettimeofday; -1: not set.
static _Thread_local long long late_us = -1;
static bool up;

static int fail(int error) {
  errno = error;
  return -1;
}

static int remote_of(int fd) { return fd < 0 || fd >= kFdMax ? -1 : remote[fd] - 1; }

static void advance_to(long long t) {
  long long seen = atomic_load(&now_us);
  while (seen < t && !atomic_compare_exchange_weak(&now_us, &seen, t)) {
  }
}

static const char *op_name(enum link_op op) {
  switch (op) {
    case OP_ACCEPT:
      return "accept";
    case OP_CONNECT:
      return "connect";
    case OP_RECV:
      return "read or recv";
    case OP_SEND:
      return "write or send";
    case OP_POLL:
      return "poll or epoll_wait";
    default:
      return "a call";
  }
}

// Sends a request and sets the clock from its reply. Returns the result, or -1 with errno. The
// caller frees `r` in both cases.
static int call(struct request *q, struct reply *r, int timeout_ms) {
  if (q->now == 0) q->now = atomic_load(&now_us);
  q->no_wait = pthread_equal(pthread_self(), main_thread) != 0;
  if (link_call(q, r, timeout_ms) != 0) {
    fprintf(stderr, "tapnic: packetdrill adapter: %s\n", strerror(errno));
    return -1;
  }
  if (r->result == -EDEADLK && q->no_wait)
    fprintf(stderr,
            "tapnic: %s would wait, and the script does not mark it as blocking: write "
            "TIME...TIME before the call, or set O_NONBLOCK\n",
            op_name(q->op));
  if (r->late)
    late_us = r->now;
  else
    advance_to(r->now);
  return r->result < 0 ? fail(-r->result) : r->result;
}

static int simple(enum link_op op, int fd, int a, int b, int timeout_ms) {
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  struct request q = {.op = op, .fd = there, .a = a, .b = b};
  struct reply r;
  const int result = call(&q, &r, timeout_ms);
  link_free(&r);
  return result;
}

// Creates a placeholder for the process's descriptor `there`.
static int placeholder(int there) {
  const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0) return -1;
  if (fd >= kFdMax) {
    close(fd);
    return fail(EMFILE);
  }
  remote[fd] = there + 1;
  return fd;
}

static int do_socket(void *u, int domain, int type, int protocol) {
  (void)u;
  struct request q = {.op = OP_SOCKET, .fd = -1, .a = domain, .b = type, .c = protocol};
  struct reply r;
  const int there = call(&q, &r, kTimeoutMs);
  link_free(&r);
  return there < 0 ? -1 : placeholder(there);
}

static int with_address(enum link_op op, int fd, const struct sockaddr *addr, socklen_t len,
                        int timeout_ms) {
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  if (addr == NULL) return fail(EFAULT);
  struct request q = {.op = op, .fd = there, .part = {addr}, .len = {len}};
  struct reply r;
  const int result = call(&q, &r, timeout_ms);
  link_free(&r);
  return result;
}

static int do_bind(void *u, int fd, const struct sockaddr *addr, socklen_t len) {
  (void)u;
  return with_address(OP_BIND, fd, addr, len, kTimeoutMs);
}

static int do_connect(void *u, int fd, const struct sockaddr *addr, socklen_t len) {
  (void)u;
  return with_address(OP_CONNECT, fd, addr, len, kWaitMs);
}

static int do_listen(void *u, int fd, int backlog) {
  (void)u;
  return simple(OP_LISTEN, fd, backlog, 0, kTimeoutMs);
}

// Copies an address out as system calls do: truncates it to `*len` bytes and sets `*len` to its
// full length.
static void address_out(const uint8_t *from, size_t n, struct sockaddr *addr, socklen_t *len) {
  if (addr == NULL || len == NULL) return;
  memcpy(addr, from, n < *len ? n : *len);
  *len = (socklen_t)n;
}

static int do_accept(void *u, int fd, struct sockaddr *addr, socklen_t *len) {
  (void)u;
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  struct request q = {.op = OP_ACCEPT, .fd = there};
  struct reply r;
  int result = call(&q, &r, kWaitMs);
  if (result >= 0) {
    address_out(r.payload, r.len, addr, len);
    result = placeholder(result);
  }
  link_free(&r);
  return result;
}

static size_t iov_bytes(const struct iovec *iov, int n) {
  size_t bytes = 0;
  for (int i = 0; i < n; i++) bytes += iov[i].iov_len;
  return bytes;
}

static ssize_t receive(int fd, const struct iovec *iov, int n, int flags, struct sockaddr *addr,
                       socklen_t *len) {
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  if (n < 0 || n > kIovMax) return fail(EINVAL);
  size_t room = iov_bytes(iov, n);
  if (room > LINK_PAYLOAD_MAX / 2) room = LINK_PAYLOAD_MAX / 2;
  for (int i = 0; i < n; i++)
    if (iov[i].iov_base == NULL && iov[i].iov_len > 0) return fail(EFAULT);
  struct request q = {.op = OP_RECV, .fd = there, .a = (int32_t)room, .b = flags};
  struct reply r;
  const int result = call(&q, &r, kWaitMs);
  if (result >= 0) {
    const size_t alen = (size_t)r.a <= r.len ? (size_t)r.a : 0;
    address_out(r.payload, alen, addr, len);
    const uint8_t *from = r.payload + alen;
    size_t left = (size_t)result <= r.len - alen ? (size_t)result : r.len - alen;
    for (int i = 0; i < n && left > 0; i++) {
      const size_t part = left < iov[i].iov_len ? left : iov[i].iov_len;
      memcpy(iov[i].iov_base, from, part);
      from += part;
      left -= part;
    }
  }
  link_free(&r);
  return result;
}

static ssize_t do_recvfrom(void *u, int fd, void *buf, size_t count, int flags,
                           struct sockaddr *addr, socklen_t *len) {
  (void)u;
  const struct iovec iov = {buf, count};
  return receive(fd, &iov, 1, flags, addr, len);
}

static ssize_t do_recv(void *u, int fd, void *buf, size_t count, int flags) {
  return do_recvfrom(u, fd, buf, count, flags, NULL, NULL);
}

static ssize_t do_read(void *u, int fd, void *buf, size_t count) {
  return do_recvfrom(u, fd, buf, count, 0, NULL, NULL);
}

static ssize_t do_readv(void *u, int fd, const struct iovec *iov, int n) {
  (void)u;
  return receive(fd, iov, n, 0, NULL, NULL);
}

static ssize_t do_recvmsg(void *u, int fd, struct msghdr *msg, int flags) {
  (void)u;
  const ssize_t n = receive(fd, msg->msg_iov, (int)msg->msg_iovlen, flags, msg->msg_name,
                            msg->msg_name == NULL ? NULL : &msg->msg_namelen);
  // packetdrill passes both with the script's expected values: clear them.
  msg->msg_controllen = 0;
  msg->msg_flags = 0;
  return n;
}

static ssize_t transmit(int fd, const struct iovec *iov, int n, int flags,
                        const struct sockaddr *addr, socklen_t alen) {
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  if (n < 0 || n > kIovMax) return fail(EINVAL);
  size_t len = iov_bytes(iov, n);
  for (int i = 0; i < n; i++)
    if (iov[i].iov_base == NULL && iov[i].iov_len > 0) return fail(EFAULT);
  if (len > LINK_PAYLOAD_MAX / 2) len = LINK_PAYLOAD_MAX / 2;
  uint8_t *data = malloc(len > 0 ? len : 1);
  if (data == NULL) return fail(ENOMEM);
  size_t at = 0;
  for (int i = 0; i < n && at < len; i++) {
    const size_t part = iov[i].iov_len < len - at ? iov[i].iov_len : len - at;
    memcpy(data + at, iov[i].iov_base, part);
    at += part;
  }
  if (addr == NULL) alen = 0;
  struct request q = {.op = OP_SEND,
                      .fd = there,
                      .a = (int32_t)alen,
                      .b = flags,
                      .part = {addr, data},
                      .len = {alen, len}};
  struct reply r;
  const int result = call(&q, &r, kWaitMs);
  const int error = errno;
  link_free(&r);
  free(data);
  errno = error;
  return result;
}

static ssize_t do_sendto(void *u, int fd, const void *buf, size_t count, int flags,
                         const struct sockaddr *addr, socklen_t len) {
  (void)u;
  const struct iovec iov = {(void *)buf, count};
  return transmit(fd, &iov, 1, flags, addr, len);
}

static ssize_t do_send(void *u, int fd, const void *buf, size_t count, int flags) {
  return do_sendto(u, fd, buf, count, flags, NULL, 0);
}

static ssize_t do_write(void *u, int fd, const void *buf, size_t count) {
  return do_sendto(u, fd, buf, count, 0, NULL, 0);
}

static ssize_t do_writev(void *u, int fd, const struct iovec *iov, int n) {
  (void)u;
  return transmit(fd, iov, n, 0, NULL, 0);
}

static ssize_t do_sendmsg(void *u, int fd, const struct msghdr *msg, int flags) {
  (void)u;
  return transmit(fd, msg->msg_iov, (int)msg->msg_iovlen, flags, msg->msg_name, msg->msg_namelen);
}

static int do_fcntl(void *u, int fd, int cmd, ...) {
  (void)u;
  int arg = 0;
  if (cmd == F_SETFL) {
    va_list ap;
    va_start(ap, cmd);
    arg = va_arg(ap, int);
    va_end(ap);
  }
  return simple(OP_FCNTL, fd, cmd, arg, kTimeoutMs);
}

static int do_ioctl(void *u, int fd, unsigned long request, ...) {
  (void)u;
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  request &= 0xffffffff;
  // Other requests may be called without an argument.
  int *arg = NULL;
  if (request == FIONREAD || request == TIOCOUTQ || request == FIONBIO || request == kSiocatmark) {
    va_list ap;
    va_start(ap, request);
    arg = va_arg(ap, int *);
    va_end(ap);
  }
  const bool in = request == FIONBIO && arg != NULL;
  struct request q = {.op = OP_IOCTL, .fd = there, .a = (int32_t)request, .b = in ? *arg : 0};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  if (result >= 0 && arg != NULL && r.len >= sizeof *arg) memcpy(arg, r.payload, sizeof *arg);
  link_free(&r);
  return result;
}

static int do_close(void *u, int fd) {
  (void)u;
  for (size_t i = 0; i < sizeof epolls / sizeof *epolls; i++) {
    if (fd <= 0 || epolls[i].fd != fd) continue;
    epolls[i].fd = 0;
    return close(fd);
  }
  const int result = simple(OP_CLOSE, fd, 0, 0, kTimeoutMs);
  const int error = errno;
  if (remote_of(fd) >= 0) {
    remote[fd] = 0;
    close(fd);
  }
  errno = error;
  return result;
}

static int do_shutdown(void *u, int fd, int how) {
  (void)u;
  return simple(OP_SHUTDOWN, fd, how, 0, kTimeoutMs);
}

static int get_option(int there, int level, int name, void *value, socklen_t *len) {
  struct request q = {.op = OP_GETSOCKOPT, .fd = there, .a = level, .b = name, .c = (int32_t)*len};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  if (result >= 0 && r.len <= *len) {
    memcpy(value, r.payload, r.len);
    *len = (socklen_t)r.len;
  }
  link_free(&r);
  return result;
}

static int do_getsockopt(void *u, int fd, int level, int name, void *value, socklen_t *len) {
  (void)u;
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  if (value == NULL || len == NULL) return fail(EFAULT);
  if (*len > LINK_PAYLOAD_MAX) return fail(EINVAL);
  return get_option(there, level, name, value, len);
}

static int do_setsockopt(void *u, int fd, int level, int name, const void *value, socklen_t len) {
  (void)u;
  const int there = remote_of(fd);
  if (there < 0) return fail(EBADF);
  if (value == NULL && len > 0) return fail(EFAULT);
  struct request q = {
      .op = OP_SETSOCKOPT, .fd = there, .a = level, .b = name, .part = {value}, .len = {len}};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  link_free(&r);
  return result;
}

static int do_poll(void *u, struct pollfd *fds, nfds_t n, int timeout_ms) {
  (void)u;
  if (n > kPollMax) return fail(EINVAL);
  struct pollfd there[kPollMax];
  for (nfds_t i = 0; i < n; i++) {
    // For a descriptor that is not a placeholder, send a number that the process does not have.
    const int fd = remote_of(fds[i].fd);
    there[i] = (struct pollfd){fds[i].fd < 0 ? -1 : fd < 0 ? 0x7fffffff : fd, fds[i].events, 0};
  }
  struct request q = {
      .op = OP_POLL, .fd = -1, .a = timeout_ms, .part = {there}, .len = {n * sizeof *there}};
  struct reply r;
  const int result = call(&q, &r, kWaitMs);
  if (result >= 0 && r.len == n * sizeof *there) {
    memcpy(there, r.payload, r.len);
    for (nfds_t i = 0; i < n; i++) fds[i].revents = there[i].revents;
  }
  link_free(&r);
  return result;
}

static int do_netdev_send(void *u, const void *packet, size_t count) {
  (void)u;
  struct request q = {.op = OP_INJECT, .fd = -1, .part = {packet}, .len = {count}};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  link_free(&r);
  return result;
}

static int do_netdev_receive(void *u, void *packet, size_t *count, long long *time_usecs) {
  (void)u;
  struct request q = {.op = OP_RECEIVE, .fd = -1};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  const size_t room = *count;
  // Default: no packet will arrive. A packet of 0 bytes ends the script; after an error packetdrill
  // would retry.
  *count = 0;
  *time_usecs = atomic_load(&now_us);
  if (result > 0 && r.len >= 8 && r.len - 8 <= room) {
    *count = r.len - 8;
    memcpy(packet, r.payload + 8, *count);
    int64_t t;
    memcpy(&t, r.payload, sizeof t);
    *time_usecs = t;
  }
  // packetdrill reports only that it cannot parse a packet of 0 bytes.
  if (result == 0)
    fprintf(stderr,
            "tapnic: missing packet: the script expects a packet here, and the stack sends none: "
            "it has nothing to send and no timer left\n");
  link_free(&r);
  return 0;
}

static int do_usleep(void *u, useconds_t usecs) {
  (void)u;
  struct request q = {.op = OP_SLEEP, .fd = -1, .now = atomic_load(&now_us) + usecs};
  struct reply r;
  const int result = call(&q, &r, kTimeoutMs);
  link_free(&r);
  return result;
}

static int do_gettimeofday(void *u, struct timeval *tv, struct timezone *tz) {
  (void)u;
  (void)tz;
  long long t = late_us;
  late_us = -1;
  if (t < 0) t = atomic_fetch_add(&now_us, 1) + 1;
  tv->tv_sec = t / 1000000;
  tv->tv_usec = t % 1000000;
  return 0;
}

static struct epoll_set *epoll_of(int fd) {
  for (size_t i = 0; fd > 0 && i < sizeof epolls / sizeof *epolls; i++)
    if (epolls[i].fd == fd) return &epolls[i];
  return NULL;
}

static int do_epoll_create(void *u, int size) {
  (void)u;
  if (size <= 0) return fail(EINVAL);
  for (size_t i = 0; i < sizeof epolls / sizeof *epolls; i++) {
    if (epolls[i].fd != 0) continue;
    const int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (fd < 0) return -1;
    epolls[i].fd = fd;
    epolls[i].count = 0;
    return fd;
  }
  return fail(EMFILE);
}

static int do_epoll_ctl(void *u, int ep, int op, int fd, struct epoll_event *event) {
  (void)u;
  struct epoll_set *set = epoll_of(ep);
  if (set == NULL || remote_of(fd) < 0) return fail(EBADF);
  int at = 0;
  while (at < set->count && set->items[at].fd != fd) at++;
  const bool there = at < set->count;
  switch (op) {
    case EPOLL_CTL_ADD:
      if (there) return fail(EEXIST);
      if (set->count == kEpollMax) return fail(ENOSPC);
      set->count++;
      break;
    case EPOLL_CTL_MOD:
      if (!there) return fail(ENOENT);
      break;
    case EPOLL_CTL_DEL:
      if (!there) return fail(ENOENT);
      set->items[at] = set->items[--set->count];
      return 0;
    default:
      return fail(EINVAL);
  }
  if (event == NULL) return fail(EFAULT);
  set->items[at].fd = fd;
  set->items[at].event = *event;
  return 0;
}

static int do_epoll_wait(void *u, int ep, struct epoll_event *events, int max, int timeout_ms) {
  struct epoll_set *set = epoll_of(ep);
  if (set == NULL) return fail(EBADF);
  if (max <= 0) return fail(EINVAL);
  struct pollfd fds[kEpollMax];
  for (int i = 0; i < set->count; i++)
    fds[i] = (struct pollfd){set->items[i].fd, (short)set->items[i].event.events, 0};
  memset(events, 0, sizeof *events);
  if (do_poll(u, fds, (nfds_t)set->count, timeout_ms) < 0) return -1;
  int n = 0;
  for (int i = 0; i < set->count && n < max; i++) {
    if (fds[i].revents == 0) continue;
    events[n] = set->items[i].event;
    events[n++].events = (uint32_t)fds[i].revents;
  }
  return n;
}

static int do_pipe(void *u, int fds[2]) {
  (void)u;
  (void)fds;
  return fail(ENOSYS);
}

static int do_splice(void *u, int in, loff_t *in_off, int out, loff_t *out_off, size_t len,
                     unsigned flags) {
  (void)u, (void)in, (void)in_off, (void)out, (void)out_off, (void)len, (void)flags;
  return fail(ENOSYS);
}

// Called when the script has passed and libc has closed the placeholders. Closes the link, so that
// the process resets its stack.
static void do_free(void *u) {
  (void)u;
  link_close();
  memset(remote, 0, sizeof remote);
  memset(epolls, 0, sizeof epolls);
  up = false;
}

static void die(const char *what) {
  fprintf(stderr, "tapnic: packetdrill adapter: %s: %s\n", what, strerror(errno));
  exit(1);
}

// Returns PATH of `socket=PATH` in the flags, otherwise TAPNIC_PACKETDRILL. The other flags are
// settings of the process.
static const char *socket_path(const char *flags, char *room, size_t size) {
  const char *at = flags == NULL ? NULL : strstr(flags, "socket=");
  if (at == NULL || (at != flags && at[-1] != ',')) return getenv("TAPNIC_PACKETDRILL");
  at += strlen("socket=");
  const size_t n = strcspn(at, ",");
  if (n >= size) return NULL;
  memcpy(room, at, n);
  room[n] = '\0';
  return room;
}

EXPORT void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ifc) {
  char room[256];
  const char *path = socket_path(flags, room, sizeof room);
  if (path == NULL || *path == '\0') {
    errno = ENOENT;
    die("no process: set TAPNIC_PACKETDRILL, or --so_flags=socket=PATH");
  }
  main_thread = pthread_self();
  if (link_open(path) != 0) die(path);
  struct request q = {.op = OP_HELLO,
                      .fd = -1,
                      .a = LINK_VERSION,
                      .part = {flags == NULL ? "" : flags},
                      .len = {flags == NULL ? 0 : strlen(flags)}};
  struct reply r;
  if (call(&q, &r, kTimeoutMs) < 0) {
    if (r.len > 0) fprintf(stderr, "tapnic: %.*s\n", (int)r.len, (const char *)r.payload);
    die("refused");
  }
  link_free(&r);
  up = true;
  *ifc = (struct packetdrill_interface){
      .userdata = NULL,
      .free = do_free,
      .socket = do_socket,
      .bind = do_bind,
      .listen = do_listen,
      .accept = do_accept,
      .connect = do_connect,
      .read = do_read,
      .readv = do_readv,
      .recv = do_recv,
      .recvfrom = do_recvfrom,
      .recvmsg = do_recvmsg,
      .write = do_write,
      .writev = do_writev,
      .send = do_send,
      .sendto = do_sendto,
      .sendmsg = do_sendmsg,
      .fcntl = do_fcntl,
      .ioctl = do_ioctl,
      .close = do_close,
      .shutdown = do_shutdown,
      .getsockopt = do_getsockopt,
      .setsockopt = do_setsockopt,
      .poll = do_poll,
      .netdev_send = do_netdev_send,
      .netdev_receive = do_netdev_receive,
      .usleep = do_usleep,
      .gettimeofday = do_gettimeofday,
      .epoll_create = do_epoll_create,
      .epoll_ctl = do_epoll_ctl,
      .epoll_wait = do_epoll_wait,
      .pipe = do_pipe,
      .splice = do_splice,
  };
}

// Calls libc's getsockopt for a descriptor that is not a placeholder. -1 is a connection that is
// not accepted yet.
EXPORT int getsockopt(int fd, int level, int name, void *restrict value, socklen_t *restrict len) {
  if (up && fd == -1) return get_option(-1, level, name, value, len);
  if (up && remote_of(fd) >= 0) return do_getsockopt(NULL, fd, level, name, value, len);
  int (*libc)(int, int, int, void *, socklen_t *);
  *(void **)&libc = dlsym(RTLD_NEXT, "getsockopt");
  if (libc == NULL) return fail(ENOSYS);
  return libc(fd, level, name, value, len);
}
