// The interface between packetdrill and a stack in a shared object: 33 pointer-sized slots. The
// first one belongs to the stack and is each function's first argument. The declarations are
// written from the interface's description, not copied. A function that fails returns -1 and sets
// errno. packetdrill owns and clears the table.
#pragma once

#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#ifdef __cplusplus
extern "C" {
#endif

struct packetdrill_interface {
  void *userdata;
  // Called when a script has passed. After a failure packetdrill exits without this call.
  void (*free)(void *u);
  int (*socket)(void *u, int domain, int type, int protocol);
  int (*bind)(void *u, int fd, const struct sockaddr *addr, socklen_t len);
  int (*listen)(void *u, int fd, int backlog);
  int (*accept)(void *u, int fd, struct sockaddr *addr, socklen_t *len);
  int (*connect)(void *u, int fd, const struct sockaddr *addr, socklen_t len);
  ssize_t (*read)(void *u, int fd, void *buf, size_t count);
  ssize_t (*readv)(void *u, int fd, const struct iovec *iov, int iovcnt);
  ssize_t (*recv)(void *u, int fd, void *buf, size_t count, int flags);
  ssize_t (*recvfrom)(void *u, int fd, void *buf, size_t count, int flags, struct sockaddr *addr,
                      socklen_t *len);
  ssize_t (*recvmsg)(void *u, int fd, struct msghdr *msg, int flags);
  ssize_t (*write)(void *u, int fd, const void *buf, size_t count);
  ssize_t (*writev)(void *u, int fd, const struct iovec *iov, int iovcnt);
  ssize_t (*send)(void *u, int fd, const void *buf, size_t count, int flags);
  ssize_t (*sendto)(void *u, int fd, const void *buf, size_t count, int flags,
                    const struct sockaddr *addr, socklen_t len);
  ssize_t (*sendmsg)(void *u, int fd, const struct msghdr *msg, int flags);
  int (*fcntl)(void *u, int fd, int cmd, ...);
  int (*ioctl)(void *u, int fd, unsigned long request, ...);
  int (*close)(void *u, int fd);
  int (*shutdown)(void *u, int fd, int how);
  int (*getsockopt)(void *u, int fd, int level, int name, void *value, socklen_t *len);
  int (*setsockopt)(void *u, int fd, int level, int name, const void *value, socklen_t len);
  int (*poll)(void *u, struct pollfd *fds, nfds_t n, int timeout_ms);
  // Injects a raw IP datagram. The stack has processed it on return.
  int (*netdev_send)(void *u, const void *packet, size_t count);
  // Waits for the next datagram that the stack sends. Returns it and its time in microseconds.
  int (*netdev_receive)(void *u, void *packet, size_t *count, long long *time_usecs);
  int (*usleep)(void *u, useconds_t usecs);
  int (*gettimeofday)(void *u, struct timeval *tv, struct timezone *tz);
  int (*epoll_create)(void *u, int size);
  int (*epoll_ctl)(void *u, int ep, int op, int fd, struct epoll_event *event);
  int (*epoll_wait)(void *u, int ep, struct epoll_event *events, int max, int timeout_ms);
  int (*pipe)(void *u, int fds[2]);
  int (*splice)(void *u, int in, loff_t *in_off, int out, loff_t *out_off, size_t len,
                unsigned flags);
};

// The entry point that packetdrill looks up. `flags`: its --so_flags, or null. Exits on failure.
void packetdrill_interface_init(const char *flags, struct packetdrill_interface *ifc);

#ifdef __cplusplus
}
#endif
