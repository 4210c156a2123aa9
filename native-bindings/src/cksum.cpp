// The Internet checksum for TypeScript.
#include "cksum.h"

#include <errno.h>

#include "napi_args.h"

namespace tapnic {

namespace {

// cksum(off, len, sum, scalar) -> 0 to 0xffff, or -EINVAL, or -EFAULT outside the arena.
//
// Adds arena bytes as big-endian 16-bit words to `sum` (at most 0xffff), folded, not complemented;
// a last odd byte is padded with zero. scalar 1 selects the portable loop, for comparison.
napi_value Cksum(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const uint64_t off = a.Offset(0), len = a.Offset(1);
  const uint32_t sum = a.Uint32(2);
  const bool scalar = a.Int32(3) != 0;
  if (!a.ok || sum > 0xffff) return a.Return(-EINVAL);
  const Arena* arena = a.inst->arena;
  if (arena == nullptr || off > arena->size || len > arena->size - off) return a.Return(-EFAULT);
  const uint8_t* p = arena->base + off;
  return a.Return(scalar ? CksumAddScalar(p, len, sum) : CksumAdd(p, len, sum));
}

}  // namespace

const Entry kCksumEntries[] = {{"cksum", Cksum}, {nullptr, nullptr}};

}  // namespace tapnic
