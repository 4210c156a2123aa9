// Named network namespaces, as `ip netns` keeps them: a bind mount on /run/netns/NAME.
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "napi_args.h"
#include "netname.h"

namespace tapnic {

namespace {

constexpr char kDir[] = "/run/netns";

struct Path {
  char s[sizeof kDir + 256];
  bool Set(const Span<uint8_t>& name) {
    char plain[256];
    if (!PlainName(name, plain, sizeof plain)) return false;
    snprintf(s, sizeof s, "%s/%s", kDir, plain);
    return true;
  }
};

// The folder must be a shared mount of its own; otherwise later mounts in it are not propagated to
// other mount namespaces (mount_namespaces(7)).
int PrepareDir() {
  if (mkdir(kDir, 0755) != 0 && errno != EEXIST) return -errno;
  if (mount("", kDir, "none", MS_SHARED | MS_REC, nullptr) == 0) return 0;
  if (errno != EINVAL) return -errno;
  if (mount(kDir, kDir, "none", MS_BIND | MS_REC, nullptr) != 0) return -errno;
  return mount("", kDir, "none", MS_SHARED | MS_REC, nullptr) == 0 ? 0 : -errno;
}

struct Creation {
  const char* path;
  int error;
};

// Runs on a new thread, which ends afterwards: unshare(2) moves only the calling thread.
void* MakeAndBind(void* arg) {
  auto* c = static_cast<Creation*>(arg);
  c->error = 0;
  if (unshare(CLONE_NEWNET) != 0 ||
      mount("/proc/thread-self/ns/net", c->path, "none", MS_BIND, nullptr) != 0)
    c->error = -errno;
  return nullptr;
}

// netnsCreate(name: Uint8Array) -> 0 or -errno. -EEXIST: the name exists. -EPERM: no CAP_SYS_ADMIN.
napi_value NetnsCreate(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  Path path;
  if (!a.ok) return a.Return(-EINVAL);
  const Span<uint8_t> name = a.Bytes(0);
  if (!a.ok || !path.Set(name)) return a.Return(-EINVAL);
  int error = PrepareDir();
  if (error != 0) return a.Return(error);
  const int fd = open(path.s, O_RDONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0);
  if (fd < 0) return a.Return(-errno);
  close(fd);
  Creation c = {path.s, 0};
  pthread_t thread;
  error = pthread_create(&thread, nullptr, MakeAndBind, &c);
  if (error == 0) pthread_join(thread, nullptr);
  error = error != 0 ? -error : c.error;
  if (error != 0) unlink(path.s);
  return a.Return(error);
}

// netnsRemove(name: Uint8Array) -> 0 or -errno. Removes the name; the kernel frees the namespace
// when no process is inside and no descriptor refers to it.
napi_value NetnsRemove(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  Path path;
  const Span<uint8_t> name = a.Bytes(0);
  if (!a.ok || !path.Set(name)) return a.Return(-EINVAL);
  // EINVAL: the file is not a mount point, because a creation failed half-way. Remove the name.
  if (umount2(path.s, MNT_DETACH | UMOUNT_NOFOLLOW) != 0 && errno != EINVAL)
    return a.Return(-errno);
  return a.Return(unlink(path.s) == 0 ? 0 : -errno);
}

// netnsOpen(name: Uint8Array) -> descriptor of the namespace, or -errno. An empty name selects the
// calling thread's namespace.
napi_value NetnsOpen(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  Path path;
  const Span<uint8_t> name = a.Bytes(0);
  if (!a.ok || (name.len != 0 && !path.Set(name))) return a.Return(-EINVAL);
  // O_NONBLOCK: a FIFO of that name would block the thread.
  const int fd = open(name.len == 0 ? "/proc/thread-self/ns/net" : path.s,
                      O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  return a.Return(fd < 0 ? -errno : a.inst->Own(fd));
}

// netnsEnter(fd) -> 0 or -errno. Moves only the calling thread into the opened namespace. -EINVAL:
// fd is not a network namespace. -EPERM: no CAP_SYS_ADMIN.
napi_value NetnsEnter(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  return a.Return(setns(fd, CLONE_NEWNET) == 0 ? 0 : -errno);
}

}  // namespace

const Entry kNetnsEntries[] = {{"netnsCreate", NetnsCreate},
                               {"netnsRemove", NetnsRemove},
                               {"netnsOpen", NetnsOpen},
                               {"netnsEnter", NetnsEnter},
                               {nullptr, nullptr}};

}  // namespace tapnic
