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
constexpr uint32_t kMaxPolls = 64;     // descriptors on the event loop
constexpr uint32_t kMaxTns = 64;       // native builds of the NIC
constexpr uint32_t kMaxFds = 1 << 16;  // descriptor numbers in the ownership table

// One memfd mapped into the process. Shared by the ArrayBuffer over it, the instance that calls it
// its own, and every read in flight; unmapped with the last reference.
struct Arena {
  uint8_t* base;
  size_t size;
  int fd;
  std::atomic<uint32_t> refs;

  void Ref() { refs.fetch_add(1, std::memory_order_relaxed); }
  void Unref();
};

struct Poll;
struct Read;
struct Tn;

struct Instance {
  napi_env env = nullptr;
  Arena* arena = nullptr;

  // Only descriptors from here are written to, polled or closed: a wrong number from JS must not
  // close a file of Node's own.
  uint64_t owned[kMaxFds / 64] = {};

  napi_ref pollCallback = nullptr;
  napi_async_context pollContext = nullptr;
  napi_async_cleanup_hook_handle cleanup = nullptr;
  Poll* polls[kMaxPolls] = {};
  uint32_t livePolls = 0;  // including those being closed
  bool ending = false;

  napi_ref readCallback = nullptr;
  Read* reads[kMaxReads] = {};
  uint32_t readsInFlight = 0;

  Tn* tns[kMaxTns] = {};

  bool Owns(int fd) const {
    return fd >= 0 && static_cast<uint32_t>(fd) < kMaxFds && ((owned[fd / 64] >> (fd % 64)) & 1);
  }
  // Takes a descriptor over. Returns it, or -EMFILE with the descriptor closed.
  int Own(int fd);
  void Disown(int fd) { owned[fd / 64] &= ~(uint64_t{1} << (fd % 64)); }
  bool Polled(int fd) const;

  // Turns (offset, length) pairs of arena memory into an iovec. Returns 0, -EINVAL for a bad count
  // or -EFAULT for a pair outside the arena.
  int Gather(const uint32_t* pairs, size_t words, uint32_t iovcnt, iovec* iov) const;
};

// Each file adds its functions.
struct Entry {
  const char* name;
  napi_callback fn;
};
using Entries = const Entry*;  // ended by a null name
extern const Entry kArenaEntries[], kIoEntries[], kTapEntries[], kNetlinkEntries[], kNetnsEntries[],
    kPagerEntries[], kCksumEntries[], kPollEntries[], kStreamIoEntries[], kTnEntries[];

// For the instance's end.
void PollsEnd(Instance* inst);
void ReadsEnd(Instance* inst);
void TnsEnd(Instance* inst);

// Descriptor `fd` is about to be closed: no device uses it from now on.
void TnsUnplug(Instance* inst, int fd);

}  // namespace tapnic
