// Loads the shared object as packetdrill does, and runs one connection and error cases through it.
// Each failed check prints a line on stderr; the status is 0 if all checks passed. Usage: driver SO
// [FLAGS]
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/ip.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "interface.h"

static struct packetdrill_interface ifc;
static int failures;
static uint32_t iss, peer_next;

#define CHECK(cond)                                                           \
  do {                                                                        \
    if (!(cond)) {                                                            \
      fprintf(stderr, "packetdrill_driver.c:%d: %s, errno %d\n", __LINE__, #cond, errno); \
      failures++;                                                             \
    }                                                                         \
  } while (0)

static uint32_t sum(const void *p, size_t len, uint32_t s) {
  const uint8_t *b = p;
  for (size_t i = 0; i < len; i++) s += (i & 1) ? b[i] : (uint32_t)b[i] << 8;
  return s;
}

static uint16_t fold(uint32_t s) {
  while (s >> 16) s = (s & 0xffff) + (s >> 16);
  return htons((uint16_t)~s);
}

static struct sockaddr_in address(const char *text, int port) {
  struct sockaddr_in sa = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  inet_pton(AF_INET, text, &sa.sin_addr);
  return sa;
}

// Injects a segment from the peer, 192.0.2.1:4000, to 192.168.77.5:8080.
static int inject(uint8_t flags, uint32_t seq, uint32_t ack, const void *data, size_t len) {
  uint8_t p[2048] = {0};
  struct iphdr *ip = (struct iphdr *)p;
  struct tcphdr *th = (struct tcphdr *)(p + 20);
  const struct sockaddr_in from = address("192.0.2.1", 4000), to = address("192.168.77.5", 8080);
  *ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 255, .protocol = IPPROTO_TCP};
  ip->tot_len = htons((uint16_t)(40 + len));
  ip->saddr = from.sin_addr.s_addr;
  ip->daddr = to.sin_addr.s_addr;
  ip->check = fold(sum(ip, 20, 0));
  th->source = from.sin_port;
  th->dest = to.sin_port;
  th->seq = htonl(seq);
  th->ack_seq = htonl(ack);
  th->doff = 5;
  ((uint8_t *)th)[13] = flags;
  th->window = htons(65535);
  memcpy(p + 40, data, len);
  const uint32_t pseudo = sum(&ip->saddr, 8, IPPROTO_TCP + 20 + (uint32_t)len);
  th->check = fold(sum(th, 20 + len, pseudo));
  return ifc.netdev_send(ifc.userdata, p, 40 + len);
}

// Receives the next segment that the stack sends, and its time.
static struct tcphdr expect(size_t payload, long long *when) {
  uint8_t p[65536];
  size_t count = sizeof p;
  struct tcphdr th = {0};
  CHECK(ifc.netdev_receive(ifc.userdata, p, &count, when) == 0);
  CHECK(count >= 40);
  if (count < 40) return th;
  const struct iphdr *ip = (const struct iphdr *)p;
  CHECK(fold(sum(p, 20, 0)) == 0);
  CHECK(ntohs(ip->tot_len) == count);
  memcpy(&th, p + 20, sizeof th);
  CHECK(count == 20u + th.doff * 4u + payload);
  return th;
}

static long long now(void) {
  struct timeval tv;
  CHECK(ifc.gettimeofday(ifc.userdata, &tv, NULL) == 0);
  return tv.tv_sec * 1000000LL + tv.tv_usec;
}

