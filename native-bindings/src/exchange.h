// The exchange between the workers of an instance. Each worker has one queue of a TAP interface,
// from which Linux may also give it frames of other workers, and an inbox, into which the others put
// its frames. An inbox is a pair of sockets, so it is bounded, and no memory is shared.
#pragma once

#include <stdint.h>

#include "flow_owner.h"
#include "instance.h"
#include "tn_wire.h"

namespace tapnic {

constexpr uint32_t kMaxWorkers = 64;

// The inboxes. Each instance that joined and the one that opened it have a reference.
struct Exchange {
  FlowRule rule;
  int readEnd[kMaxWorkers];  // -1: taken by the worker that joined
  int writeEnd[kMaxWorkers];
  uint32_t refs;  // guarded by a mutex in exchange.cpp
};

// One worker's place on the exchange: the wire of its NIC.
class Steer final : public tn::WireSource {
 public:
  Steer(Exchange* exchange, uint32_t self, int tap, int inbox, bool vnet)
      : exchange_(exchange), self_(self), tap_(tap), inbox_(inbox), vnet_(vnet) {}

  // Receives the next frame of this worker, from the TAP or the inbox. Puts frames of others into
  // their inboxes. Returns the length, or -errno.
  long Readv(const iovec* iov, int iovcnt) override;

  int tap() const { return tap_; }
  Exchange* exchange() const { return exchange_; }

  double handedOver = 0;  // frames put into inboxes
  double full = 0;        // frames lost because an inbox was full
  double taken = 0;       // frames from the own inbox

 private:
  long FromInbox(const iovec* iov, int iovcnt);
  void Put(uint32_t worker, const iovec* iov, int iovcnt);

  Exchange* exchange_;
  uint32_t self_;
  int tap_, inbox_;
  bool vnet_;
  uint32_t reads_ = 0;
};

}  // namespace tapnic
