// Access to the device's wire: one system call per frame. Separate, so that a fuzzer can replace
// it.
#pragma once

#include <sys/uio.h>

namespace tapnic::tn {

// Sends or receives one frame: its length, or -errno. Never blocks.
long WireWritev(int fd, const iovec* iov, int iovcnt);
long WireReadv(int fd, const iovec* iov, int iovcnt);

}  // namespace tapnic::tn
