// The Node-API functions of the native build of the NIC `tn`: devices by number, registers and
// events as integers. A call runs the device until it has no work left. The device never calls
// JavaScript.
#include <errno.h>
#include <time.h>

#include <new>

#include "napi_args.h"
#include "tn_device.h"

namespace tapnic {

// A device and the arena that contains its memory.
struct Tn {
  Arena* arena;
  tn::Device dev;
  Tn(Arena* a, const tn::Config& config) : arena(a), dev(config) { arena->Ref(); }
  ~Tn() { arena->Unref(); }
};

namespace {

static_assert(tn::TN_P_COUNT == tn::TN_P_REASONS + tn::TN_REASON_COUNT);

constexpr double kMaxWhole = 9007199254740991.0;  // 2^53 - 1

bool Whole(double d, double max) {
  return d >= 0 && d <= max && d == static_cast<double>(static_cast<uint64_t>(d));
}

// The largest value of tnOpen's parameter `i`.
double ParamMax(uint32_t i) {
  switch (i) {
    case tn::TN_P_VNET:
    case tn::TN_P_HAS_TIMER:
    case tn::TN_P_OWN_TIME:
      return 1;
    case tn::TN_P_CAPTURE_BYTES:
    case tn::TN_P_CAPTURE_UNIT:
      return UINT32_MAX;
    default:
      return i >= tn::TN_P_REASONS ? UINT16_MAX : kMaxWhole;
  }
}

// Fills `config` from `params`. Returns 0 or -errno.
int Configure(const double* params, const Arena* arena, tn::Config* config) {
  double p[tn::TN_P_COUNT];
  for (uint32_t i = 0; i < tn::TN_P_COUNT; i++) {
    p[i] = params[i];
    if (!Whole(p[i], ParamMax(i))) return -EINVAL;
  }
  const auto ramBytes = static_cast<uint64_t>(p[tn::TN_P_RAM_BYTES]);
  const auto capOff = static_cast<uint64_t>(p[tn::TN_P_CAPTURE_OFF]);
  const auto capBytes = static_cast<uint32_t>(p[tn::TN_P_CAPTURE_BYTES]);
  if (ramBytes > arena->size) return -EFAULT;
  if (capBytes > 0) {
    if (capBytes < 4096 || capBytes % 8 != 0 || capOff % 8 != 0) return -EINVAL;
    const uint64_t all = uint64_t{capBytes} + tn::CAPTURE_IDS_ALL;
    if (capOff > arena->size || all > arena->size - capOff) return -EFAULT;
  }
  config->vnet = p[tn::TN_P_VNET] == 1;
  config->hasTimer = p[tn::TN_P_HAS_TIMER] == 1;
  config->mem = arena->base;
  config->ramBase = static_cast<uint64_t>(p[tn::TN_P_RAM_BASE]);
  config->ramBytes = ramBytes;
  config->capture = capBytes == 0 ? nullptr : arena->base + capOff;
  config->captureBytes = capBytes;
  config->captureUnit = static_cast<uint32_t>(p[tn::TN_P_CAPTURE_UNIT]);
  for (uint32_t i = 0; i < tn::TN_REASON_COUNT; i++)
    config->reasons[i] = static_cast<uint16_t>(p[tn::TN_P_REASONS + i]);
  config->ownTime = p[tn::TN_P_OWN_TIME] == 1;
  timespec ts;
  clock_gettime(CLOCK_MONOTONIC, &ts);
  config->monotonicBias =
      ts.tv_sec * int64_t{1000000000} + ts.tv_nsec - static_cast<int64_t>(p[tn::TN_P_NOW]);
  return 0;
}

// tnOpen(fd, mac: Uint8Array(6), params: Float64Array) -> id, or -errno. TN_P_* index `params`.
//
// Creates a device on the wire fd, which the addon must have opened and the caller keeps. Its
// memory is in the arena allocated or attached last. -EFAULT: RAM or capture ring is outside the
// arena. Closing fd disconnects the device.
napi_value TnOpen(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint8_t> mac = a.Bytes(1);
  const Span<double> params = a.Doubles(2);
  if (!a.ok || mac.len != 6 || params.len != tn::TN_P_COUNT) return a.Return(-EINVAL);
  Instance* inst = a.inst;
  if (!inst->Owns(fd)) return a.Return(-EBADF);
  if (inst->arena == nullptr) return a.Return(-ENXIO);
  tn::Config config = {};
  config.fd = fd;
  config.source = SteerOf(inst, fd);
  memcpy(config.mac, mac.p, sizeof config.mac);
  const int error = Configure(params.p, inst->arena, &config);
  if (error != 0) return a.Return(error);
  uint32_t id = 0;
  while (id < kMaxTns && inst->tns[id] != nullptr) id++;
  if (id == kMaxTns) return a.Return(-EMFILE);
  inst->tns[id] = new (std::nothrow) Tn(inst->arena, config);
  return a.Return(inst->tns[id] == nullptr ? -ENOMEM : static_cast<int64_t>(id));
}

Tn* Get(Instance* inst, uint32_t id) { return id < kMaxTns ? inst->tns[id] : nullptr; }

// tnClose(id) -> 0 or -errno. The wire's descriptor stays open.
napi_value TnClose(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const uint32_t id = a.Uint32(0);
  if (!a.ok) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr) return a.Return(-EBADF);
  a.inst->tns[id] = nullptr;
  delete t;
  return a.Return(0);
}

// tnRewire(id, fd) -> 0 or -errno. Connects the device to another wire; frames that wait on the old
// one stay there. The addon must have opened fd.
napi_value TnRewire(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0);
  const int fd = a.Int32(1);
  if (!a.ok) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr || !a.inst->Owns(fd)) return a.Return(-EBADF);
  t->dev.Rewire(fd, SteerOf(a.inst, fd));
  return a.Return(0);
}

