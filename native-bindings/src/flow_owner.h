// Which worker of an instance a received frame belongs to. src/net/flow_owner.ts is the reference.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace tapnic {

// Bytes of a frame that FlowOwner reads at most: Ethernet, an outer header with options or extension
// headers, ICMP, and the quoted packet.
constexpr size_t kFlowBytes = 256;

constexpr int kEveryWorker = -1;

struct FlowRule {
  uint32_t workers;
  uint32_t port;  // TCP port whose connections are distributed
  uint32_t seed;
};

// Returns the number of the worker, or kEveryWorker for ARP, neighbour and router discovery, and
// fragments of TCP. `len` is the number of bytes at `p`, at most kFlowBytes.
//
// A connection to the served port belongs to the worker that a hash of its addresses and ports
// selects, and so do the ICMP errors that quote it. Everything else belongs to worker 0.
int FlowOwner(const FlowRule& rule, const uint8_t* p, size_t len);

}  // namespace tapnic
