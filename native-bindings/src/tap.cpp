// The TUN/TAP device node: open, attach to an interface by name, offloads. The interface itself is
// configured through netlink.cpp.
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "napi_args.h"
#include "netname.h"

namespace tapnic {

namespace {

// tunOpen() -> descriptor of a new /dev/net/tun handle, non-blocking, or -errno. Not yet attached.
napi_value TunOpen(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = TEMP_FAILURE_RETRY(open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK));
  return a.Return(fd < 0 ? -errno : a.inst->Own(fd));
}

// Attaches fd to the interface named in `ifr` and creates it if needed. Returns 1 if it created the
// interface, 0 if a persistent one existed, or -errno.
int Attach(int fd, ifreq& ifr, int flags, int vnetHdr) {
  flags |= IFF_NO_PI | (vnetHdr != 0 ? IFF_VNET_HDR : 0);
  ifr.ifr_flags = static_cast<short>(flags);
  if (ioctl(fd, TUNSETIFF, &ifr) != 0) return -errno;
  ifreq now = {};
  if (ioctl(fd, TUNGETIFF, &now) != 0) return -errno;
  if (vnetHdr != 0) {
    int little = 1;
    if (ioctl(fd, TUNSETVNETHDRSZ, &vnetHdr) != 0) return -errno;
    if (ioctl(fd, TUNSETVNETLE, &little) != 0) return -errno;
  }
  // Only a persistent interface can have existed before.
  return (now.ifr_flags & IFF_PERSIST) != 0 ? 0 : 1;
}

// tapAttach(fd, name: Uint8Array, vnetHdr, flags) -> 1 if it created the interface, 0 if the
// interface existed as a persistent TAP, or -errno.
//
// No packet information. `flags`: 1 NAPI, 2 several queues, one for each descriptor attached with the
// same name. With vnetHdr 12 every frame has a little-endian virtio-net
// header of 12 bytes; with 0 it has none. -EBUSY: another process uses the interface. -EINVAL: bad
// name, or the interface of that name is not a TAP of that number of queues (one or several). -EPERM: no permission.
napi_value TapAttach(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint8_t> name = a.Bytes(1);
  const int vnetHdr = a.Int32(2);
  const uint32_t flags = a.Uint32(3);
  if (!a.ok || (vnetHdr != 0 && vnetHdr != 12) || flags > 3) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  ifreq ifr = {};
  if (!IfName(name, ifr.ifr_name)) return a.Return(-EINVAL);
  return a.Return(Attach(fd, ifr, IFF_TAP | ((flags & 1) != 0 ? IFF_NAPI : 0) |
                                     ((flags & 2) != 0 ? IFF_MULTI_QUEUE : 0), vnetHdr));
}

// tunAttach(fd, name: Uint8Array, vnetHdr, flags) -> as tapAttach.
//
// flags: 1 a TUN (IP packets) instead of a TAP, 2 several queues, one for each descriptor attached
// with the same name. With an empty name the kernel chooses one; tapName returns it.
napi_value TunAttach(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint8_t> name = a.Bytes(1);
  const int vnetHdr = a.Int32(2);
  const uint32_t flags = a.Uint32(3);
  if (!a.ok || (vnetHdr != 0 && vnetHdr != 12) || flags > 3) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  ifreq ifr = {};
  if (name.len != 0 && !IfName(name, ifr.ifr_name)) return a.Return(-EINVAL);
  const int kind = (flags & 1) != 0 ? IFF_TUN : IFF_TAP;
  return a.Return(Attach(fd, ifr, kind | ((flags & 2) != 0 ? IFF_MULTI_QUEUE : 0), vnetHdr));
}

// tapAdopt(fd) -> fd, or -errno. Takes ownership of a TAP descriptor inherited from a launcher.
// -EINVAL: it is not an attached TAP without packet information.
napi_value TapAdopt(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const int fd = a.Int32(0);
  if (!a.ok || fd < 3) return a.Return(-EINVAL);
  ifreq ifr = {};
  if (ioctl(fd, TUNGETIFF, &ifr) != 0) return a.Return(errno == EBADF ? -EBADF : -EINVAL);
  if ((ifr.ifr_flags & IFF_TAP) == 0 || (ifr.ifr_flags & IFF_NO_PI) == 0) return a.Return(-EINVAL);
  if (fcntl(fd, F_SETFD, FD_CLOEXEC) != 0 ||
      fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK) != 0)
    return a.Return(-errno);
  return a.Return(a.inst->Own(fd));
}

// tapName(fd, name: Uint8Array(16)) -> the TUNSETIFF flags in use (IFF_VNET_HDR, IFF_NAPI, ...), or
// -errno. Stores the interface's current name in `name`, zero-padded.
napi_value TapName(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const int fd = a.Int32(0);
  const Span<uint8_t> out = a.Bytes(1);
  if (!a.ok || out.len < IFNAMSIZ) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  ifreq ifr = {};
  if (ioctl(fd, TUNGETIFF, &ifr) != 0) return a.Return(-errno);
  memcpy(out.p, ifr.ifr_name, IFNAMSIZ);
  return a.Return(static_cast<uint16_t>(ifr.ifr_flags));
}

// tapSet(fd, what, value) -> 0 or -errno. what: 0 offloads (TUN_F_* bits that the reader supports),
// 1 send buffer in bytes (when it is full, a write returns -EAGAIN), 2 carrier off or on, 3
// persistence off or on.
napi_value TapSet(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int fd = a.Int32(0);
  const int what = a.Int32(1);
  int value = a.Int32(2);
  if (!a.ok || what < 0 || what > 3 || value < 0) return a.Return(-EINVAL);
  if (!a.inst->Owns(fd)) return a.Return(-EBADF);
  int r = 0;
  switch (what) {
    case 0:
      r = ioctl(fd, TUNSETOFFLOAD, static_cast<unsigned long>(value));
      break;
    case 1:
      r = ioctl(fd, TUNSETSNDBUF, &value);
      break;
    case 2:
      r = ioctl(fd, TUNSETCARRIER, &value);
      break;
    case 3:
      r = ioctl(fd, TUNSETPERSIST, static_cast<unsigned long>(value));
      break;
  }
  return a.Return(r == 0 ? 0 : -errno);
}

}  // namespace

const Entry kTapEntries[] = {{"tunOpen", TunOpen},     {"tapAttach", TapAttach},
                             {"tunAttach", TunAttach}, {"tapAdopt", TapAdopt},
                             {"tapName", TapName},     {"tapSet", TapSet},
                             {nullptr, nullptr}};

}  // namespace tapnic
