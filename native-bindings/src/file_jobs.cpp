// Jobs on files that block while a file system does not answer: look a name up below a directory, read
// a directory, close, and page-in from a file system that asks another process or machine. Each job runs
// on a thread of this file. libuv's pool has four threads, and one such file system would block them
// all. A finished job waits in a queue, and an eventfd reports it to the event loop. The caller limits
// the number of jobs. A name that the kernel has in its cache, on a local file system, needs no job.
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <new>

#include "napi_args.h"

namespace tapnic {

// A mounted file system.
struct Mount {
  uint64_t id = 0;
  uint32_t major = 0;
  uint32_t minor = 0;
};

// What a lookup found.
struct Found {
  int fd = -1;
  int type = 0;
  bool remote = false;
  Mount mount;
  double size = 0;
  double mtimeSec = 0;
  double mtimeNsec = 0;
};

struct FileJob {
  FileJob* next = nullptr;
  int32_t id = 0;
  int32_t kind = 0;
  int32_t flags = 0;
  int fd = -1;  // given to a job on a descriptor
  int error = 0;
  int type = 0;
  Found found;  // of a lookup
  size_t len = 0;     // bytes of `data`
  // Of a page-in.
  Arena* arena = nullptr;
  iovec* iov = nullptr;
  uint32_t iovcnt = 0;
  off_t off = 0;
  uint64_t nbytes = 0;
  size_t rootLen = 0;  // of a lookup: the root's bytes in `data`, with their NUL
  char data[32768] = {};
};

constexpr uint32_t kMaxLocal = 16;

// Shared by the instance and its threads; freed by the last of them.
struct FileJobs {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_cond_t work = PTHREAD_COND_INITIALIZER;
  FileJob* first = nullptr;  // waiting for a thread
  FileJob* last = nullptr;
  FileJob* done = nullptr;  // finished, oldest first
  FileJob* doneLast = nullptr;
  uint32_t jobs = 0;  // waiting, running or finished
  uint32_t waiting = 0;
  uint32_t threads = 0;
  uint32_t idle = 0;
  uint32_t refs = 1;
  int event = -1;
  bool ending = false;
  // Mounts that a look-up found to be local. Only the event loop uses these two.
  Mount local[kMaxLocal];
  uint32_t locals = 0;
};

namespace {

constexpr uint32_t kMaxThreads = 128;
constexpr uint32_t kMaxJobs = 4096;
constexpr uint32_t kMaxRemoteReads = 32;
constexpr int kLookup = 0, kReadDir = 1, kClose = 2, kRead = 3;
constexpr int kCross = 1;    // lookup: may cross mounts and follow absolute links
constexpr int kOpenDir = 2;  // lookup: open a directory, too
constexpr size_t kMaxPath = 8192;
constexpr int kFile = 1, kDirectory = 2, kOther = 3;

// Whether `fd` is on a file system that asks another process or machine.
bool Remote(int fd) {
  struct statfs fs;
  if (fstatfs(fd, &fs) != 0) return true;
  switch (static_cast<uint32_t>(fs.f_type)) {
    case 0x65735546:  // FUSE
    case 0x6969:      // NFS
    case 0x517b:      // SMB
    case 0xff534d42:  // CIFS
    case 0xfe534d42:  // SMB2
    case 0x00c36400:  // Ceph
    case 0x01021997:  // 9P
    case 0x5346414f:  // AFS
    case 0x73757245:  // Coda
      return true;
    default:
      return false;
  }
}

// O_PATH opens a name without effect on what it names: a FIFO's writer, a tape, a terminal. The file
// itself is opened when its type is known. With
// RESOLVE_CACHED in `resolve`, -EAGAIN is the answer if the name is not in the kernel's cache.
int OpenPath(int dir, const char* name, uint64_t flags, uint64_t resolve) {
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC | flags;
  how.resolve = resolve;
  const auto fd = static_cast<int>(syscall(SYS_openat2, dir, name, &how, sizeof how));
  return fd >= 0 ? fd : -errno;
}

constexpr uint64_t kBeneath = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;

int OpenBeneath(int dir, const char* name) {
  for (int tries = 0; tries < 16; tries++) {
    const int fd = OpenPath(dir, name, 0, kBeneath);
    // Without openat2 the slow way decides, as for EXDEV.
    if (fd == -ENOSYS || fd == -EPERM) return -EXDEV;
    // EAGAIN: a rename on the way.
    if (fd != -EAGAIN && fd != -EINTR) return fd;
  }
  return -EXDEV;
}

// Whether `path` is `root` or lies below it.
bool Below(const char* root, size_t rootLen, const char* path, size_t len) {
  if (rootLen == 1) return true;
  return len >= rootLen && memcmp(root, path, rootLen) == 0 &&
         (len == rootLen || path[rootLen] == '/');
}

bool IsLocal(const FileJobs* q, const Mount& m) {
  for (uint32_t i = 0; i < q->locals && i < kMaxLocal; i++) {
    const Mount& l = q->local[i];
    if (l.id == m.id && l.major == m.major && l.minor == m.minor) return true;
  }
  return false;
}

// Linux before 5.8 has no mount identifiers.
Mount MountOf(const struct statx& sx) {
  const uint64_t id = (sx.stx_mask & STATX_MNT_ID) != 0 ? sx.stx_mnt_id : 0;
  return {id, sx.stx_dev_major, sx.stx_dev_minor};
}

// Opens what the descriptor `at` of O_PATH names, if it is wanted, and describes it. `path` has
// `pathMax` bytes and receives the real path. Returns its length or -errno. With `q`, no step may
// block: -EAGAIN unless the file system is known to be local. Status comes from the cache then, as a
// file system may ask another process for it.
ssize_t OpenFound(const char* root, int at, int flags, const FileJobs* q, Found* f, char* path,
                  size_t pathMax) {
  char self[32];
  snprintf(self, sizeof self, "/proc/self/fd/%d", at);
  const ssize_t len = readlink(self, path, pathMax);
  if (len < 0) return -errno;
  if (!Below(root, strlen(root), path, static_cast<size_t>(len))) return -EACCES;
  struct statx sx;
  const uint32_t mask = STATX_BASIC_STATS | STATX_MNT_ID;
  const int how = AT_EMPTY_PATH | (q == nullptr ? 0 : AT_STATX_DONT_SYNC);
  if (syscall(SYS_statx, at, "", how, mask, &sx) != 0) return -errno;
  f->type = S_ISREG(sx.stx_mode) ? kFile : S_ISDIR(sx.stx_mode) ? kDirectory : kOther;
  f->size = static_cast<double>(sx.stx_size);
  f->mtimeSec = static_cast<double>(sx.stx_mtime.tv_sec);
  f->mtimeNsec = static_cast<double>(sx.stx_mtime.tv_nsec);
  f->mount = MountOf(sx);
  if (q != nullptr && !IsLocal(q, f->mount)) return -EAGAIN;
  if (f->type != kFile && (f->type != kDirectory || (flags & kOpenDir) == 0)) return len;
  // Through /proc, which cannot lead to another file.
  f->fd = open(self, O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  return f->fd < 0 ? -errno : len;
}

void Lookup(FileJob* j) {
  const char* root = j->data;
  const char* name = j->data + j->rootLen;
  const int dir = open(root, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (dir < 0) {
    j->error = -errno;
    return;
  }
  const bool cross = (j->flags & kCross) != 0;
  int at = cross ? openat(dir, name, O_PATH | O_CLOEXEC) : OpenBeneath(dir, name);
  if (at < 0 && cross) at = -errno;
  close(dir);
  if (at < 0) {
    j->error = at;
    return;
  }
  char real[kMaxPath];
  const ssize_t len = OpenFound(root, at, j->flags, nullptr, &j->found, real, sizeof real);
  close(at);
  if (len < 0) {
    j->error = static_cast<int>(len);
    return;
  }
  if (j->found.fd >= 0) j->found.remote = Remote(j->found.fd);
  j->len = static_cast<size_t>(len);
  memcpy(j->data, real, j->len);
}

struct Dirent64 {
  uint64_t ino;
  int64_t off;
  uint16_t reclen;
  uint8_t type;
  char name[];
};

// What a look-up of an entry finds.
constexpr char kIsFile = 0, kIsDir = 1, kIsRefused = 2;

// The kind of what `at` refers to, below `root`.
char OpenedKind(int at, const char* root) {
  char self[32], real[8192];
  snprintf(self, sizeof self, "/proc/self/fd/%d", at);
  const ssize_t len = readlink(self, real, sizeof real);
  struct stat st;
  if (len < 0 || !Below(root, strlen(root), real, static_cast<size_t>(len)) || fstat(at, &st) != 0)
    return kIsRefused;
  if (S_ISDIR(st.st_mode)) return access(self, R_OK | X_OK) == 0 ? kIsDir : kIsRefused;
  return S_ISREG(st.st_mode) && access(self, R_OK) == 0 ? kIsFile : kIsRefused;
}

// The kind of a link whose way crosses a mount. It is not followed, because the other file system may
// not answer. An absolute target decides by its text.
char LinkKind(int dir, const char* name, const char* root) {
  char target[4096];
  const ssize_t len = readlinkat(dir, name, target, sizeof target);
  if (len <= 0) return kIsRefused;
  const bool below = Below(root, strlen(root), target, static_cast<size_t>(len));
  return target[0] == '/' && !below ? kIsRefused : kIsFile;
}

// The kind of an entry. Only links need the way to what they name, which does not leave this mount.
char EntryKind(int dir, const char* name, uint8_t type, const char* root, bool remote) {
  switch (type) {
    case 4:  // DT_DIR
      if (remote || faccessat(dir, name, R_OK | X_OK, AT_EACCESS) == 0) return kIsDir;
      return kIsRefused;
    case 8:  // DT_REG
      if (remote || faccessat(dir, name, R_OK, AT_EACCESS) == 0) return kIsFile;
      return kIsRefused;
    case 0:   // DT_UNKNOWN
    case 10:  // DT_LNK
      break;
    default:  // FIFO, socket, device
      return kIsRefused;
  }
  if (remote || root[0] == '\0') return kIsFile;
  open_how how = {};
  how.flags = O_PATH | O_CLOEXEC;
  how.resolve = RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS;
  const auto at = static_cast<int>(syscall(SYS_openat2, dir, name, &how, sizeof how));
  if (at < 0) {
    if (errno == EXDEV) return LinkKind(dir, name, root);
    // Without openat2, and during a rename, the look-up decides.
    return errno == ENOSYS || errno == EPERM || errno == EAGAIN ? kIsFile : kIsRefused;
  }
  const char kind = OpenedKind(at, root);
  close(at);
  return kind;
}

// Entries become (kind, length, name), one after the other. That is shorter than the kernel's form, so
// it is made in place.
void ReadDir(FileJob* j) {
  char root[8192];
  memcpy(root, j->data, sizeof root);
  root[sizeof root - 1] = '\0';
  const bool remote = Remote(j->fd);
  const auto n = syscall(SYS_getdents64, j->fd, j->data, sizeof j->data);
  if (n < 0) {
    j->error = -errno;
    return;
  }
  size_t out = 0;
  for (size_t in = 0; in < static_cast<size_t>(n);) {
    const auto* d = reinterpret_cast<const Dirent64*>(j->data + in);
    in += d->reclen;
    const size_t len = strlen(d->name);
    if (len == 0 || len > 255 || strcmp(d->name, ".") == 0 || strcmp(d->name, "..") == 0) continue;
    const char kind = EntryKind(j->fd, d->name, d->type, root, remote);
    memmove(j->data + out + 2, d->name, len);
    j->data[out] = kind;
    j->data[out + 1] = static_cast<char>(static_cast<uint8_t>(len));
    out += len + 2;
  }
  j->len = out;
  j->type = n == 0 ? 1 : 0;  // the end
}

void Run(FileJob* j) {
  switch (j->kind) {
    case kLookup:
      return Lookup(j);
    case kReadDir:
      return ReadDir(j);
    case kRead:
      j->nbytes = ReadPieces(j->fd, j->off, j->iov, j->iovcnt, &j->error);
      return;
    default:
      close(j->fd);
      j->fd = -1;
  }
}

void Delete(FileJob* j) {
  if (j->arena != nullptr) j->arena->Unref();
  free(j->iov);
  delete j;
}

// Frees a finished job whose result is not fetched.
void Discard(FileJob* j) {
  if (j->found.fd >= 0) close(j->found.fd);
  Delete(j);
}

// Frees the queues with the last reference. Called with the lock held; releases it.
void Unref(FileJobs* q) {
  const bool last = --q->refs == 0;
  pthread_mutex_unlock(&q->lock);
  if (!last) return;
  for (FileJob* j = q->first; j != nullptr;) {
    FileJob* next = j->next;
    if (j->kind == kClose) close(j->fd);
    Delete(j);
    j = next;
  }
  for (FileJob* j = q->done; j != nullptr;) {
    FileJob* next = j->next;
    Discard(j);
    j = next;
  }
  pthread_mutex_destroy(&q->lock);
  pthread_cond_destroy(&q->work);
  delete q;
}

// Puts a finished job into the queue of results.
void Finished(FileJobs* q, FileJob* j) {
  if (q->ending) {
    Discard(j);
    return;
  }
  j->next = nullptr;
  (q->done == nullptr ? q->done : q->doneLast->next) = j;
  q->doneLast = j;
  const uint64_t one = 1;
  // Only a full counter fails, and the eventfd is readable then.
  if (write(q->event, &one, sizeof one) < 0) return;
}

void* Thread(void* data) {
  auto* q = static_cast<FileJobs*>(data);
  pthread_mutex_lock(&q->lock);
  for (;;) {
    while (q->first == nullptr && !q->ending) {
      q->idle++;
      pthread_cond_wait(&q->work, &q->lock);
      q->idle--;
    }
    if (q->ending) break;
    FileJob* j = q->first;
    q->first = j->next;
    q->waiting--;
    pthread_mutex_unlock(&q->lock);
    Run(j);
    pthread_mutex_lock(&q->lock);
    Finished(q, j);
  }
  Unref(q);
  return nullptr;
}

// Starts one more thread unless enough are idle. Called with the lock held.
bool Enough(FileJobs* q) {
  if (q->idle >= q->waiting || q->threads >= kMaxThreads) return true;
  pthread_attr_t attr;
  pthread_t thread;
  if (pthread_attr_init(&attr) != 0) return q->threads > 0;
  pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
  q->refs++;
  const bool started = pthread_create(&thread, &attr, Thread, q) == 0;
  pthread_attr_destroy(&attr);
  if (started)
    q->threads++;
  else
    q->refs--;
  return q->threads > 0;
}

// Gives a job to the threads. Returns 0 or -errno.
int Queue(FileJobs* q, FileJob* j) {
  pthread_mutex_lock(&q->lock);
  q->waiting++;
  const int error = q->jobs >= kMaxJobs ? -EAGAIN : !Enough(q) ? -ENOMEM : 0;
  if (error != 0) {
    q->waiting--;
  } else {
    q->jobs++;
    (q->first == nullptr ? q->first : q->last->next) = j;
    q->last = j;
    pthread_cond_signal(&q->work);
  }
  pthread_mutex_unlock(&q->lock);
  return error;
}

// fileJobsOpen() -> the eventfd that becomes readable when jobs are finished, or -errno.
napi_value FileJobsOpen(napi_env env, napi_callback_info info) {
  Args<0> a(env, info);
  if (!a.ok) return a.Return(-EINVAL);
  Instance* inst = a.inst;
  if (inst->fileJobs != nullptr) return a.Return(inst->fileJobs->event);
  auto* q = new (std::nothrow) FileJobs;
  if (q == nullptr) return a.Return(-ENOMEM);
  q->event = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
  const int fd = q->event < 0 ? -errno : inst->Own(q->event);
  if (fd < 0) {
    delete q;
    return a.Return(fd);
  }
  inst->fileJobs = q;
  return a.Return(fd);
}

// Whether `path` is the path of a directory, `rootLen` bytes, and a name relative to it: 0 or -errno.
int CheckPath(const Span<uint8_t>& path, size_t rootLen) {
  if (rootLen == 0 || rootLen >= path.len || path.p[0] != '/') return -EINVAL;
  if (path.len > kMaxPath) return -ENAMETOOLONG;
  // A NUL inside would end the name early.
  return memchr(path.p, 0, path.len) == nullptr ? 0 : -EINVAL;
}

// Copies the two parts of `path`, each with a NUL, to `to`: path.len + 2 bytes. Returns the offset of
// the second.
size_t SplitPath(const Span<uint8_t>& path, size_t rootLen, char* to) {
  memcpy(to, path.p, rootLen);
  to[rootLen] = '\0';
  memcpy(to + rootLen + 1, path.p + rootLen, path.len - rootLen);
  to[path.len + 1] = '\0';
  return rootLen + 1;
}

// Closes `fd` if that cannot block: the file is on a local file system and still has a name. The last
// close of a file without a name writes to its disk.
bool CloseNow(Instance* inst, int fd) {
  struct stat st;
  if (inst->IsRemote(fd) || fstat(fd, &st) != 0 || st.st_nlink == 0) return false;
  inst->Disown(fd);
  close(fd);
  return true;
}

// Reports a lookup's result: takes ownership of its descriptor. Returns 0 or -errno.
int Report(Instance* inst, Found* f, double* out) {
  int error = 0;
  if (f->fd >= 0) {
    f->fd = inst->Own(f->fd);
    if (f->fd < 0) {
      error = f->fd;
      f->fd = -1;
    } else {
      inst->SetRemote(f->fd, f->remote);
      FileJobs* q = inst->fileJobs;
      if (!f->remote && !IsLocal(q, f->mount)) q->local[q->locals++ % kMaxLocal] = f->mount;
    }
  }
  out[1] = error;
  out[2] = f->fd;
  out[3] = f->type;
  out[4] = f->size;
  out[5] = f->mtimeSec;
  out[6] = f->mtimeNsec;
  return error;
}

// fileLookupCached(flags, path: Uint8Array, rootLen, out: Float64Array(7), data: Uint8Array(32768)) ->
// bytes put into data, or -EAGAIN.
//
// Looks up a name as fileJob's kind 0 does, at once, if nothing on the way can block: the kernel has
// every name on the way in its cache, and an earlier lookup found the file system to be local.
// Otherwise, and for every error, the result is -EAGAIN, and a job has to look the name up. Results are
// those of fileJobNext, without an id.
napi_value FileLookupCached(napi_env env, napi_callback_info info) {
  Args<5> a(env, info);
  const int32_t flags = a.Int32(0);
  const Span<uint8_t> path = a.Bytes(1);
  const uint32_t rootLen = a.Uint32(2);
  const Span<double> out = a.Doubles(3);
  const Span<uint8_t> data = a.Bytes(4);
  Instance* inst = a.inst;
  if (!a.ok || (flags != 0 && flags != kOpenDir) || out.len < 7 || data.len < sizeof FileJob::data)
    return a.Return(-EINVAL);
  FileJobs* q = inst->fileJobs;
  if (q == nullptr) return a.Return(-ENXIO);
  const int bad = CheckPath(path, rootLen);
  if (bad != 0) return a.Return(bad);
  char parts[kMaxPath + 2];
  const char* name = parts + SplitPath(path, rootLen, parts);
  const int dir = OpenPath(AT_FDCWD, parts, O_DIRECTORY, RESOLVE_CACHED);
  const int at = dir < 0 ? dir : OpenPath(dir, name, 0, kBeneath | RESOLVE_CACHED);
  if (dir >= 0) close(dir);
  if (at < 0) return a.Return(-EAGAIN);
  Found f;
  char* real = reinterpret_cast<char*>(data.p);
  const ssize_t len = OpenFound(parts, at, flags, q, &f, real, kMaxPath);
  close(at);
  if (len < 0) return a.Return(-EAGAIN);
  return a.Return(Report(inst, &f, out.p) == 0 ? static_cast<int64_t>(len) : int64_t{-EAGAIN});
}

// fileStatCached(path: Uint8Array, out: Float64Array(7)) -> 0 or -EAGAIN.
//
// Describes the regular file at an absolute path, in the form of fileStat, if nothing on the way can
// block: the kernel has every name in its cache, none is a link, and an earlier lookup found the file
// system to be local. Otherwise, and for every error, -EAGAIN.
napi_value FileStatCached(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const Span<uint8_t> path = a.Bytes(0);
  const Span<double> out = a.Doubles(1);
  Instance* inst = a.inst;
  if (!a.ok || out.len < 7) return a.Return(-EINVAL);
  FileJobs* q = inst->fileJobs;
  if (q == nullptr) return a.Return(-ENXIO);
  const int bad = CheckPath(path, 1);
  if (bad != 0) return a.Return(bad);
  char text[kMaxPath + 1];
  memcpy(text, path.p, path.len);
  text[path.len] = '\0';
  const int at =
      OpenPath(AT_FDCWD, text, 0, RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_CACHED);
  if (at < 0) return a.Return(-EAGAIN);
  struct statx sx;
  const bool found = syscall(SYS_statx, at, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC,
                             STATX_BASIC_STATS | STATX_MNT_ID, &sx) == 0;
  close(at);
  if (!found || !S_ISREG(sx.stx_mode) || !IsLocal(q, MountOf(sx))) return a.Return(-EAGAIN);
  PutStat(sx, out.p);
  return a.Return(0);
}

// fileJob(id, kind, flags, fd, path: Uint8Array, rootLen) -> 0, 1 or -errno.
//
// Starts a job. Kind 0 looks up: path is the real path of a directory, rootLen bytes, and behind it a
// name relative to it. Flags: 1 crosses mounts and follows links that leave the directory on the way
// (else -EXDEV is the result), 2 opens a directory as well. Kind 1 reads entries of the directory fd;
// path is the real path of the directory that lookups must not leave. Kind 2 closes fd. Both take
// descriptors that a lookup opened. 1: fd is closed, and no result follows. -EAGAIN: 4096 jobs are under
// way.
napi_value StartFileJob(napi_env env, napi_callback_info info) {
  Args<6> a(env, info);
  const int32_t id = a.Int32(0), kind = a.Int32(1), flags = a.Int32(2);
  const int fd = a.Int32(3);
  const Span<uint8_t> path = a.Bytes(4);
  const uint32_t rootLen = a.Uint32(5);
  Instance* inst = a.inst;
  if (!a.ok || kind < kLookup || kind > kClose || flags < 0 || flags > 3) return a.Return(-EINVAL);
  FileJobs* q = inst->fileJobs;
  if (q == nullptr) return a.Return(-ENXIO);
  if (kind == kLookup) {
    const int error = CheckPath(path, rootLen);
    if (error != 0) return a.Return(error);
  } else if (!inst->Owns(fd) || inst->Polled(fd)) {
    return a.Return(-EBADF);
  } else if (path.len > 8191) {
    return a.Return(-ENAMETOOLONG);
  }
  if (kind == kClose && CloseNow(inst, fd)) return a.Return(1);
  auto* j = new (std::nothrow) FileJob;
  if (j == nullptr) return a.Return(-ENOMEM);
  j->id = id;
  j->kind = kind;
  j->flags = flags;
  if (kind == kLookup) {
    j->rootLen = SplitPath(path, rootLen, j->data);
  } else {
    j->fd = fd;
    if (path.len > 0) memcpy(j->data, path.p, path.len);
  }
  const int error = Queue(q, j);
  if (error != 0) {
    Delete(j);
    return a.Return(error);
  }
  if (kind == kClose) {
    inst->Disown(fd);
    inst->SetRemote(fd, false);
  }
  return a.Return(0);
}

// fileJobNext(out: Float64Array(7), data: Uint8Array(32768)) -> bytes put into data, or -EAGAIN: no
// job is finished.
//
// out: id, 0 or -errno, descriptor, type (of a lookup: 1 a file, 2 a directory, 3 anything else; of a
// directory read: 1 at the end; 4 a page-in, of which only the next field has a value), size or bytes
// read, mtime s, mtime ns. data: a lookup's real path, or the entries read.
napi_value FileJobNext(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const Span<double> out = a.Doubles(0);
  const Span<uint8_t> data = a.Bytes(1);
  Instance* inst = a.inst;
  if (!a.ok || out.len < 7 || data.len < sizeof FileJob::data) return a.Return(-EINVAL);
  FileJobs* q = inst->fileJobs;
  if (q == nullptr) return a.Return(-ENXIO);
  pthread_mutex_lock(&q->lock);
  FileJob* j = q->done;
  if (j == nullptr) {
    uint64_t n;
    if (read(q->event, &n, sizeof n) < 0) n = 0;  // EAGAIN: it was empty
    pthread_mutex_unlock(&q->lock);
    return a.Return(-EAGAIN);
  }
  q->done = j->next;
  q->jobs--;
  pthread_mutex_unlock(&q->lock);
  if (j->kind == kLookup && j->error == 0) {
    j->error = Report(inst, &j->found, out.p);
  } else {
    out.p[2] = -1;
    out.p[3] = j->type;
    out.p[4] = 0;
    out.p[5] = 0;
    out.p[6] = 0;
  }
  out.p[0] = j->id;
  out.p[1] = j->error;
  if (j->kind == kRead) {
    inst->remoteReads--;
    out.p[3] = 4;
    out.p[4] = static_cast<double>(j->nbytes);
  }
  const size_t len = j->error == 0 ? j->len : 0;
  memcpy(data.p, j->data, len);
  Delete(j);
  return a.Return(static_cast<int64_t>(len));
}

}  // namespace

int RemoteRead(Instance* inst, int32_t id, int fd, off_t off, const uint32_t* pairs, size_t words,
               uint32_t iovcnt) {
  if (inst->remoteReads >= kMaxRemoteReads) return -EBUSY;
  auto* j = new (std::nothrow) FileJob;
  if (j == nullptr) return -ENOMEM;
  j->id = id;
  j->kind = kRead;
  j->fd = fd;
  j->off = off;
  j->iovcnt = iovcnt;
  j->iov = static_cast<iovec*>(malloc(iovcnt * sizeof(iovec)));
  int error = j->iov == nullptr ? -ENOMEM : inst->Gather(pairs, words, iovcnt, j->iov);
  if (error == 0) {
    j->arena = inst->arena;
    j->arena->Ref();
    error = Queue(inst->fileJobs, j);
  }
  if (error == 0)
    inst->remoteReads++;
  else
    Delete(j);
  return error;
}

void FileJobsEnd(Instance* inst) {
  FileJobs* q = inst->fileJobs;
  if (q == nullptr) return;
  inst->fileJobs = nullptr;
  pthread_mutex_lock(&q->lock);
  q->ending = true;
  pthread_cond_broadcast(&q->work);
  Unref(q);
}

const Entry kFileJobEntries[] = {{"fileJobsOpen", FileJobsOpen},
                                 {"fileLookupCached", FileLookupCached},
                                 {"fileStatCached", FileStatCached},
                                 {"fileJob", StartFileJob},
                                 {"fileJobNext", FileJobNext},
                                 {nullptr, nullptr}};

}  // namespace tapnic
