// The device's wire: a TAP or one end of a socket pair.
#include "tn_wire.h"

#include <errno.h>
#include <unistd.h>

namespace tapnic::tn {

// read(2) and write(2) are cheaper than their vector forms.
long WireWritev(int fd, const iovec* iov, int iovcnt) {
  const ssize_t n = iovcnt == 1 ? TEMP_FAILURE_RETRY(write(fd, iov->iov_base, iov->iov_len))
                                : TEMP_FAILURE_RETRY(writev(fd, iov, iovcnt));
  return n < 0 ? -errno : n;
}

long WireReadv(int fd, const iovec* iov, int iovcnt) {
  const ssize_t n = iovcnt == 1 ? TEMP_FAILURE_RETRY(read(fd, iov->iov_base, iov->iov_len))
                                : TEMP_FAILURE_RETRY(readv(fd, iov, iovcnt));
  // A socket pair returns 0 bytes after its other end was closed.
  return n < 0 ? -errno : n == 0 ? -EIO : n;
}

}  // namespace tapnic::tn
