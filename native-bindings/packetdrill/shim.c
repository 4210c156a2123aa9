// The commands sysctl, sockstat, tcpdrop and ifconfig, selected by the program's name. Sends the
// command to the `tapnic packetdrill` process at TAPNIC_PACKETDRILL and prints the output. It is a
// small program and not a script, because test scripts call it thousands of times.
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "link.h"

enum { kTimeoutMs = 10000 };

static int fail(const char *name, const char *what) {
  fprintf(stderr, "%s: tapnic: %s\n", name, what);
  return 1;
}

int main(int argc, char **argv) {
  const char *name = argc > 0 ? basename(argv[0]) : "shim";
  const char *path = getenv("TAPNIC_PACKETDRILL");
  if (path == NULL || *path == '\0') return fail(name, "TAPNIC_PACKETDRILL is not set");
  size_t len = strlen(name) + 1;
  for (int i = 1; i < argc; i++) len += strlen(argv[i]) + 1;
  if (len > LINK_PAYLOAD_MAX) return fail(name, "too many words");
  char *words = malloc(len);
  if (words == NULL) return fail(name, strerror(errno));
  char *at = stpcpy(words, name) + 1;
  for (int i = 1; i < argc; i++) at = stpcpy(at, argv[i]) + 1;
  if (link_open(path) != 0) return fail(name, strerror(errno));
  struct request q = {.op = OP_SHIM, .fd = -1, .part = {words}, .len = {len}};
  struct reply r;
  if (link_call(&q, &r, kTimeoutMs) != 0) return fail(name, strerror(errno));
  const size_t out = r.a >= 0 && (size_t)r.a <= r.len ? (size_t)r.a : r.len;
  fwrite(r.payload, 1, out, stdout);
  fwrite(r.payload + out, 1, r.len - out, stderr);
  free(words);
  link_free(&r);
  if (fflush(stdout) != 0) return 1;
  return r.result < 0 || r.result > 255 ? 1 : r.result;
}
