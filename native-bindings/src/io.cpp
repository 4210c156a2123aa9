// Sends and receives frames at arena offsets, on descriptors that the addon opened: a TAP or a
// socket pair.
#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "napi_args.h"
#include "tn_wire.h"

namespace tapnic {

namespace {

// The result of a system call, or -errno.
long Result(ssize_t n) { return n < 0 ? -errno : n; }

template <typename Call>
napi_value Vectored(napi_env env, napi_callback_info info, Call call) {
  Args<3> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint32_t> pairs = a.Words(1);
  const uint32_t iovcnt = a.Uint32(2);
  if (!a.ok) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  iovec iov[kMaxSegs];
  const int error = a.inst->Gather(pairs.p, pairs.len, iovcnt, iov);
  if (error != 0) return a.Return(error);
  long n;
  do {
    n = call(a.inst, fd, iov, static_cast<int>(iovcnt));
  } while (n == -EINTR);
  return a.Return(n);
}

// frameWritev(fd, iov: Uint32Array, iovcnt) -> bytes written, or -errno.
//
// Sends one frame gathered from the arena: iov holds iovcnt (offset, length) pairs, 1 to 1024.
napi_value FrameWritev(napi_env env, napi_callback_info info) {
  return Vectored(env, info, [](Instance*, int fd, const iovec* v, int n) {
    return Result(writev(fd, v, n));
  });
}

// frameReadv(fd, iov: Uint32Array, iovcnt) -> bytes read, or -errno. Receives one frame into the
// (offset, length) pairs of iov.
napi_value FrameReadv(napi_env env, napi_callback_info info) {
  return Vectored(env, info, [](Instance* inst, int fd, const iovec* v, int n) {
    tn::WireSource* source = SteerOf(inst, fd);
    return source != nullptr ? source->Readv(v, n) : Result(readv(fd, v, n));
  });
}

// socketPair(fds: Int32Array(2), bufBytes) -> 0 or -errno.
//
// Makes the two ends of a wire that behaves like a TAP and needs no privilege: AF_UNIX SEQPACKET,
// one frame per call, -EAGAIN when bufBytes (0: the system's default) are used.
napi_value SocketPair(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const Span<int32_t> out = a.Ints(0);
  const int bufBytes = a.Int32(1);
  if (!a.ok || out.len < 2 || bufBytes < 0) return a.Return(-EINVAL);
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
    return a.Return(-errno);
  for (int i = 0; i < 2; i++) {
    if (bufBytes > 0) setsockopt(fds[i], SOL_SOCKET, SO_SNDBUF, &bufBytes, sizeof bufBytes);
    out.p[i] = a.inst->Own(fds[i]);
  }
  if (out.p[0] >= 0 && out.p[1] >= 0) return a.Return(0);
  for (int i = 0; i < 2; i++)
    if (out.p[i] >= 0) {
      a.inst->Disown(out.p[i]);
      close(out.p[i]);
    }
  return a.Return(-EMFILE);
}

// Ends the addon's use of `fd`, which stays open. Returns 0 or -errno.
static int Forget(Instance* inst, int fd) {
  if (!inst->Owns(fd)) return -EBADF;
  if (inst->Polled(fd)) return -EBUSY;
  TnsUnplug(inst, fd);
  inst->Disown(fd);
  return 0;
}

// fdClose(fd) -> 0 or -errno. -EBADF: the addon did not open it. -EBUSY: it is still polled; libuv
// would continue to watch the number.
napi_value FdClose(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  const int error = Forget(a.inst, fd);
  if (error != 0) return a.Return(error);
  return a.Return(close(fd) == 0 ? 0 : -errno);
}

// fdRelease(fd) -> 0 or -errno. The addon of this isolate stops using fd, which stays open: another
// isolate of this process adopts it. -EBUSY: it is polled.
napi_value FdRelease(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  return a.Return(Forget(a.inst, fd));
}

}  // namespace

int Instance::Own(int fd) {
  if (static_cast<uint32_t>(fd) >= kMaxFds) {
    close(fd);
    return -EMFILE;
  }
  owned[fd / 64] |= uint64_t{1} << (fd % 64);
  return fd;
}

const Entry kIoEntries[] = {{"frameWritev", FrameWritev},
                            {"frameReadv", FrameReadv},
                            {"socketPair", SocketPair},
                            {"fdClose", FdClose},
                            {"fdRelease", FdRelease},
                            {nullptr, nullptr}};

}  // namespace tapnic
