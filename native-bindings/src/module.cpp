// The module: creation, exported functions and end of the instance of each isolate.
#include <unistd.h>

#include <new>

#include "napi_args.h"
#include "tn_regs.h"

namespace tapnic {

namespace {

void CleanupHook(napi_async_cleanup_hook_handle, void* data) {
  PollsEnd(static_cast<Instance*>(data));
}

void InstanceEnd(napi_env, void* data, void*) {
  auto* inst = static_cast<Instance*>(data);
  FileJobsEnd(inst);
  FilterEnd(inst);
  ReadsEnd(inst);
  TnsEnd(inst);
  ExchangeEnd(inst);
  for (int fd = 0; fd < static_cast<int>(kMaxFds); fd++)
    if (inst->Owns(fd)) close(fd);
  if (inst->arena != nullptr) inst->arena->Unref();
  delete inst;
}

bool Define(napi_env env, napi_value exports, Instance* inst, Entries entries) {
  for (; entries->name != nullptr; entries++) {
    napi_value fn;
    if (napi_create_function(env, entries->name, NAPI_AUTO_LENGTH, entries->fn, inst, &fn) !=
            napi_ok ||
        napi_set_named_property(env, exports, entries->name, fn) != napi_ok)
      return false;
  }
  return true;
}

}  // namespace

static napi_value Init(napi_env env, napi_value exports) {
  auto* inst = new (std::nothrow) Instance;
  if (inst == nullptr) return nullptr;
  inst->env = env;
  if (napi_set_instance_data(env, inst, InstanceEnd, nullptr) != napi_ok) {
    delete inst;
    return nullptr;
  }
  napi_value abi;
  if (napi_add_async_cleanup_hook(env, CleanupHook, inst, &inst->cleanup) != napi_ok ||
      napi_create_uint32(env, tn::ADDON_ABI, &abi) != napi_ok ||
      napi_set_named_property(env, exports, "abi", abi) != napi_ok)
    return nullptr;
  for (Entries e : {kArenaEntries, kIoEntries, kTapEntries, kNetlinkEntries, kNetnsEntries,
                    kPagerEntries, kCksumEntries, kPollEntries, kStreamIoEntries, kTnEntries,
                    kIpcEntries, kFileJobEntries, kExchangeEntries, kFilterEntries})
    if (!Define(env, exports, inst, e)) return nullptr;
  return exports;
}

}  // namespace tapnic

NAPI_MODULE_INIT() { return tapnic::Init(env, exports); }
