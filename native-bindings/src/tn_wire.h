// The device's way to its wire: one system call a frame. A seam of its own, so that a fuzzer can
// put another wire in its place.
#pragma once

#include <sys/uio.h>

namespace tapnic::tn {

// Sends or receives one frame: its length, or -errno. Never blocks.
long WireWritev(int fd, const iovec* iov, int iovcnt);
long WireReadv(int fd, const iovec* iov, int iovcnt);

}  // namespace tapnic::tn
