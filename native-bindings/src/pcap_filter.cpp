// The compiler for filter expressions of libpcap, which is loaded at run time: neither the build nor
// the addon needs it. It runs on libuv's thread pool, because a long expression takes a while. The
// caller keeps names out of the expression, which libpcap would ask a name server for.
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <mutex>
#include <new>

#include "napi_args.h"

namespace tapnic {

namespace {

constexpr size_t kMaxText = 8191;
constexpr size_t kErrorSize = 256;  // PCAP_ERRBUF_SIZE

// struct bpf_insn and struct bpf_program of pcap/bpf.h.
struct BpfInsn {
  uint16_t code;
  uint8_t jt;
  uint8_t jf;
  uint32_t k;
};
struct BpfProgram {
  unsigned int bf_len;
  BpfInsn* bf_insns;
};

// The functions of libpcap that are used, with the prototypes of pcap/pcap.h.
struct Libpcap {
  void* (*fopenOffline)(FILE*, char* errbuf);
  int (*compile)(void* p, BpfProgram*, const char*, int optimize, uint32_t netmask);
  void (*freecode)(BpfProgram*);
  char* (*geterr)(void* p);
  void (*close)(void* p);
};

template <typename Fn>
bool Find(void* lib, const char* name, Fn* fn) {
  *fn = reinterpret_cast<Fn>(dlsym(lib, name));
  return *fn != nullptr;
}

// The library, loaded by the first caller; null if the machine lacks it. Call with `pcapLock` held.
const Libpcap* Load() {
  static bool tried = false, found = false;
  static Libpcap p;
  if (tried) return found ? &p : nullptr;
  tried = true;
  void* lib = nullptr;
  for (const char* name : {"libpcap.so.0.8", "libpcap.so.1", "libpcap.so"})
    if (lib == nullptr) lib = dlopen(name, RTLD_NOW | RTLD_LOCAL);
  found = lib != nullptr && Find(lib, "pcap_fopen_offline", &p.fopenOffline) &&
          Find(lib, "pcap_compile", &p.compile) && Find(lib, "pcap_freecode", &p.freecode) &&
          Find(lib, "pcap_geterr", &p.geterr) && Find(lib, "pcap_close", &p.close);
  return found ? &p : nullptr;
}

// Versions before 1.8 must not compile on two threads at once.
std::mutex pcapLock;

// An empty capture of Ethernet frames with the snap length 65535. A handle of a file refuses
// expressions that only a Linux socket can answer (`inbound`), as `tcpdump -r` does.
const uint8_t kEmptyPcap[24] = {0xd4, 0xc3, 0xb2, 0xa1, 2, 0, 4,    0,    0, 0, 0, 0,
                                0,    0,    0,    0,    0xff, 0xff, 0, 0, 1, 0, 0, 0};

}  // namespace

struct FilterJob {
  Instance* inst = nullptr;
  napi_async_work work = nullptr;
  napi_ref callback = nullptr;
  bool done = false;
  int error = 0;
  uint32_t insns = 0;
  BpfInsn* program = nullptr;  // malloc
  char text[kMaxText + 1] = {};
  char why[kErrorSize] = {};
};

namespace {

void Delete(FilterJob* j) {
  free(j->program);
  delete j;
}

void Why(FilterJob* j, const char* text) {
  j->error = -EINVAL;
  snprintf(j->why, sizeof j->why, "%s", text);
}

// Keeps the program of `j`.
void Keep(FilterJob* j, const BpfProgram& prog) {
  j->program = static_cast<BpfInsn*>(malloc((prog.bf_len + 1) * sizeof(BpfInsn)));
  if (j->program == nullptr) {
    j->error = -ENOMEM;
    return;
  }
  memcpy(j->program, prog.bf_insns, prog.bf_len * sizeof(BpfInsn));
  j->insns = prog.bf_len;
}

void Execute(napi_env, void* data) {
  auto* j = static_cast<FilterJob*>(data);
  const std::lock_guard<std::mutex> lock(pcapLock);
  const Libpcap* lib = Load();
  if (lib == nullptr) {
    j->error = -ENOENT;
    return;
  }
  uint8_t header[sizeof kEmptyPcap];
  memcpy(header, kEmptyPcap, sizeof header);
  FILE* file = fmemopen(header, sizeof header, "r");
  if (file == nullptr) {
    j->error = -ENOMEM;
    return;
  }
  char errbuf[kErrorSize] = {};
  void* p = lib->fopenOffline(file, errbuf);
  if (p == nullptr) {
    fclose(file);
    return Why(j, errbuf);
  }
  BpfProgram prog = {};
  if (lib->compile(p, &prog, j->text, 1, 0) != 0) {
    Why(j, lib->geterr(p));
  } else {
    Keep(j, prog);
    lib->freecode(&prog);
  }
  lib->close(p);
}

void Complete(napi_env env, napi_status status, void* data) {
  auto* j = static_cast<FilterJob*>(data);
  if (status == napi_cancelled) j->error = -ECANCELED;
  j->done = true;
  napi_value cb = nullptr, recv = nullptr;
  const bool callable = napi_get_reference_value(env, j->callback, &cb) == napi_ok &&
                        cb != nullptr && napi_get_global(env, &recv) == napi_ok;
  napi_delete_reference(env, j->callback);
  napi_delete_async_work(env, j->work);
  // An exception stays pending, and Node reports it as uncaught.
  if (callable) napi_call_function(env, recv, cb, 0, nullptr, nullptr);
}

// filterCompile(text: Uint8Array, fn) -> 0 or -errno.
//
// Compiles a filter expression for Ethernet frames, of at most 8191 bytes without NUL. fn() is called
// when filterResult has the result. -EBUSY: a compilation is under way, or its result is not fetched.
napi_value FilterCompile(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const Span<uint8_t> text = a.Bytes(0);
  const napi_value fn = a.Function(1);
  if (!a.ok) return a.Return(-EINVAL);
  if (text.len > kMaxText) return a.Return(-E2BIG);
  if (text.len > 0 && memchr(text.p, 0, text.len) != nullptr) return a.Return(-EINVAL);
  if (a.inst->filterJob != nullptr) return a.Return(-EBUSY);
  auto* j = new (std::nothrow) FilterJob;
  if (j == nullptr) return a.Return(-ENOMEM);
  j->inst = a.inst;
  if (text.len > 0) memcpy(j->text, text.p, text.len);
  napi_value name = nullptr;
  if (napi_create_reference(env, fn, 1, &j->callback) != napi_ok) {
    delete j;
    return a.Return(-ENOMEM);
  }
  if (napi_create_string_latin1(env, "tapnic:filter", NAPI_AUTO_LENGTH, &name) != napi_ok ||
      napi_create_async_work(env, nullptr, name, Execute, Complete, j, &j->work) != napi_ok ||
      napi_queue_async_work(env, j->work) != napi_ok) {
    if (j->work != nullptr) napi_delete_async_work(env, j->work);
    napi_delete_reference(env, j->callback);
    delete j;
    return a.Return(-ENOMEM);
  }
  a.inst->filterJob = j;
  return a.Return(0);
}

// filterResult(program: Uint32Array, why: Uint8Array(256)) -> instructions, or -errno.
//
// Fetches the result of filterCompile: four words per instruction, code, jt, jf and k. -EINVAL: the
// expression is refused; why is libpcap's text, ended by NUL. -ENOENT: no libpcap. -E2BIG: program is
// too short. -EAGAIN: no compilation has ended.
napi_value FilterResult(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const Span<uint32_t> program = a.Words(0);
  const Span<uint8_t> why = a.Bytes(1);
  if (!a.ok || why.len < kErrorSize) return a.Return(-EINVAL);
  FilterJob* j = a.inst->filterJob;
  if (j == nullptr || !j->done) return a.Return(-EAGAIN);
  a.inst->filterJob = nullptr;
  int64_t result = j->error;
  if (result == 0 && program.len / 4 < j->insns) result = -E2BIG;
  if (result == 0) {
    for (uint32_t i = 0; i < j->insns; i++) {
      const BpfInsn& in = j->program[i];
      program.p[4 * i] = in.code;
      program.p[4 * i + 1] = in.jt;
      program.p[4 * i + 2] = in.jf;
      program.p[4 * i + 3] = in.k;
    }
    result = j->insns;
  }
  memcpy(why.p, j->why, kErrorSize);
  Delete(j);
  return a.Return(result);
}

}  // namespace

// A job that is still under way is left to its thread.
void FilterEnd(Instance* inst) {
  if (inst->filterJob != nullptr && inst->filterJob->done) Delete(inst->filterJob);
  inst->filterJob = nullptr;
}

const Entry kFilterEntries[] = {
    {"filterCompile", FilterCompile}, {"filterResult", FilterResult}, {nullptr, nullptr}};

}  // namespace tapnic
