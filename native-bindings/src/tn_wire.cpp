// The device's wire: a TAP or one end of a socket pair.
#include "tn_wire.h"

#include <errno.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace tapnic::tn {

namespace {

// A frame takes one system call. glibc's functions are cancellation points, which costs two more calls in
// a process with threads; syscall(2) is not.
ssize_t Call(long number, int fd, const void* buf, size_t len) {
  return TEMP_FAILURE_RETRY(syscall(number, fd, buf, len));
}

}  // namespace

// read(2) and write(2) are cheaper than their vector forms.
long WireWritev(int fd, const iovec* iov, int iovcnt) {
  const ssize_t n = iovcnt == 1 ? Call(SYS_write, fd, iov->iov_base, iov->iov_len)
                                : Call(SYS_writev, fd, iov, static_cast<size_t>(iovcnt));
  return n < 0 ? -errno : n;
}

long WireReadv(int fd, const iovec* iov, int iovcnt) {
  const ssize_t n = iovcnt == 1 ? Call(SYS_read, fd, iov->iov_base, iov->iov_len)
                                : Call(SYS_readv, fd, iov, static_cast<size_t>(iovcnt));
  // A socket pair returns 0 bytes after its other end was closed.
  return n < 0 ? -errno : n == 0 ? -EIO : n;
}

}  // namespace tapnic::tn
