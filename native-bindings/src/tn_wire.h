// Access to the device's wire: one system call per frame. In a file of its own, so that a fuzzer
// can replace it.
#pragma once

#include <sys/uio.h>

namespace tapnic::tn {

// Sends or receives one frame. Returns its length, or -errno. Never blocks.
long WireWritev(int fd, const iovec* iov, int iovcnt);
long WireReadv(int fd, const iovec* iov, int iovcnt);

// The frames that a device receives, if they are not simply those of its descriptor.
class WireSource {
 public:
  // As WireReadv.
  virtual long Readv(const iovec* iov, int iovcnt) = 0;

 protected:
  ~WireSource() = default;
};

}  // namespace tapnic::tn