static int handshake(void) {
  void *u = ifc.userdata;
  const int one = 1;
  const int fd = ifc.socket(u, AF_INET, SOCK_STREAM, IPPROTO_TCP);
  CHECK(fd >= 0 && fcntl(fd, F_GETFD) >= 0);
  CHECK(ifc.setsockopt(u, fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0);
  // The host accepts any local address: packetdrill chooses one at random.
  const struct sockaddr_in sa = address("192.168.77.5", 8080);
  CHECK(ifc.bind(u, fd, (const struct sockaddr *)&sa, sizeof sa) == 0);
  CHECK(ifc.listen(u, fd, 5) == 0);
  long long when, sent = now();
  CHECK(inject(TH_SYN, 1000, 0, "", 0) == 0);
  struct tcphdr th = expect(0, &when);
  CHECK(th.syn && th.ack && ntohl(th.ack_seq) == 1001);
  CHECK(when >= sent && when <= sent + 1000);
  // Without an answer the SYN-ACK is sent again after one second of virtual time.
  const uint32_t first = ntohl(th.seq);
  th = expect(0, &when);
  CHECK(th.syn && ntohl(th.seq) == first && when >= sent + 1000000 && when <= sent + 1002000);
  iss = first + 1;
  peer_next = 1001;
  CHECK(inject(TH_ACK, peer_next, iss, "", 0) == 0);
  struct sockaddr_storage peer;
  socklen_t len = sizeof peer;
  const int conn = ifc.accept(u, fd, (struct sockaddr *)&peer, &len);
  CHECK(conn >= 0 && conn != fd && len == sizeof(struct sockaddr_in));
  const struct sockaddr_in *in = (const struct sockaddr_in *)&peer;
  CHECK(in->sin_port == htons(4000) &&
        in->sin_addr.s_addr == address("192.0.2.1", 0).sin_addr.s_addr);
  CHECK(ifc.close(u, fd) == 0);
  CHECK(fcntl(fd, F_GETFD) < 0 && errno == EBADF);
  return conn;
}

static void data(int fd) {
  void *u = ifc.userdata;
  char buf[4096] = {0};
  struct iovec iov[2] = {{buf, 300}, {buf + 300, 200}};
  long long when;
  CHECK(ifc.writev(u, fd, iov, 2) == 500);
  struct tcphdr th = expect(500, &when);
  CHECK(th.psh && ntohl(th.seq) == iss);
  iss += 500;
  CHECK(inject(TH_ACK | TH_PUSH, peer_next, iss, buf, 100) == 0);
  peer_next += 100;
  struct pollfd pfd = {.fd = fd, .events = POLLIN | POLLOUT, .revents = 77};
  CHECK(ifc.poll(u, &pfd, 1, 0) == 1 && pfd.revents == (POLLIN | POLLOUT));
  const int ep = ifc.epoll_create(u, 1);
  struct epoll_event ev = {.events = EPOLLIN, .data.fd = fd}, got;
  CHECK(ep >= 0 && ifc.epoll_ctl(u, ep, EPOLL_CTL_ADD, fd, &ev) == 0);
  CHECK(ifc.epoll_wait(u, ep, &got, 1, 0) == 1 && got.events == EPOLLIN && got.data.fd == fd);
  CHECK(ifc.close(u, ep) == 0);
  int waiting = -1;
  CHECK(ifc.ioctl(u, fd, (unsigned long)(int)FIONREAD, &waiting) == 0 && waiting == 100);
  CHECK(ifc.recv(u, fd, buf, 40, MSG_PEEK) == 40);
  struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2, .msg_flags = 77, .msg_controllen = 5};
  CHECK(ifc.recvmsg(u, fd, &msg, 0) == 100 && msg.msg_flags == 0 && msg.msg_controllen == 0);
  th = expect(0, &when);
  CHECK(ntohl(th.ack_seq) == peer_next);
  // TCP_INFO, which %{ }% blocks read.
  unsigned char info[280];
  socklen_t len = sizeof info;
  CHECK(ifc.getsockopt(u, fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0 && len == 280 &&
        info[0] == 1);
}

static void errors(int fd) {
  void *u = ifc.userdata;
  char buf[16];
  CHECK(ifc.fcntl(u, fd, F_GETFL) == O_RDWR);
  CHECK(ifc.fcntl(u, fd, F_SETFL, O_RDWR | O_NONBLOCK) == 0);
  CHECK(ifc.read(u, fd, buf, sizeof buf) == -1 && errno == EAGAIN);
  CHECK(ifc.read(u, 3000, buf, sizeof buf) == -1 && errno == EBADF);
  CHECK(ifc.write(u, fd, NULL, 5) == -1 && errno == EFAULT);
  CHECK(ifc.getsockopt(u, fd, 1, 9999, buf, &(socklen_t){4}) == -1 && errno == ENOPROTOOPT);
  CHECK(ifc.socket(u, AF_APPLETALK, SOCK_STREAM, 0) == -1 && errno == EAFNOSUPPORT);
  int ends[2];
  CHECK(ifc.pipe(u, ends) == -1 && errno == ENOSYS);
  int error = -1;
  socklen_t len = sizeof error;
  CHECK(ifc.getsockopt(u, fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0 && len == 4);
}

// A datagram over IPv6 in each direction.
static void ipv6(void) {
  void *u = ifc.userdata;
  const int fd = ifc.socket(u, AF_INET6, SOCK_DGRAM, IPPROTO_UDP);
  struct sockaddr_in6 to = {.sin6_family = AF_INET6, .sin6_port = htons(9)}, from;
  inet_pton(AF_INET6, "fd3d:fa7b:d17d::1", &to.sin6_addr);
  CHECK(fd >= 0 && ifc.connect(u, fd, (const struct sockaddr *)&to, sizeof to) == 0);
  CHECK(ifc.write(u, fd, "abc", 3) == 3);
  uint8_t p[2048], data[100];
  size_t count = sizeof p;
  long long when;
  CHECK(ifc.netdev_receive(u, p, &count, &when) == 0 && count == 51 && p[0] >> 4 == 6);
  CHECK(p[6] == IPPROTO_UDP && memcmp(p + 24, &to.sin6_addr, 16) == 0);
  // The same datagram comes back: swapped addresses and ports keep the checksum.
  uint8_t reply[51];
  memcpy(reply, p, sizeof reply);
  memcpy(reply + 8, p + 24, 16);
  memcpy(reply + 24, p + 8, 16);
  memcpy(reply + 40, p + 42, 2);
  memcpy(reply + 42, p + 40, 2);
  CHECK(ifc.netdev_send(u, reply, sizeof reply) == 0);
  socklen_t len = sizeof from;
  CHECK(ifc.recvfrom(u, fd, data, sizeof data, 0, (struct sockaddr *)&from, &len) == 3);
  CHECK(len == sizeof from && from.sin6_family == AF_INET6 && from.sin6_port == htons(9) &&
        memcmp(&from.sin6_addr, &to.sin6_addr, 16) == 0 && memcmp(data, "abc", 3) == 0);
  CHECK(ifc.close(u, fd) == 0);
}

struct blocked {
  int fd;
  atomic_int started;
  ssize_t n;
  long long done;
};

static void *reader(void *arg) {
  struct blocked *b = arg;
  char buf[100];
  atomic_store(&b->started, 1);
  b->n = ifc.read(ifc.userdata, b->fd, buf, sizeof buf);
  b->done = now();
  return NULL;
}

// A call blocks on a second thread while the first thread advances time.
static void blocking(int fd) {
  void *u = ifc.userdata;
  CHECK(ifc.fcntl(u, fd, F_SETFL, O_RDWR) == 0);
  struct blocked b = {.fd = fd};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, reader, &b) == 0);
  while (!atomic_load(&b.started)) usleep(1000);
  usleep(100000);  // until the reader sleeps
  const long long start = now();
  CHECK(ifc.usleep(u, 200000) == 0);
  CHECK(inject(TH_ACK | TH_PUSH, peer_next, iss, "0123456789", 10) == 0);
  peer_next += 10;
  const long long arrived = now();
  // Time advances before the other thread reads its clock.
  CHECK(ifc.usleep(u, 1000000) == 0);
  pthread_join(thread, NULL);
  CHECK(b.n == 10);
  CHECK(arrived >= start + 200000 && b.done >= start + 199000 && b.done <= arrived + 1000);
  long long when;
  expect(0, &when);
}

