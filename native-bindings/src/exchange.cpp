// The exchange between the workers of an instance: see exchange.h.
#include "exchange.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <mutex>
#include <new>

#include "napi_args.h"

namespace tapnic {

namespace {

constexpr int kInboxBytes = 4 << 20;  // an inbox, with the kernel's cost of each frame
constexpr int kForeignMax = 64;       // frames handed over in one read
constexpr uint32_t kInboxFirst = 16;  // every n-th read looks into the inbox first
constexpr uint32_t kMaxExchanges = 16;
constexpr size_t kVnetHdr = 12;

std::mutex lock;
Exchange* exchanges[kMaxExchanges];

// Drops a reference, with the lock held.
void Drop(Exchange* e) {
  if (--e->refs > 0) return;
  for (uint32_t i = 0; i < e->rule.workers; i++) {
    if (e->readEnd[i] >= 0) close(e->readEnd[i]);
    if (e->writeEnd[i] >= 0) close(e->writeEnd[i]);
  }
  for (Exchange*& slot : exchanges)
    if (slot == e) slot = nullptr;
  delete e;
}

// Opens the inboxes. Returns 0 or -errno.
int OpenInboxes(Exchange* e) {
  for (uint32_t i = 0; i < e->rule.workers; i++) {
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) != 0)
      return -errno;
    e->readEnd[i] = fds[0];
    e->writeEnd[i] = fds[1];
    // The limit of the system applies without NET_ADMIN.
    if (setsockopt(fds[1], SOL_SOCKET, SO_SNDBUFFORCE, &kInboxBytes, sizeof kInboxBytes) != 0)
      setsockopt(fds[1], SOL_SOCKET, SO_SNDBUF, &kInboxBytes, sizeof kInboxBytes);
  }
  return 0;
}

// exchangeOpen(workers, port, seed) -> id for exchangeJoin in any isolate of this process, or -errno.
napi_value ExchangeOpen(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  FlowRule rule = {};
  rule.workers = static_cast<uint32_t>(a.Whole(0, 2, kMaxWorkers));
  rule.port = static_cast<uint32_t>(a.Whole(1, 1, 65535));
  rule.seed = a.Uint32(2);
  if (!a.ok) return a.Return(-EINVAL);
  if (a.inst->opened != nullptr) return a.Return(-EBUSY);
  const std::lock_guard<std::mutex> guard(lock);
  uint32_t id = 0;
  while (id < kMaxExchanges && exchanges[id] != nullptr) id++;
  if (id == kMaxExchanges) return a.Return(-EMFILE);
  auto* e = new (std::nothrow) Exchange;
  if (e == nullptr) return a.Return(-ENOMEM);
  *e = {rule, {}, {}, 1};
  memset(e->readEnd, 0xff, sizeof e->readEnd);
  memset(e->writeEnd, 0xff, sizeof e->writeEnd);
  exchanges[id] = e;
  const int error = OpenInboxes(e);
  if (error != 0) {
    Drop(e);
    return a.Return(error);
  }
  a.inst->opened = e;
  return a.Return(id);
}

// exchangeJoin(id, worker, tap, vnetHdr) -> descriptor of the worker's inbox, which the caller polls
// and closes; or -errno. From now on a read from the queue `tap` returns the frames of this worker.
// -ENOENT: no such exchange or worker, or it has joined. -EBUSY: this isolate is on an exchange.
napi_value ExchangeJoin(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const uint32_t id = a.Uint32(0), worker = a.Uint32(1);
  const int tap = a.Int32(2);
  const int vnetHdr = a.Int32(3);
  if (!a.ok || (vnetHdr != 0 && vnetHdr != 12)) return a.Return(-EINVAL);
  Instance* inst = a.inst;
  if (!inst->Owns(tap)) return a.Return(-EBADF);
  if (inst->steer != nullptr) return a.Return(-EBUSY);
  const std::lock_guard<std::mutex> guard(lock);
  Exchange* e = id < kMaxExchanges ? exchanges[id] : nullptr;
  if (e == nullptr || worker >= e->rule.workers || e->readEnd[worker] < 0)
    return a.Return(-ENOENT);
  const int inbox = inst->Own(e->readEnd[worker]);
  e->readEnd[worker] = -1;
  if (inbox < 0) return a.Return(inbox);
  inst->steer = new (std::nothrow) Steer(e, worker, tap, inbox, vnetHdr != 0);
  if (inst->steer == nullptr) return a.Return(-ENOMEM);
  e->refs++;
  return a.Return(inbox);
}

// exchangeStats(out: Float64Array(3)) -> 3, or -errno. Stores the frames handed over, those lost
// because an inbox was full, and those from the own inbox. -ENXIO: this isolate has not joined.
napi_value ExchangeStats(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const Span<double> out = a.Doubles(0);
  if (!a.ok || out.len < 3) return a.Return(-EINVAL);
  const Steer* s = a.inst->steer;
  if (s == nullptr) return a.Return(-ENXIO);
  out.p[0] = s->handedOver;
  out.p[1] = s->full;
  out.p[2] = s->taken;
  return a.Return(3);
}

