// The state of one instance of the addon (one per isolate): its arena, the descriptors it opened,
// its polls, its reads in flight and its devices.
#pragma once

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <atomic>

namespace tapnic {

constexpr uint32_t kMaxSegs = 1024;    // IOV_MAX: the kernel returns EINVAL for more pieces
constexpr uint32_t kMaxReads = 64;     // page-ins in flight; further ones wait in TypeScript
constexpr uint32_t kMaxTns = 64;       // native builds of the NIC
constexpr uint32_t kMaxFds = 1 << 16;  // descriptor numbers in the ownership table

// One memfd mapped into the process. The ArrayBuffer, the instance and every read in flight hold
// references; it is unmapped when the last one is released.
struct Arena {
  uint8_t* base;
  size_t size;
  int fd;
  std::atomic<uint32_t> refs;

  void Ref() { refs.fetch_add(1, std::memory_order_relaxed); }
  void Unref();
};

namespace tn {
class WireSource;
}
struct Exchange;
struct FileJobs;
struct FilterJob;
struct Poll;
struct Read;
class Steer;
struct Tn;

struct Instance {
  napi_env env = nullptr;
  Arena* arena = nullptr;

  // Bit map of the descriptors that the addon opened. Only these are read, written, polled or
  // closed, so that a wrong number from JavaScript cannot close a file of Node.
  uint64_t owned[kMaxFds / 64] = {};

  napi_ref pollCallback = nullptr;
  napi_async_context pollContext = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  Poll** polls = nullptr;   // pollSlots entries; grows, at most one poll per owned descriptor
  uint32_t pollSlots = 0;
  uint32_t livePolls = 0;  // including those being closed
  bool ending = false;

  napi_ref readCallback = nullptr;
  Read* reads[kMaxReads] = {};
  uint32_t readsInFlight = 0;

  Tn* tns[kMaxTns] = {};

  Exchange* opened = nullptr;  // the exchange that this instance opened
  Steer* steer = nullptr;      // its place on an exchange

  FileJobs* fileJobs = nullptr;
  uint32_t remoteReads = 0;
  FilterJob* filterJob = nullptr;  // under way, or not fetched
  // Descriptors on file systems that ask another process or machine.
  uint64_t remote[kMaxFds / 64] = {};

  bool Owns(int fd) const {
    return fd >= 0 && static_cast<uint32_t>(fd) < kMaxFds && ((owned[fd / 64] >> (fd % 64)) & 1);
  }
  // Takes ownership of a descriptor. Returns it, or closes it and returns -EMFILE.
  int Own(int fd);
  void Disown(int fd) { owned[fd / 64] &= ~(uint64_t{1} << (fd % 64)); }
  // `fd` is below kMaxFds, as every descriptor owned is.
  void SetRemote(int fd, bool is) {
    const uint64_t bit = uint64_t{1} << (fd % 64);
    if (is)
      remote[fd / 64] |= bit;
    else
      remote[fd / 64] &= ~bit;
  }
  bool IsRemote(int fd) const { return Owns(fd) && ((remote[fd / 64] >> (fd % 64)) & 1); }
  bool Polled(int fd) const;

  // Turns (offset, length) pairs of arena memory into an iovec. Returns 0, -EINVAL for a bad count
  // or -EFAULT for a pair outside the arena.
  int Gather(const uint32_t* pairs, size_t words, uint32_t iovcnt, iovec* iov) const;
};

// One exported function. Each file has a table of them.
struct Entry {
  const char* name;
  napi_callback fn;
};
using Entries = const Entry*;  // ended by a null name
extern const Entry kArenaEntries[], kIoEntries[], kTapEntries[], kNetlinkEntries[], kNetnsEntries[],
    kPagerEntries[], kCksumEntries[], kPollEntries[], kStreamIoEntries[], kTnEntries[],
    kIpcEntries[], kFileJobEntries[], kExchangeEntries[], kFilterEntries[];

// pager.cpp: reads from byte `off` until the pieces are full, to the end of the file, or until an
// error, which is put into `error` as -errno. Changes the pieces. Returns the bytes read.
uint64_t ReadPieces(int fd, off_t off, iovec* iov, uint32_t iovcnt, int* error);

// pager.cpp: puts identity, size and times of a file into out[0 .. 7), as fileStat does.
void PutStat(const struct statx& st, double* out);

// file_jobs.cpp: a page-in from a file system that asks another process or machine. Returns 0 or
// -errno; -EBUSY: 32 are in flight.
int RemoteRead(Instance* inst, int32_t id, int fd, off_t off, const uint32_t* pairs, size_t words,
               uint32_t iovcnt);

// exchange.cpp: the frames of this worker that a read from descriptor `fd` returns; null if `fd` is no
// queue of a worker.
tn::WireSource* SteerOf(Instance* inst, int fd);

// Called at the end of the instance.
void ExchangeEnd(Instance* inst);
void FileJobsEnd(Instance* inst);
void FilterEnd(Instance* inst);
void PollsEnd(Instance* inst);
void ReadsEnd(Instance* inst);
void TnsEnd(Instance* inst);

// Disconnects all devices from descriptor `fd`, which is about to be closed.
void TnsUnplug(Instance* inst, int fd);
// Makes all devices read their wires directly, because `source` is about to be deleted.
void TnsUnsteer(Instance* inst, const tn::WireSource* source);

}  // namespace tapnic
