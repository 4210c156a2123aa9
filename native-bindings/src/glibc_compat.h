// Included before every file of the prebuilt addon, and only there. A build on a new system must
// run with the glibc that Node requires (2.28), but glibc gave a few functions new versions when it
// moved them. This selects the old versions, which every glibc has. x86-64 only.
#pragma once

#include <features.h>

#if defined(__x86_64__) && defined(__GLIBC__)
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Moved from libpthread and libdl to libc in 2.34. Node links both.
__asm__(".symver pthread_create, pthread_create@GLIBC_2.2.5");
__asm__(".symver pthread_join, pthread_join@GLIBC_2.2.5");
__asm__(".symver dlopen, dlopen@GLIBC_2.2.5");
__asm__(".symver dlsym, dlsym@GLIBC_2.2.5");

// fstat is a function since 2.33. Before, it was a macro over a function that newer headers do not
// declare.
static inline int CompatFstat(int fd, struct stat* st) {
  return static_cast<int>(syscall(SYS_newfstatat, fd, "", st, AT_EMPTY_PATH));
}
#define fstat CompatFstat
#endif
