// Names of interfaces and namespaces from JavaScript: bytes without a terminator.
#pragma once

#include <net/if.h>
#include <string.h>

#include "napi_args.h"

namespace tapnic {

// Copies a name of at most max-1 bytes and terminates it. Returns false for a name that the kernel
// or a path could misinterpret: empty, too long, ".", "..", or with '/', ':', '%', white space or
// control bytes.
inline bool PlainName(const Span<uint8_t>& name, char* out, size_t max) {
  if (name.len == 0 || name.len >= max) return false;
  for (size_t i = 0; i < name.len; i++) {
    const uint8_t c = name.p[i];
    if (c <= ' ' || c == 0x7f || c == '/' || c == ':' || c == '%') return false;
    out[i] = static_cast<char>(c);
  }
  out[name.len] = '\0';
  return strcmp(out, ".") != 0 && strcmp(out, "..") != 0;
}

inline bool IfName(const Span<uint8_t>& name, char (&out)[IFNAMSIZ]) {
  return PlainName(name, out, IFNAMSIZ);
}

}  // namespace tapnic