static void finish(int fd) {
  void *u = ifc.userdata;
  long long when;
  char buf[16];
  CHECK(ifc.shutdown(u, fd, SHUT_WR) == 0);
  struct tcphdr th = expect(0, &when);
  CHECK(th.fin && ntohl(th.seq) == iss);
  CHECK(inject(TH_ACK | TH_FIN, peer_next, iss + 1, "", 0) == 0);
  th = expect(0, &when);
  CHECK(ntohl(th.ack_seq) == peer_next + 1);
  CHECK(ifc.read(u, fd, buf, sizeof buf) == 0);
  CHECK(system("sockstat -4 -P tcp -s | grep -c TIME_WAIT | grep -q 1") == 0);
  CHECK(
      system(
          "sysctl -w net.inet.tcp.msl=1000 > /dev/null && sysctl -w net.nothing=1 2> /dev/null") !=
      0);
  CHECK(system("tcpdrop -s TIME_WAIT") == 0);
  CHECK(system("sockstat -4 -P tcp -s | grep -q TIME_WAIT") != 0);
  CHECK(system("ifconfig pd0 | grep -q 'mtu 1400'") == 0);
  // No packet will follow: the call returns 0 bytes instead of blocking.
  size_t count = sizeof buf;
  CHECK(ifc.netdev_receive(u, buf, &count, &when) == 0 && count == 0);
  // packetdrill closes open descriptors with close() of libc.
  CHECK(close(fd) == 0);
}

