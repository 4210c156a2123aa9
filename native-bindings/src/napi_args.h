// Arguments and results of the addon's functions: integers and typed arrays, nothing else.
//
// JavaScript is not trusted. Every getter checks type and range, and clears `ok` instead of
// converting. A fraction, a NaN, a number out of range or another kind of array is a bad argument,
// for which the function returns -EINVAL. Nothing here throws a JavaScript exception.
#pragma once

#include <node_api.h>
#include <stddef.h>
#include <stdint.h>

#include "instance.h"

namespace tapnic {

template <typename T>
struct Span {
  T* p = nullptr;
  size_t len = 0;  // elements
};

// Reads an element, which another JavaScript thread may change, exactly once, so that the checked
// value is the one used.
inline uint32_t Once(const uint32_t* p) { return __atomic_load_n(p, __ATOMIC_RELAXED); }

template <size_t N>
class Args {
 public:
  bool ok = true;
  Instance* inst = nullptr;

  Args(napi_env env, napi_callback_info info) : env_(env) {
    size_t argc = N;
    void* data = nullptr;
    ok = napi_get_cb_info(env, info, &argc, v_, nullptr, &data) == napi_ok && argc >= N;
    inst = static_cast<Instance*>(data);
  }

  // An integer argument in [min, max]; both are within +-2^53.
  double Whole(size_t i, double min, double max) {
    double d = 0;
    if (!ok || napi_get_value_double(env_, v_[i], &d) != napi_ok || !(d >= min && d <= max) ||
        d != static_cast<double>(static_cast<int64_t>(d))) {
      ok = false;
      return 0;
    }
    return d;
  }
  int32_t Int32(size_t i) { return static_cast<int32_t>(Whole(i, INT32_MIN, INT32_MAX)); }
  uint32_t Uint32(size_t i) { return static_cast<uint32_t>(Whole(i, 0, UINT32_MAX)); }
  // A byte offset or length argument: 0 to 2^53-1.
  uint64_t Offset(size_t i) { return static_cast<uint64_t>(Whole(i, 0, 9007199254740991.0)); }

  Span<uint8_t> Bytes(size_t i) { return Typed<uint8_t>(i, napi_uint8_array); }
  Span<uint32_t> Words(size_t i) { return Typed<uint32_t>(i, napi_uint32_array); }
  Span<int32_t> Ints(size_t i) { return Typed<int32_t>(i, napi_int32_array); }
  Span<double> Doubles(size_t i) { return Typed<double>(i, napi_float64_array); }
  napi_value Function(size_t i) {
    napi_valuetype type = napi_undefined;
    if (!ok || napi_typeof(env_, v_[i], &type) != napi_ok || type != napi_function) ok = false;
    return v_[i];
  }

  napi_value Return(int64_t n) {
    napi_value r = nullptr;
    if (n >= INT32_MIN && n <= INT32_MAX)
      napi_create_int32(env_, static_cast<int32_t>(n), &r);
    else
      napi_create_double(env_, static_cast<double>(n), &r);
    return r;
  }

 private:
  template <typename T>
  Span<T> Typed(size_t i, napi_typedarray_type want) {
    napi_typedarray_type type;
    size_t len = 0;
    void* p = nullptr;
    if (!ok ||
        napi_get_typedarray_info(env_, v_[i], &type, &len, &p, nullptr, nullptr) != napi_ok ||
        type != want) {
      ok = false;
      return {};
    }
    return {static_cast<T*>(p), p == nullptr ? 0 : len};
  }

  napi_env env_;
  napi_value v_[N] = {};
};

}  // namespace tapnic
