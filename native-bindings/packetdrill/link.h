// The Unix socket to `tapnic packetdrill`: requests and replies in frames, little-endian.
//
//   request  0 size of the frame | 4 id | 8 operation | 12 descriptor | 16 time, 64 bits
//            24 a | 28 b | 32 c | 36 1: the call must not wait | 40 payload
//   reply    0 size of the frame | 4 id | 8 result, or a negated errno | 12 1: the call had waited
//            16 time, 64 bits | 24 a | 28 zero | 32 payload
//
// Times are microseconds of the stack's clock. Replies may arrive in any order; the id identifies
// the request. The reply to a blocking call is sent when the call completes.
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum link_op {
  OP_HELLO = 1,    // payload: settings
  OP_SOCKET = 2,   // a, b, c
  OP_BIND = 3,     // payload: address
  OP_LISTEN = 4,   // a: backlog
  OP_ACCEPT = 5,   // reply: address
  OP_CONNECT = 6,  // payload: address
  OP_RECV = 7,     // a: bytes, b: flags; reply: a bytes of address, data
  OP_SEND = 8,     // a: bytes of address, b: flags; payload: address, data
  OP_FCNTL = 9,    // a: command, b: argument
  OP_IOCTL = 10,   // a: request, b: argument; reply: value
  OP_CLOSE = 11,
  OP_SHUTDOWN = 12,    // a: how
  OP_GETSOCKOPT = 13,  // a: level, b: name, c: room; reply: value
  OP_SETSOCKOPT = 14,  // a: level, b: name; payload: value
  OP_POLL = 15,        // a: milliseconds; payload and reply: descriptor, events, revents each
  OP_INJECT = 16,      // payload: packet
  OP_RECEIVE = 17,     // reply: 64-bit time, packet; result 0: no packet will arrive
  OP_SLEEP = 18,       // sleeps until the request's time
  OP_SHIM =
      19,  // payload: words, each ends with 0; reply: a bytes for stdout, the rest for stderr
};

enum {
  LINK_REQUEST = 40,
  LINK_REPLY = 32,
  LINK_VERSION = 1,
  // Maximum size of a payload in bytes.
  LINK_PAYLOAD_MAX = 4 << 20,
};

struct request {
  enum link_op op;
  int fd;
  int64_t now;
  int32_t a, b, c;
  // Fail with EDEADLK instead of waiting.
  bool no_wait;
  // The payload, in two parts.
  const void *part[2];
  size_t len[2];
};

struct reply {
  int32_t result;
  bool late;
  int64_t now;
  int32_t a;
  // The caller frees it with link_free.
  uint8_t *payload;
  size_t len;
};

// Connects to the process that listens at `path`. Returns 0, or -1 with errno.
int link_open(const char *path);
void link_close(void);

// Sends `q` and waits for its reply, at most `timeout_ms` of real time. Returns 0, or -1 with
// errno: ETIMEDOUT, EPROTO for an invalid frame, EMSGSIZE, ECONNRESET. After an error the link is
// closed. Several threads may call it at the same time.
int link_call(const struct request *q, struct reply *r, int timeout_ms);
void link_free(struct reply *r);
