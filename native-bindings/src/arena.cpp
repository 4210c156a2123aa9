// Physical memory: one memfd, mapped once, which JavaScript accesses as one ArrayBuffer.
#include <errno.h>
#include <fcntl.h>
#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <new>

#include "napi_args.h"

namespace tapnic {

namespace {

constexpr uint64_t kPage = 4096;
constexpr double kMin = 16.0 * 1024 * 1024;
// Limit of 32-bit offsets, and of an external ArrayBuffer in Node 20.
constexpr double kMax = 4096.0 * 1024 * 1024;
// Seals against a resize: access to a page that ftruncate removed would raise SIGBUS.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

// Bytes of free memory that malloc keeps, and the size from which it maps a block of its own.
constexpr int kMallocKeeps = 128 << 20;
constexpr int kMallocMaps = 4 << 20;

// Makes malloc keep freed memory. Received data is copied to Buffers of up to 64 KB, which the
// collector frees many at a time. With its defaults malloc returns them to the kernel each time,
// and the next Buffers fault in and clear every page: 0.1 s per GB.
void KeepFreedMemory() {
#ifdef __GLIBC__
  mallopt(M_TRIM_THRESHOLD, kMallocKeeps);
  // The call above ends the adjustment of this limit by malloc itself.
  mallopt(M_MMAP_THRESHOLD, kMallocMaps);
#endif
}

void Finalize(napi_env, void*, void* hint) { static_cast<Arena*>(hint)->Unref(); }

// Maps `fd`, or memory without a descriptor if it is -1, makes it the instance's arena and returns
// its ArrayBuffer or -errno. Owns `fd` from the call on.
napi_value Map(napi_env env, Args<1>& a, int fd, size_t size) {
  const int flags = fd < 0 ? MAP_SHARED | MAP_ANONYMOUS : MAP_SHARED;
  void* base = mmap(nullptr, size, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (base == MAP_FAILED) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return a.Return(-error);
  }
  auto* arena = new (std::nothrow) Arena{static_cast<uint8_t*>(base), size, fd, {1}};
  if (arena == nullptr) abort();  // out of memory for 40 bytes: give up
  napi_value buffer = nullptr;
  if (napi_create_external_arraybuffer(env, base, size, Finalize, arena, &buffer) != napi_ok) {
    napi_value ignored;
    napi_get_and_clear_last_exception(env, &ignored);
    arena->Unref();
    return a.Return(-ENOTSUP);
  }
  arena->Ref();
  if (a.inst->arena != nullptr) a.inst->arena->Unref();
  a.inst->arena = arena;
  return buffer;
}

// arenaAlloc(bytes) -> ArrayBuffer, or -errno.
//
// Allocates zeroed memory, a multiple of 4096 bytes from 16 MiB to 4 GiB. Offsets in all later
// calls of this instance refer to it. No call can use an earlier arena; it is freed when its
// ArrayBuffer is collected and its reads are complete.
napi_value ArenaAlloc(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const auto size = static_cast<size_t>(a.Whole(0, kMin, kMax));
  if (!a.ok || size % kPage != 0) return a.Return(-EINVAL);
  KeepFreedMemory();
  const int fd = memfd_create("tapnic-arena", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  if (fd < 0) return a.Return(-errno);
  if (ftruncate(fd, static_cast<off_t>(size)) != 0 || fcntl(fd, F_ADD_SEALS, kSeals) != 0) {
    const int error = errno;
    close(fd);
    // Linux applies the limit of file sizes (ulimit -f) to a memfd. A capture file may be meant.
    return error == EFBIG ? Map(env, a, -1, size) : a.Return(-error);
  }
  return Map(env, a, fd, size);
}

// arenaAttach(fd) -> ArrayBuffer, or -errno. Maps the arena of another isolate by its descriptor,
// which the caller keeps. -EPERM: it is not sealed against shrinking.
napi_value ArenaAttach(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  const int seals = fcntl(fd, F_GET_SEALS);
  if (seals < 0) return a.Return(-errno);
  if ((seals & F_SEAL_SHRINK) == 0) return a.Return(-EPERM);
  struct stat st;
  if (fstat(fd, &st) != 0) return a.Return(-errno);
  if (static_cast<double>(st.st_size) < kMin || static_cast<double>(st.st_size) > kMax)
    return a.Return(-EINVAL);
  const int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
  if (own < 0) return a.Return(-errno);
  return Map(env, a, own, static_cast<size_t>(st.st_size));
}

// arenaFd() -> the memfd of the instance's arena, for another process or worker to map. -ENXIO:
// there is no arena, or it has no descriptor. The arena owns the descriptor: do not close it.
napi_value ArenaFd(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  return a.Return(a.inst->arena == nullptr || a.inst->arena->fd < 0 ? -ENXIO : a.inst->arena->fd);
}

}  // namespace

void Arena::Unref() {
  if (refs.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
  munmap(base, size);
  if (fd >= 0) close(fd);
  delete this;
}

int Instance::Gather(const uint32_t* pairs, size_t words, uint32_t iovcnt, iovec* iov) const {
  if (iovcnt == 0 || iovcnt > kMaxSegs || iovcnt > words / 2) return -EINVAL;
  if (arena == nullptr) return -EFAULT;
  for (uint32_t i = 0; i < iovcnt; i++) {
    const size_t off = Once(&pairs[2 * i]), len = Once(&pairs[2 * i + 1]);
    if (off > arena->size || len > arena->size - off) return -EFAULT;
    iov[i] = {arena->base + off, len};
  }
  return 0;
}

const Entry kArenaEntries[] = {{"arenaAlloc", ArenaAlloc},
                               {"arenaAttach", ArenaAttach},
                               {"arenaFd", ArenaFd},
                               {nullptr, nullptr}};

}  // namespace tapnic
