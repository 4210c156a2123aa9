// Watches a descriptor on the event loop with uv_poll. libuv's header is not needed: the few
// functions used are stable C symbols of the node executable, and uv_handle_size returns the
// handle's size.
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "napi_args.h"

extern "C" {
struct uv_loop_s;
struct uv_handle_s;
struct uv_poll_s;
int uv_poll_init(uv_loop_s*, uv_poll_s*, int fd);
int uv_poll_start(uv_poll_s*, int events, void (*cb)(uv_poll_s*, int status, int events));
int uv_poll_stop(uv_poll_s*);
void uv_close(uv_handle_s*, void (*cb)(uv_handle_s*));
void uv_ref(uv_handle_s*);
void uv_unref(uv_handle_s*);
size_t uv_handle_size(int type);
int uv_backend_fd(const uv_loop_s*);
int uv_backend_timeout(const uv_loop_s*);
void* uv_handle_get_data(const uv_handle_s*);
void uv_handle_set_data(uv_handle_s*, void*);
}

namespace tapnic {

namespace {
constexpr int kUvPoll = 8;     // UV_POLL in uv_handle_type, fixed by libuv's ABI since 1.0
constexpr int kAllEvents = 3;  // UV_READABLE 1, UV_WRITABLE 2
}  // namespace

struct Poll {
  Instance* inst;
  uint32_t id;
  int fd;
  bool closing;
  // Followed by the uv_poll_t, at kHandleOffset.
};

namespace {

constexpr size_t kHandleOffset = (sizeof(Poll) + 15) / 16 * 16;

uv_poll_s* Handle(Poll* p) {
  return reinterpret_cast<uv_poll_s*>(reinterpret_cast<char*>(p) + kHandleOffset);
}
uv_handle_s* Base(Poll* p) { return reinterpret_cast<uv_handle_s*>(Handle(p)); }

void OnEvent(uv_poll_s* handle, int status, int events) {
  auto* p = static_cast<Poll*>(uv_handle_get_data(reinterpret_cast<uv_handle_s*>(handle)));
  Instance* inst = p->inst;
  napi_env env = inst->env;
  if (p->closing || inst->ending || inst->pollCallback == nullptr) return;
  napi_handle_scope scope;
  if (napi_open_handle_scope(env, &scope) != napi_ok) return;
  napi_value cb = nullptr, recv = nullptr, argv[3] = {};
  if (napi_get_reference_value(env, inst->pollCallback, &cb) == napi_ok && cb != nullptr &&
      napi_get_global(env, &recv) == napi_ok &&
      napi_create_uint32(env, p->id, &argv[0]) == napi_ok &&
      napi_create_int32(env, status, &argv[1]) == napi_ok &&
      napi_create_int32(env, events, &argv[2]) == napi_ok &&
      napi_make_callback(env, inst->pollContext, recv, cb, 3, argv, nullptr) ==
          napi_pending_exception) {
    napi_value exception;
    if (napi_get_and_clear_last_exception(env, &exception) == napi_ok)
      napi_fatal_exception(env, exception);
  }
  napi_close_handle_scope(env, scope);
}

// When the last poll of an ending instance is closed, frees the table and lets the isolate go.
void Ended(Instance* inst) {
  if (inst->livePolls != 0) return;
  free(inst->polls);
  inst->polls = nullptr;
  inst->pollSlots = 0;
  if (inst->cleanup == nullptr) return;
  napi_remove_async_cleanup_hook(inst->cleanup);
  inst->cleanup = nullptr;
}

// Returns a free id, or pollSlots if the table could not grow.
uint32_t FreeId(Instance* inst) {
  uint32_t id = 0;
  // Closed polls leave holes; without one the search is skipped.
  if (inst->livePolls < inst->pollSlots)
    while (id < inst->pollSlots && inst->polls[id] != nullptr) id++;
  else
    id = inst->pollSlots;
  if (id < inst->pollSlots) return id;
  const uint32_t slots = inst->pollSlots == 0 ? 16 : 2 * inst->pollSlots;
  auto** grown = static_cast<Poll**>(realloc(inst->polls, slots * sizeof(Poll*)));
  if (grown == nullptr) return inst->pollSlots;
  memset(grown + inst->pollSlots, 0, (slots - inst->pollSlots) * sizeof(Poll*));
  inst->polls = grown;
  inst->pollSlots = slots;
  return id;
}

void OnClosed(uv_handle_s* handle) {
  auto* p = static_cast<Poll*>(uv_handle_get_data(handle));
  Instance* inst = p->inst;
  inst->polls[p->id] = nullptr;
  inst->livePolls--;
  free(p);
  if (inst->ending) Ended(inst);
}

void Close(Poll* p) {
  if (p->closing) return;
  p->closing = true;
  uv_close(Base(p), OnClosed);
}

Poll* Get(Instance* inst, uint32_t id) {
  Poll* p = id < inst->pollSlots ? inst->polls[id] : nullptr;
  return p == nullptr || p->closing ? nullptr : p;
}

// pollCallback(fn) -> 0 or -errno. fn(id, status, events) is called from the event loop; status is
// 0 or -errno (-EBADF: the descriptor is in error), events 1 readable, 2 writable.
napi_value PollCallback(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const napi_value fn = a.Function(0);
  if (!a.ok) return a.Return(-EINVAL);
  Instance* inst = a.inst;
  if (inst->pollContext == nullptr) {
    napi_value name = nullptr;
    if (napi_create_string_latin1(env, "tapnic:poll", NAPI_AUTO_LENGTH, &name) != napi_ok ||
        napi_async_init(env, nullptr, name, &inst->pollContext) != napi_ok)
      return a.Return(-ENOMEM);
  }
  if (inst->pollCallback != nullptr) napi_delete_reference(env, inst->pollCallback);
  inst->pollCallback = nullptr;
  return a.Return(napi_create_reference(env, fn, 1, &inst->pollCallback) == napi_ok ? 0 : -ENOMEM);
}

// pollOpen(fd) -> id, or -errno. -EBADF: the addon did not open fd. -EBUSY: it is already polled.
napi_value PollOpen(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  Instance* inst = a.inst;
  if (!a.ok) return a.Return(-EINVAL);
  if (!inst->Owns(fd)) return a.Return(-EBADF);
  if (inst->ending || inst->pollCallback == nullptr) return a.Return(-ENXIO);
  if (inst->Polled(fd)) return a.Return(-EBUSY);
  const uint32_t id = FreeId(inst);
  if (id == inst->pollSlots) return a.Return(-ENOMEM);
  void* loop = nullptr;
  if (napi_get_uv_event_loop(env, reinterpret_cast<struct uv_loop_s**>(&loop)) != napi_ok)
    return a.Return(-ENXIO);
  auto* p = static_cast<Poll*>(calloc(1, kHandleOffset + uv_handle_size(kUvPoll)));
  if (p == nullptr) return a.Return(-ENOMEM);
  p->inst = inst;
  p->id = id;
  p->fd = fd;
  const int error = uv_poll_init(static_cast<uv_loop_s*>(loop), Handle(p), fd);
  if (error != 0) {
    free(p);
    return a.Return(error);
  }
  uv_handle_set_data(Base(p), p);
  inst->polls[id] = p;
  inst->livePolls++;
  return a.Return(static_cast<int64_t>(id));
}

// pollEvents(id, events, ref) -> 0 or -errno. Watches for 1 readable, 2 writable, 3 both, or 0 no
// event. With ref 0 the watch does not keep the process alive.
napi_value PollEvents(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const uint32_t id = a.Uint32(0), events = a.Uint32(1);
  const bool ref = a.Int32(2) != 0;
  if (!a.ok || (events & ~static_cast<uint32_t>(kAllEvents)) != 0) return a.Return(-EINVAL);
  Poll* p = Get(a.inst, id);
  if (p == nullptr) return a.Return(-EBADF);
  if (ref)
    uv_ref(Base(p));
  else
    uv_unref(Base(p));
  return a.Return(events == 0 ? uv_poll_stop(Handle(p))
                              : uv_poll_start(Handle(p), static_cast<int>(events), OnEvent));
}

// pollClose(id) -> 0 or -errno. No event is delivered afterwards, and the descriptor may be closed
// immediately.
napi_value PollClose(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const uint32_t id = a.Uint32(0);
  if (!a.ok) return a.Return(-EINVAL);
  Poll* p = Get(a.inst, id);
  if (p == nullptr) return a.Return(-EBADF);
  Close(p);
  return a.Return(0);
}

int64_t NowNs() {
  timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * int64_t{1000000000} + t.tv_nsec;
}

// pollSpin(ns) -> 1 if the event loop has something to do, 0 if not within `ns`, or -errno. Waits
// without sleeping, at most 1 ms.
napi_value PollSpin(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const uint32_t ns = a.Uint32(0);
  if (!a.ok || ns > 1000000) return a.Return(-EINVAL);
  void* loop = nullptr;
  if (napi_get_uv_event_loop(env, reinterpret_cast<struct uv_loop_s**>(&loop)) != napi_ok)
    return a.Return(-ENXIO);
  const auto* l = static_cast<const uv_loop_s*>(loop);
  // 0: an immediate or a closed handle waits, or a timer is due.
  if (uv_backend_timeout(l) == 0) return a.Return(1);
  // libuv's epoll descriptor is readable when one of its descriptors has an event.
  pollfd p = {uv_backend_fd(l), POLLIN, 0};
  const int64_t end = NowNs() + ns;
  do {
    if (poll(&p, 1, 0) > 0) return a.Return(1);
  } while (NowNs() < end);
  return a.Return(0);
}

}  // namespace

bool Instance::Polled(int fd) const {
  for (uint32_t i = 0; i < pollSlots; i++)
    if (polls[i] != nullptr && !polls[i]->closing && polls[i]->fd == fd) return true;
  return false;
}

void PollsEnd(Instance* inst) {
  inst->ending = true;
  for (uint32_t i = 0; i < inst->pollSlots; i++)
    if (inst->polls[i] != nullptr) Close(inst->polls[i]);
  Ended(inst);
}

const Entry kPollEntries[] = {{"pollCallback", PollCallback},
                              {"pollOpen", PollOpen},
                              {"pollEvents", PollEvents},
                              {"pollClose", PollClose},
                              {"pollSpin", PollSpin},
                              {nullptr, nullptr}};

}  // namespace tapnic