// exchangeLeave() -> 0. Reads from the queue return all its frames again. The inboxes are closed when
// the last isolate has left.
napi_value ExchangeLeave(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  ExchangeEnd(a.inst);
  return a.Return(0);
}

// flowOwner(frame: Uint8Array, workers, port, seed) -> the worker, -1 for all. For tests.
napi_value FlowOwnerOf(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const Span<uint8_t> frame = a.Bytes(0);
  FlowRule rule = {};
  rule.workers = static_cast<uint32_t>(a.Whole(1, 1, kMaxWorkers));
  rule.port = static_cast<uint32_t>(a.Whole(2, 1, 65535));
  rule.seed = a.Uint32(3);
  if (!a.ok) return a.Return(-EINVAL);
  return a.Return(FlowOwner(rule, frame.p, frame.len < kFlowBytes ? frame.len : kFlowBytes));
}

// Copies the first bytes of a frame of `len` bytes, after `skip` bytes, to `to`. Returns their number.
size_t CopyHead(const iovec* iov, int iovcnt, size_t len, size_t skip, uint8_t* to) {
  size_t done = 0;
  len = len < skip ? 0 : len - skip;
  if (len > kFlowBytes) len = kFlowBytes;
  for (int i = 0; i < iovcnt && done < len; i++) {
    size_t n = iov[i].iov_len;
    const size_t off = skip < n ? skip : n;
    skip -= off;
    n -= off;
    if (n > len - done) n = len - done;
    memcpy(to + done, static_cast<const uint8_t*>(iov[i].iov_base) + off, n);
    done += n;
  }
  return done;
}

// Lists the first `len` bytes of the pieces in `to`. Returns the number of pieces.
int Trim(const iovec* iov, int iovcnt, size_t len, iovec* to) {
  int n = 0;
  for (; n < iovcnt && len > 0; n++) {
    to[n] = iov[n];
    if (to[n].iov_len > len) to[n].iov_len = len;
    len -= to[n].iov_len;
  }
  return n;
}

}  // namespace

void Steer::Put(uint32_t worker, const iovec* iov, int iovcnt) {
  if (tn::WireWritev(exchange_->writeEnd[worker], iov, iovcnt) >= 0)
    handedOver++;
  else
    full++;
}

long Steer::FromInbox(const iovec* iov, int iovcnt) {
  const long n = tn::WireReadv(inbox_, iov, iovcnt);
  // -EIO: the exchange is being closed.
  if (n < 0) return -EAGAIN;
  taken++;
  return n;
}

long Steer::Readv(const iovec* iov, int iovcnt) {
  // A queue that is never empty must not keep the inbox waiting.
  if (++reads_ % kInboxFirst == 0) {
    const long n = FromInbox(iov, iovcnt);
    if (n >= 0) return n;
  }
  uint8_t head[kFlowBytes];
  iovec frame[kMaxSegs];
  for (int foreign = 0; foreign < kForeignMax; foreign++) {
    const long n = tn::WireReadv(tap_, iov, iovcnt);
    if (n == -EAGAIN) return FromInbox(iov, iovcnt);
    if (n < 0) return n;
    const auto len = static_cast<size_t>(n);
    const size_t bytes = CopyHead(iov, iovcnt, len, vnet_ ? kVnetHdr : 0, head);
    const int owner = FlowOwner(exchange_->rule, head, bytes);
    if (owner == static_cast<int>(self_)) return n;
    const int pieces = Trim(iov, iovcnt, len, frame);
    if (owner != kEveryWorker) {
      Put(static_cast<uint32_t>(owner), frame, pieces);
      continue;
    }
    for (uint32_t i = 0; i < exchange_->rule.workers; i++)
      if (i != self_) Put(i, frame, pieces);
    return n;
  }
  // The queue stays readable: the loop calls again.
  return -EAGAIN;
}

void ExchangeEnd(Instance* inst) {
  const std::lock_guard<std::mutex> guard(lock);
  if (inst->steer != nullptr) {
    TnsUnsteer(inst, inst->steer);
    Exchange* e = inst->steer->exchange();
    delete inst->steer;
    inst->steer = nullptr;
    Drop(e);
  }
  if (inst->opened != nullptr) Drop(inst->opened);
  inst->opened = nullptr;
}

tn::WireSource* SteerOf(Instance* inst, int fd) {
  return inst->steer != nullptr && inst->steer->tap() == fd ? inst->steer : nullptr;
}

const Entry kExchangeEntries[] = {{"exchangeOpen", ExchangeOpen},
                                  {"exchangeJoin", ExchangeJoin},
                                  {"exchangeStats", ExchangeStats},
                                  {"exchangeLeave", ExchangeLeave},
                                  {"flowOwner", FlowOwnerOf},
                                  {nullptr, nullptr}};

}  // namespace tapnic