// Number of open sockets of this process.
static int sockets(void) {
  int n = 0;
  char path[64], to[64];
  for (int fd = 0; fd < 256; fd++) {
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    const ssize_t len = readlink(path, to, sizeof to);
    if (len > 7 && memcmp(to, "socket:", 7) == 0) n++;
  }
  return n;
}

// What a wrong script does: a call that waits on the main thread, and a packet that never comes. Then
// the link is closed while a second thread reads it.
static void wrong(int fd) {
  void *u = ifc.userdata;
  char buf[64];
  struct pollfd pfd = {.fd = fd, .events = POLLIN};
  CHECK(ifc.read(u, fd, buf, sizeof buf) == -1 && errno == EDEADLK);
  CHECK(ifc.poll(u, &pfd, 1, 1000) == -1 && errno == EDEADLK);
  size_t count = sizeof buf;
  long long when;
  CHECK(system("sysctl -w net.inet.tcp.always_keepalive=0 > /dev/null") == 0);
  CHECK(ifc.netdev_receive(u, buf, &count, &when) == 0 && count == 0);
  struct blocked b = {.fd = fd};
  pthread_t thread;
  CHECK(pthread_create(&thread, NULL, reader, &b) == 0);
  while (!atomic_load(&b.started)) usleep(1000);
  usleep(100000);  // until the reader sleeps
  const int before = sockets();
  ifc.free(u);
  pthread_join(thread, NULL);
  CHECK(b.n == -1);
  CHECK(sockets() == before - 1);
}

int main(int argc, char **argv) {
  if (argc < 2) return 2;
  for (int round = 0; round < 2; round++) {
    void *so = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE | RTLD_DEEPBIND);
    if (so == NULL) {
      fprintf(stderr, "driver: %s\n", dlerror());
      return 1;
    }
    void (*init)(const char *, struct packetdrill_interface *);
    *(void **)&init = dlsym(so, "packetdrill_interface_init");
    if (init == NULL) return 1;
    memset(&ifc, 0, sizeof ifc);
    init(argc > 2 ? argv[2] : NULL, &ifc);
    void *const *slots = (void *const *)&ifc;
    for (size_t i = 1; i < sizeof ifc / sizeof *slots; i++) CHECK(slots[i] != NULL);
    CHECK(sizeof ifc == 33 * sizeof(void *));
    const int fd = handshake();
    if (argc > 3) {
      wrong(fd);
      return failures == 0 ? 0 : 1;
    }
    data(fd);
    errors(fd);
    ipv6();
    blocking(fd);
    finish(fd);
    ifc.free(ifc.userdata);
    dlclose(so);
  }
  return failures == 0 ? 0 : 1;
}
