// Sends and receives frames in ordinary memory, one per call, on descriptors that the addon opened.
// `Tap` and `Tun` use it; a machine's frames are in the arena (io.cpp).
#include <errno.h>
#include <unistd.h>

#include "napi_args.h"

namespace tapnic {

namespace {

template <typename Call>
napi_value Plain(napi_env env, napi_callback_info info, Call call) {
  Args<2> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint8_t> bytes = a.Bytes(1);
  if (!a.ok) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  // Refuse an empty buffer: a TAP ignores an empty frame, and an empty read would look like the end
  // of the stream.
  if (bytes.len == 0) return a.Return(-EINVAL);
  const ssize_t n = TEMP_FAILURE_RETRY(call(fd, bytes.p, bytes.len));
  return a.Return(n < 0 ? -errno : n);
}

// fdWrite(fd, frame: Uint8Array) -> bytes written, or -errno.
napi_value FdWrite(napi_env env, napi_callback_info info) {
  return Plain(env, info, [](int fd, const uint8_t* p, size_t len) { return write(fd, p, len); });
}

// fdRead(fd, room: Uint8Array) -> bytes of the frame received, or -errno. Bytes that do not fit
// into `room` are lost.
napi_value FdRead(napi_env env, napi_callback_info info) {
  return Plain(env, info, [](int fd, uint8_t* p, size_t len) { return read(fd, p, len); });
}

}  // namespace

const Entry kStreamIoEntries[] = {{"fdWrite", FdWrite}, {"fdRead", FdRead}, {nullptr, nullptr}};

}  // namespace tapnic
