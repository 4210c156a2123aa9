/*
 * A minimal responder over a TAP: answers ARP, ICMP echo requests and UDP datagrams to port 7, each
 * in the buffer in which it was received. Reads until no frame is left, then poll(2).
 *
 *   responder -t TAP [-c CPU]
 *
 * Prints "ready" when the interface is up, and at the end, on SIGTERM, one line of JSON. Linux's
 * address is 192.0.2.1/24, ours is 192.0.2.2.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { ETH = 14, IP4 = 20, PORT = 7, FRAME_MAX = 2048 };

static const uint8_t our_mac[6] = {0x02, 0x00, 0x5e, 0x00, 0x53, 0x02};
static const uint8_t our_ip[4] = {192, 0, 2, 2};

static volatile sig_atomic_t ended;
static int fd;
static uint64_t frames, answers;

static void die(const char *what) {
  fprintf(stderr, "responder: %s: %s\n", what, strerror(errno));
  exit(1);
}

static void stop(int sig) {
  (void)sig;
  ended = 1;
}

static void swap(uint8_t *a, uint8_t *b, size_t n) {
  uint8_t t[6];
  memcpy(t, a, n);
  memcpy(a, b, n);
  memcpy(b, t, n);
}

static unsigned get16(const uint8_t *p) { return (unsigned)p[0] << 8 | p[1]; }

/* Turns the frame into its answer; returns whether there is one. */
static bool answer(uint8_t *f, size_t len) {
  if (len < ETH + 28) return false;
  uint8_t *ip = f + ETH;
  if (get16(f + 12) == 0x0806) {
    if (get16(f + 20) != 1 || memcmp(f + 38, our_ip, 4) != 0) return false;
    f[21] = 2;
    memcpy(f, f + 6, 6);
    memcpy(f + 6, our_mac, 6);
    memcpy(f + 32, f + 22, 10);
    memcpy(f + 22, our_mac, 6);
    memcpy(f + 28, our_ip, 4);
    return true;
  }
  if (get16(f + 12) != 0x0800 || ip[0] != 0x45 || memcmp(ip + 16, our_ip, 4) != 0) return false;
  if (get16(ip + 2) + ETH > len) return false;
  uint8_t *l4 = ip + IP4;
  if (ip[9] == IPPROTO_UDP && get16(l4 + 2) == PORT) {
    /* The order of the words does not change the sum. */
    swap(l4, l4 + 2, 2);
  } else if (ip[9] == IPPROTO_ICMP && l4[0] == 8) {
    l4[0] = 0;
    unsigned sum = get16(l4 + 2) + 0x0800;
    sum = (sum & 0xffff) + (sum >> 16);
    l4[2] = (uint8_t)(sum >> 8);
    l4[3] = (uint8_t)sum;
  } else {
    return false;
  }
  swap(f, f + 6, 6);
  swap(ip + 12, ip + 16, 4);
  return true;
}

static void drain(void) {
  static uint8_t frame[FRAME_MAX];
  for (;;) {
    const ssize_t n = read(fd, frame, sizeof frame);
    if (n < 0) {
      if (errno == EAGAIN || errno == EINTR) return;
      die("read");
    }
    frames++;
    if (!answer(frame, (size_t)n)) continue;
    if (write(fd, frame, (size_t)n) != n) die("write");
    answers++;
  }
}

static void open_tap(const char *name) {
  fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) die("/dev/net/tun");
  struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
  if (ioctl(fd, TUNSETIFF, &ifr) < 0) die("TUNSETIFF");
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
}

int main(int argc, char **argv) {
  const char *tap = NULL;
  int cpu = -1;
  for (int o; (o = getopt(argc, argv, "t:c:")) != -1;) {
    if (o == 't') tap = optarg;
    else if (o == 'c') cpu = atoi(optarg);
    else return 2;
  }
  if (tap == NULL) {
    fputs("usage: responder -t TAP [-c CPU]\n", stderr);
    return 2;
  }
  if (cpu >= 0) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set) < 0) die("sched_setaffinity");
  }
  const struct sigaction act = {.sa_handler = stop};
  sigaction(SIGTERM, &act, NULL);
  open_tap(tap);
  puts("ready");
  fflush(stdout);
  while (!ended) {
    struct pollfd p = {.fd = fd, .events = POLLIN};
    if (poll(&p, 1, -1) < 0 && errno != EINTR) die("poll");
    drain();
  }
  struct rusage u;
  getrusage(RUSAGE_SELF, &u);
  printf("{\"frames\":%llu,\"answers\":%llu,\"cpuSeconds\":%.6f}\n", (unsigned long long)frames,
         (unsigned long long)answers,
         (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
             (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6);
  return 0;
}
