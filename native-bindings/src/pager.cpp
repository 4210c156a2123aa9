// Page-in: asynchronous reads of a file directly into arena memory, on libuv's thread pool.
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>

#include "napi_args.h"

namespace tapnic {

// One read. The pool's thread accesses it only between queueing and completion.
struct Read {
  Instance* inst;
  Arena* arena;
  napi_async_work work;
  bool busy;
  int32_t id;
  int fd;
  off_t off;
  uint32_t iovcnt;
  uint32_t capacity;
  iovec* iov;
  int error;
  uint64_t nbytes;
};

uint64_t ReadPieces(int fd, off_t off, iovec* v, uint32_t left, int* error) {
  uint64_t nbytes = 0;
  while (left > 0) {
    const ssize_t n = TEMP_FAILURE_RETRY(
        preadv(fd, v, static_cast<int>(left), off + static_cast<off_t>(nbytes)));
    if (n < 0) *error = -errno;
    if (n <= 0) break;
    nbytes += static_cast<uint64_t>(n);
    auto got = static_cast<size_t>(n);
    while (left > 0 && got >= v->iov_len) {
      got -= v->iov_len;
      v++;
      left--;
    }
    if (left > 0) *v = {static_cast<uint8_t*>(v->iov_base) + got, v->iov_len - got};
  }
  return nbytes;
}

void PutStat(const struct statx& st, double* out) {
  const uint64_t ino = st.stx_ino;
  out[0] = static_cast<double>(static_cast<uint32_t>(makedev(st.stx_dev_major, st.stx_dev_minor))) +
           static_cast<double>(ino >> 48) * 4294967296.0;
  out[1] = static_cast<double>(ino & 0xffffffffffff);
  out[2] = static_cast<double>(st.stx_size);
  out[3] = static_cast<double>(st.stx_ctime.tv_sec);
  out[4] = static_cast<double>(st.stx_ctime.tv_nsec);
  out[5] = static_cast<double>(st.stx_mtime.tv_sec);
  out[6] = static_cast<double>(st.stx_mtime.tv_nsec);
}

namespace {

void Execute(napi_env, void* data) {
  auto* r = static_cast<Read*>(data);
  r->nbytes = ReadPieces(r->fd, r->off, r->iov, r->iovcnt, &r->error);
}

void Complete(napi_env env, napi_status status, void* data) {
  auto* r = static_cast<Read*>(data);
  Instance* inst = r->inst;
  const int error = status == napi_cancelled ? -ECANCELED : r->error;
  const int32_t id = r->id;
  const uint64_t nbytes = r->nbytes;
  napi_delete_async_work(env, r->work);
  r->arena->Unref();
  r->arena = nullptr;
  r->busy = false;
  inst->readsInFlight--;

  napi_value cb = nullptr, recv = nullptr, argv[3] = {};
  if (inst->readCallback == nullptr ||
      napi_get_reference_value(env, inst->readCallback, &cb) != napi_ok || cb == nullptr ||
      napi_get_global(env, &recv) != napi_ok ||
      napi_create_int32(env, id, &argv[0]) != napi_ok ||
      napi_create_int32(env, error, &argv[1]) != napi_ok ||
      napi_create_double(env, static_cast<double>(nbytes), &argv[2]) != napi_ok)
    return;
  // An exception stays pending, and Node reports it as uncaught.
  napi_call_function(env, recv, cb, 3, argv, nullptr);
}

// Returns a free Read with room for `iovcnt` pieces, or null.
Read* Slot(Instance* inst, uint32_t iovcnt) {
  for (uint32_t i = 0; i < kMaxReads; i++) {
    Read*& r = inst->reads[i];
    if (r == nullptr) r = static_cast<Read*>(calloc(1, sizeof(Read)));
    if (r == nullptr || r->busy) continue;
    if (r->capacity < iovcnt) {
      const uint32_t capacity = std::max(iovcnt, 32u);
      auto* iov = static_cast<iovec*>(realloc(r->iov, capacity * sizeof(iovec)));
      if (iov == nullptr) return nullptr;
      r->iov = iov;
      r->capacity = capacity;
    }
    return r;
  }
  return nullptr;
}

// readCallback(fn) -> 0 or -errno. fn(id, error, nbytes) is called once for each filePread; error
// is 0 or -errno. nbytes were read, also if there was an error.
napi_value ReadCallback(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const napi_value fn = a.Function(0);
  if (!a.ok) return a.Return(-EINVAL);
  if (a.inst->readCallback != nullptr) napi_delete_reference(env, a.inst->readCallback);
  a.inst->readCallback = nullptr;
  return a.Return(napi_create_reference(env, fn, 1, &a.inst->readCallback) == napi_ok ? 0
                                                                                       : -ENOMEM);
}

// filePread(id, fd, off, iov: Uint32Array, iovcnt) -> 0 or -errno.
//
// Starts a read of any file descriptor from byte `off` into (offset, length) pairs of the arena,
// which are copied during the call. fd must stay open until the callback. -EAGAIN: 64 reads are in
// flight. A read of a file system that asks another process or machine ends through fileJobNext
// instead; -EBUSY: 32 of these are in flight.
napi_value FilePread(napi_env env, napi_callback_info info) {
  Args<5> a(env, info);
  const int32_t id = a.Int32(0);
  const int fd = a.Int32(1);
  const uint64_t off = a.Offset(2);
  const Span<uint32_t> pairs = a.Words(3);
  const uint32_t iovcnt = a.Uint32(4);
  Instance* inst = a.inst;
  if (!a.ok || iovcnt == 0 || iovcnt > kMaxSegs || iovcnt > pairs.len / 2)
    return a.Return(-EINVAL);
  if (fd < 0) return a.Return(-EBADF);
  if (inst->readCallback == nullptr) return a.Return(-ENXIO);
  if (inst->IsRemote(fd))
    return a.Return(RemoteRead(inst, id, fd, static_cast<off_t>(off), pairs.p, pairs.len, iovcnt));
  if (inst->readsInFlight >= kMaxReads) return a.Return(-EAGAIN);
  Read* r = Slot(inst, iovcnt);
  if (r == nullptr) return a.Return(-ENOMEM);
  const int error = inst->Gather(pairs.p, pairs.len, iovcnt, r->iov);
  if (error != 0) return a.Return(error);
  r->inst = inst;
  r->id = id;
  r->fd = fd;
  r->off = static_cast<off_t>(off);
  r->iovcnt = iovcnt;
  r->error = 0;
  r->nbytes = 0;
  // Node-API forbids queueing one work object twice, so each read has its own.
  napi_value name = nullptr;
  if (napi_create_string_latin1(env, "tapnic:pread", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, nullptr, name, Execute, Complete, r, &r->work) != napi_ok)
    return a.Return(-ENOMEM);
  if (napi_queue_async_work(env, r->work) != napi_ok) {
    napi_delete_async_work(env, r->work);
    return a.Return(-ENOMEM);
  }
  r->arena = inst->arena;
  r->arena->Ref();
  r->busy = true;
  inst->readsInFlight++;
  return a.Return(0);
}

// fileStat(fd, out: Float64Array(8)) -> 0 or -errno.
//
// out: device, inode, size, ctime s, ctime ns, mtime s, mtime ns, and a sum of 1 for a
// regular file, 2 for a descriptor open for reading, 4 for a file with holes. An inode
// number can have 64 bits (overlayfs, btrfs): its high 16 go into `device` above bit 32, so that
// the pair stays exact in doubles.
napi_value FileStat(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const int fd = a.Int32(0);
  const Span<double> out = a.Doubles(1);
  if (!a.ok || out.len < 8) return a.Return(-EINVAL);
  // AT_STATX_DONT_SYNC: return the attributes that the kernel has cached. This function runs on the
  // event loop, which must not wait for a FUSE server or a network.
  struct statx st;
  if (syscall(SYS_statx, fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_BASIC_STATS, &st) != 0)
    return a.Return(-errno);
  PutStat(st, out.p);
  // The addon's own files come from lookups, which open them for reading.
  const int mode = a.inst->Owns(fd) ? O_RDONLY : fcntl(fd, F_GETFL);
  const bool readable = mode >= 0 && (mode & O_ACCMODE) != O_WRONLY && (mode & O_PATH) == 0;
  // SEEK_DATA would ask the server of a FUSE or network file system and wait for its answer.
  const bool sparse = st.stx_blocks < (st.stx_size + 511) / 512 && !a.inst->IsRemote(fd);
  out.p[7] = (S_ISREG(st.stx_mode) ? 1 : 0) + (readable ? 2 : 0) + (sparse ? 4 : 0);
  return a.Return(0);
}

// fileSeek(fd, off, whence) -> offset or -errno.
//
// Finds the next data (3, SEEK_DATA) or hole (4, SEEK_HOLE) at or after byte `off`. -ENXIO: no more
// data. Does not change the descriptor's file offset.
napi_value FileSeek(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int fd = a.Int32(0);
  const auto off = static_cast<off_t>(a.Offset(1));
  const int whence = a.Int32(2);
  if (!a.ok || (whence != SEEK_DATA && whence != SEEK_HOLE)) return a.Return(-EINVAL);
  const off_t before = lseek(fd, 0, SEEK_CUR);
  if (before < 0) return a.Return(-errno);
  const off_t found = lseek(fd, off, whence);
  const int error = errno;
  lseek(fd, before, SEEK_SET);
  return a.Return(found < 0 ? -error : found);
}

// exitNow(status) -> does not return, or -EINVAL unless 0 <= status <= 255.
//
// Ends the process without waiting. Node's exit waits for the threads of its pool, and one of them
// may be blocked in a read from a disk that does not respond.
napi_value ExitNow(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int status = a.Int32(0);
  if (!a.ok || status < 0 || status > 255) return a.Return(-EINVAL);
  _exit(status);
}

}  // namespace

void ReadsEnd(Instance* inst) {
  for (Read*& r : inst->reads) {
    if (r == nullptr || r->busy) continue;
    free(r->iov);
    free(r);
    r = nullptr;
  }
}

const Entry kPagerEntries[] = {{"readCallback", ReadCallback},
                               {"filePread", FilePread},
                               {"fileStat", FileStat},
                               {"fileSeek", FileSeek},
                               {"exitNow", ExitNow},
                               {nullptr, nullptr}};

}  // namespace tapnic