// tnRead(id, off) -> the value of the register, 0 to 2^32-1.
napi_value TnRead(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0), off = a.Uint32(1);
  Tn* t = a.ok ? Get(a.inst, id) : nullptr;
  return a.Return(t == nullptr ? 0xffffffff : t->dev.Read(off));
}

// tnWrite(id, off, value) -> TN_DO_* flags, or -errno.
napi_value TnWrite(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const uint32_t id = a.Uint32(0), off = a.Uint32(1), value = a.Uint32(2);
  if (!a.ok) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  return a.Return(t == nullptr ? -EBADF : static_cast<int64_t>(t->dev.Write(off, value)));
}

// tnEvent(id, event) -> TN_DO_* flags, or -errno. `event` is one of TN_EV_*.
napi_value TnEvent(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0), event = a.Uint32(1);
  if (!a.ok || event >= tn::TN_EV_COUNT) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr) return a.Return(-EBADF);
  return a.Return(t->dev.OnEvent(event));
}

// tnTime(id, nowNs) -> 0 or -errno. Sets the machine's time. Must be called before other calls
// while TN_ITR is not 0.
napi_value TnTime(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0);
  const uint64_t now = a.Offset(1);
  if (!a.ok) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr) return a.Return(-EBADF);
  t->dev.nowNs = static_cast<int64_t>(now);
  return a.Return(0);
}

// tnTimer(id) -> the deadline of the last TN_DO_TIMER, ns of the machine's time; or -errno.
napi_value TnTimer(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const uint32_t id = a.Uint32(0);
  Tn* t = a.ok ? Get(a.inst, id) : nullptr;
  return a.Return(t == nullptr ? -EBADF : t->dev.timerNs);
}

// tnStats(id, out: Float64Array) -> number of statistics stored in `out`, or -errno.
napi_value TnStats(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0);
  const Span<double> out = a.Doubles(1);
  if (!a.ok || out.len < tn::TN_NSTATS) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr) return a.Return(-EBADF);
  memcpy(out.p, t->dev.stats, sizeof t->dev.stats);
  return a.Return(static_cast<int64_t>(tn::TN_NSTATS));
}

// tnReasons(id, out: Float64Array) -> TN_REASON_COUNT, or -errno. Stores the counts since the last
// call in `out`, indexed by TN_REASON_*, and clears them.
napi_value TnReasons(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const uint32_t id = a.Uint32(0);
  const Span<double> out = a.Doubles(1);
  if (!a.ok || out.len < tn::TN_REASON_COUNT) return a.Return(-EINVAL);
  Tn* t = Get(a.inst, id);
  if (t == nullptr) return a.Return(-EBADF);
  for (uint32_t i = 0; i < tn::TN_REASON_COUNT; i++) {
    out.p[i] = t->dev.reasons[i];
    t->dev.reasons[i] = 0;
  }
  return a.Return(static_cast<int64_t>(tn::TN_REASON_COUNT));
}

}  // namespace

void TnsEnd(Instance* inst) {
  for (Tn*& t : inst->tns) {
    delete t;
    t = nullptr;
  }
}

void TnsUnplug(Instance* inst, int fd) {
  for (Tn* t : inst->tns)
    if (t != nullptr && t->dev.fd() == fd) t->dev.Unplug();
}

void TnsUnsteer(Instance* inst, const tn::WireSource* source) {
  for (Tn* t : inst->tns)
    if (t != nullptr && t->dev.source() == source) t->dev.Rewire(t->dev.fd(), nullptr);
}

const Entry kTnEntries[] = {{"tnOpen", TnOpen},     {"tnClose", TnClose},
                            {"tnRewire", TnRewire}, {"tnRead", TnRead},
                            {"tnWrite", TnWrite},   {"tnEvent", TnEvent},
                            {"tnTime", TnTime},     {"tnTimer", TnTimer},
                            {"tnStats", TnStats},   {"tnReasons", TnReasons},
                            {nullptr, nullptr}};

}  // namespace tapnic
