// Unix sockets and lock files of the control socket, on descriptors that Node opened.
#include <errno.h>
#include <sys/file.h>
#include <sys/socket.h>

#include "napi_args.h"

namespace tapnic {

namespace {

// peerCred(fd, out: Uint32Array(3)) -> 0 or -errno.
//
// Writes pid, uid and gid of the peer of a Unix socket (SO_PEERCRED, unix(7)): for a client, those of
// the process that called listen(2).
napi_value PeerCred(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint32_t> out = a.Words(1);
  if (!a.ok || out.len < 3) return a.Return(-EINVAL);
  ucred cred;
  socklen_t len = sizeof cred;
  if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0) return a.Return(-errno);
  out.p[0] = static_cast<uint32_t>(cred.pid);
  out.p[1] = cred.uid;
  out.p[2] = cred.gid;
  return a.Return(0);
}

// fileLock(fd) -> 0 or -errno; -EAGAIN if another process has the lock. An exclusive flock(2), which
// the kernel releases when the descriptor is closed.
napi_value FileLock(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  return a.Return(flock(fd, LOCK_EX | LOCK_NB) == 0 ? 0 : -errno);
}

// fileShare(fd) -> 0 or -errno; -EAGAIN if another process has the lock of fileLock. A shared
// flock(2): any number of processes can have it.
napi_value FileShare(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  return a.Return(flock(fd, LOCK_SH | LOCK_NB) == 0 ? 0 : -errno);
}

}  // namespace

const Entry kIpcEntries[] = {{"peerCred", PeerCred},
                             {"fileLock", FileLock},
                             {"fileShare", FileShare},
                             {nullptr, nullptr}};

}  // namespace tapnic
