// Configures the Linux side's interface with rtnetlink: link flags, MTU, MAC, addresses, routes.
//
// A netlink socket stays in the network namespace in which it was opened, so a socket opened with
// the TAP can configure it later from any namespace. The kernel answers requests before sendto
// returns, so no function here waits. Left out: lists of objects, which `ip -j` prints.
#include <errno.h>
#include <linux/ipv6.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "napi_args.h"
#include "netname.h"

namespace tapnic {

namespace {

// A request under construction. The buffer is larger than any request of this file.
struct Request {
  alignas(nlmsghdr) char buf[512] = {};
  nlmsghdr* nh = reinterpret_cast<nlmsghdr*>(buf);

  template <typename Body>
  Body* Start(uint16_t type, uint16_t flags) {
    nh->nlmsg_len = NLMSG_LENGTH(sizeof(Body));
    nh->nlmsg_type = type;
    nh->nlmsg_flags = static_cast<uint16_t>(NLM_F_REQUEST | flags);
    return static_cast<Body*>(NLMSG_DATA(nh));
  }
  void Put(uint16_t type, const void* data, size_t len) {
    const size_t at = NLMSG_ALIGN(nh->nlmsg_len);
    auto* rta = reinterpret_cast<rtattr*>(buf + at);
    rta->rta_type = type;
    rta->rta_len = static_cast<uint16_t>(RTA_LENGTH(len));
    memcpy(RTA_DATA(rta), data, len);
    nh->nlmsg_len = static_cast<uint32_t>(at + RTA_ALIGN(rta->rta_len));
  }
};

struct Reply {
  alignas(nlmsghdr) char buf[32768];
};

uint32_t NextSeq() {
  static std::atomic<uint32_t> seq{1};
  return seq.fetch_add(1, std::memory_order_relaxed);
}

// Sends `q` and reads its answer: the reply message if `reply` is not null, otherwise the
// acknowledgement. Returns 0 or -errno.
int Transact(int nl, Request& q, Reply& r, nlmsghdr** reply) {
  q.nh->nlmsg_seq = NextSeq();
  if (reply == nullptr) q.nh->nlmsg_flags |= NLM_F_ACK;
  if (TEMP_FAILURE_RETRY(send(nl, q.buf, q.nh->nlmsg_len, 0)) < 0) return -errno;
  for (int tries = 0; tries < 64; tries++) {
    const ssize_t n = TEMP_FAILURE_RETRY(recv(nl, r.buf, sizeof r.buf, MSG_DONTWAIT));
    if (n < 0) return -errno;
    // Signed: an unpadded last message makes it negative, which ends the loop.
    int left = static_cast<int>(n);
    for (auto* nh = reinterpret_cast<nlmsghdr*>(r.buf); NLMSG_OK(nh, left);
         nh = NLMSG_NEXT(nh, left)) {
      if (nh->nlmsg_seq != q.nh->nlmsg_seq) continue;
      if (nh->nlmsg_type == NLMSG_ERROR) {
        if (nh->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))) return -EBADMSG;
        return static_cast<nlmsgerr*>(NLMSG_DATA(nh))->error;
      }
      if (reply != nullptr) {
        *reply = nh;
        return 0;
      }
    }
  }
  return -EBADMSG;
}

int Command(int nl, Request& q) {
  Reply r;
  return Transact(nl, q, r, nullptr);
}

// netlinkOpen(linkEvents) -> descriptor of a route socket in the thread's network namespace, or
// -errno; with linkEvents 1 it receives link changes, which linkNext reads.
napi_value NetlinkOpen(napi_env env, napi_callback_info info) {
  Args<1> a(env, info);
  const bool events = a.Int32(0) != 0;
  if (!a.ok) return a.Return(-EINVAL);
  const int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
  if (fd < 0) return a.Return(-errno);
  sockaddr_nl sa = {};
  sa.nl_family = AF_NETLINK;
  sa.nl_groups = events ? RTMGRP_LINK : 0;
  if (bind(fd, reinterpret_cast<sockaddr*>(&sa), sizeof sa) != 0) {
    const int error = errno;
    close(fd);
    return a.Return(-error);
  }
  return a.Return(a.inst->Own(fd));
}

struct Link {
  int index = 0;
  unsigned flags = 0;
  uint32_t mtu = 0;
  uint64_t mac = 0;
  uint32_t txqlen = 0;
  char name[IFNAMSIZ] = {};
  int ipv6 = -1;  // -1: the interface has no IPv6, 0: disabled, 1: enabled
};

void ParseInet6(rtattr* af, Link* l) {
  int left = static_cast<int>(RTA_PAYLOAD(af));
  for (auto* in6 = static_cast<rtattr*>(RTA_DATA(af)); RTA_OK(in6, left);
       in6 = RTA_NEXT(in6, left)) {
    if (in6->rta_type != IFLA_INET6_CONF) continue;
    const auto* conf = static_cast<int32_t*>(RTA_DATA(in6));
    if (RTA_PAYLOAD(in6) > DEVCONF_DISABLE_IPV6 * sizeof(int32_t))
      l->ipv6 = conf[DEVCONF_DISABLE_IPV6] != 0 ? 0 : 1;
  }
}

void ParseLink(nlmsghdr* nh, Link* l) {
  const auto* ifi = static_cast<ifinfomsg*>(NLMSG_DATA(nh));
  l->index = ifi->ifi_index;
  l->flags = ifi->ifi_flags;
  int left = static_cast<int>(IFLA_PAYLOAD(nh));
  for (auto* rta = IFLA_RTA(NLMSG_DATA(nh)); RTA_OK(rta, left); rta = RTA_NEXT(rta, left)) {
    const size_t len = RTA_PAYLOAD(rta);
    const auto* bytes = static_cast<uint8_t*>(RTA_DATA(rta));
    if (rta->rta_type == IFLA_MTU && len >= 4) memcpy(&l->mtu, bytes, 4);
    if (rta->rta_type == IFLA_TXQLEN && len >= 4) memcpy(&l->txqlen, bytes, 4);
    if (rta->rta_type == IFLA_IFNAME && len <= IFNAMSIZ) memcpy(l->name, bytes, len);
    if (rta->rta_type == IFLA_ADDRESS && len == 6)
      for (size_t i = 0; i < 6; i++) l->mac = l->mac << 8 | bytes[i];
    if ((rta->rta_type & NLA_TYPE_MASK) != IFLA_AF_SPEC) continue;
    int inner = static_cast<int>(RTA_PAYLOAD(rta));
    for (auto* af = static_cast<rtattr*>(RTA_DATA(rta)); RTA_OK(af, inner);
         af = RTA_NEXT(af, inner))
      if ((af->rta_type & NLA_TYPE_MASK) == AF_INET6) ParseInet6(af, l);
  }
}

// Sends the RTM_GETLINK request `q` and stores the answer in `l`. Returns 0 or -errno.
int ReadLink(int nl, Request& q, Link* l) {
  Reply r;
  nlmsghdr* nh = nullptr;
  const int error = Transact(nl, q, r, &nh);
  if (error != 0) return error;
  if (nh == nullptr || nh->nlmsg_type != RTM_NEWLINK ||
      nh->nlmsg_len < NLMSG_LENGTH(sizeof(ifinfomsg)))
    return -EBADMSG;
  ParseLink(nh, l);
  return 0;
}

void PutLink(const Link& l, const Span<double>& out) {
  const double values[] = {static_cast<double>(l.index),  static_cast<double>(l.flags),
                           static_cast<double>(l.mtu),    static_cast<double>(l.mac),
                           static_cast<double>(l.txqlen), static_cast<double>(l.ipv6)};
  memcpy(out.p, values, sizeof values);
}

// linkGet(nl, name: Uint8Array, out: Float64Array(6)) -> 0 or -errno (-ENODEV: no such interface).
// out: index, IFF_* flags, MTU, MAC as a 48-bit number, txqueuelen, IPv6 (-1 not available, 0
// disabled, 1 enabled).
napi_value LinkGet(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int nl = a.Int32(0);
  const Span<uint8_t> name = a.Bytes(1);
  const Span<double> out = a.Doubles(2);
  char ifname[IFNAMSIZ];
  if (!a.ok || out.len < 6 || !IfName(name, ifname)) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  q.Start<ifinfomsg>(RTM_GETLINK, 0)->ifi_family = AF_UNSPEC;
  q.Put(IFLA_IFNAME, ifname, name.len + 1);
  Link l;
  const int error = ReadLink(nl, q, &l);
  if (error == 0) PutLink(l, out);
  return a.Return(error);
}

// linkByIndex(nl, ifindex, out: Float64Array(6), name: Uint8Array(16)) -> as linkGet, for an
// interface that may have been renamed. Stores its current name in `name`, zero-padded.
napi_value LinkByIndex(napi_env env, napi_callback_info info) {
  Args<4> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const Span<double> out = a.Doubles(2);
  const Span<uint8_t> name = a.Bytes(3);
  if (!a.ok || index <= 0 || out.len < 6 || name.len < IFNAMSIZ) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  q.Start<ifinfomsg>(RTM_GETLINK, 0)->ifi_index = index;
  Link l;
  const int error = ReadLink(nl, q, &l);
  if (error != 0) return a.Return(error);
  PutLink(l, out);
  memcpy(name.p, l.name, IFNAMSIZ);
  return a.Return(0);
}

// linkSet(nl, ifindex, flags, change, mtu) -> 0 or -errno. Sets the IFF_* bits in `change` to those
// of `flags`, and the MTU unless it is 0.
napi_value LinkSet(napi_env env, napi_callback_info info) {
  Args<5> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const uint32_t flags = a.Uint32(2), change = a.Uint32(3), mtu = a.Uint32(4);
  if (!a.ok || index <= 0) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  auto* ifi = q.Start<ifinfomsg>(RTM_NEWLINK, 0);
  ifi->ifi_index = index;
  ifi->ifi_flags = flags;
  ifi->ifi_change = change;
  if (mtu != 0) q.Put(IFLA_MTU, &mtu, sizeof mtu);
  return a.Return(Command(nl, q));
}

// linkSetMac(nl, ifindex, mac: Uint8Array(6)) -> 0 or -errno.
napi_value LinkSetMac(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const Span<uint8_t> mac = a.Bytes(2);
  if (!a.ok || index <= 0 || mac.len != 6) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  q.Start<ifinfomsg>(RTM_NEWLINK, 0)->ifi_index = index;
  q.Put(IFLA_ADDRESS, mac.p, mac.len);
  return a.Return(Command(nl, q));
}

// addrSet(nl, ifindex, addr: Uint8Array(4 | 16), prefixLen, add) -> 0 or -errno. Adds (1) or
// removes (0) an address. IPv6 addresses skip duplicate address detection, so they are usable
// immediately. IPv4 addresses get the subnet's broadcast address.
napi_value AddrSet(napi_env env, napi_callback_info info) {
  Args<5> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const Span<uint8_t> addr = a.Bytes(2);
  const uint32_t prefix = a.Uint32(3);
  const bool add = a.Int32(4) != 0;
  if (!a.ok || index <= 0 || (addr.len != 4 && addr.len != 16) || prefix > addr.len * 8)
    return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  auto* ifa = q.Start<ifaddrmsg>(add ? RTM_NEWADDR : RTM_DELADDR,
                                 static_cast<uint16_t>(add ? NLM_F_CREATE | NLM_F_EXCL : 0));
  ifa->ifa_family = addr.len == 4 ? AF_INET : AF_INET6;
  ifa->ifa_prefixlen = static_cast<uint8_t>(prefix);
  ifa->ifa_index = static_cast<uint32_t>(index);
  q.Put(IFA_LOCAL, addr.p, addr.len);
  if (addr.len == 4) {
    q.Put(IFA_ADDRESS, addr.p, 4);
    if (add && prefix < 31) {
      uint8_t broadcast[4];
      for (uint32_t i = 0; i < 4; i++) {
        const uint32_t bits = prefix <= 8 * i ? 0 : prefix - 8 * i >= 8 ? 8 : prefix - 8 * i;
        broadcast[i] = static_cast<uint8_t>(addr.p[i] | (0xffu >> bits));
      }
      q.Put(IFA_BROADCAST, broadcast, 4);
    }
  } else if (add) {
    const uint32_t flags = IFA_F_NODAD;
    q.Put(IFA_FLAGS, &flags, sizeof flags);
  }
  return a.Return(Command(nl, q));
}

// Puts the address of an RTM_NEWADDR message into `out` and returns its prefix length. Returns
// `none` if the message is for another interface or family.
int64_t FirstAddr(nlmsghdr* nh, int index, const Span<uint8_t>& out, int64_t none) {
  if (nh->nlmsg_len < NLMSG_LENGTH(sizeof(ifaddrmsg))) return none;
  auto* ifa = static_cast<ifaddrmsg*>(NLMSG_DATA(nh));
  if (ifa->ifa_index != static_cast<uint32_t>(index) ||
      ifa->ifa_family != (out.len == 4 ? AF_INET : AF_INET6))
    return none;
  int64_t found = none;
  int left = static_cast<int>(IFA_PAYLOAD(nh));
  for (auto* rta = IFA_RTA(ifa); RTA_OK(rta, left); rta = RTA_NEXT(rta, left)) {
    // IPv6 has only IFA_ADDRESS. For IPv4 on a point-to-point link IFA_ADDRESS is the peer, so
    // prefer IFA_LOCAL.
    if (RTA_PAYLOAD(rta) != out.len) continue;
    if (rta->rta_type != IFA_LOCAL && (rta->rta_type != IFA_ADDRESS || found >= 0)) continue;
    memcpy(out.p, RTA_DATA(rta), out.len);
    found = ifa->ifa_prefixlen;
  }
  return found;
}

// addrGet(nl, ifindex, addr: Uint8Array(4 | 16)) -> the prefix length of the interface's first
// address of that family, or -errno. Stores the address in `addr`. -EADDRNOTAVAIL: the interface
// has no such address.
napi_value AddrGet(napi_env env, napi_callback_info info) {
  Args<3> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const Span<uint8_t> out = a.Bytes(2);
  if (!a.ok || index <= 0 || (out.len != 4 && out.len != 16)) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  // The kernel filters by the request's index only in strict checking mode.
  const int strict = 1;
  setsockopt(nl, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &strict, sizeof strict);
  Request q;
  auto* want = q.Start<ifaddrmsg>(RTM_GETADDR, NLM_F_DUMP);
  want->ifa_family = out.len == 4 ? AF_INET : AF_INET6;
  want->ifa_index = static_cast<uint32_t>(index);
  q.nh->nlmsg_seq = NextSeq();
  if (TEMP_FAILURE_RETRY(send(nl, q.buf, q.nh->nlmsg_len, 0)) < 0) return a.Return(-errno);
  int64_t result = -EADDRNOTAVAIL;
  Reply r;
  // Read the list to its end: until then the socket refuses another list request.
  for (int reads = 0; reads < 4096; reads++) {
    const ssize_t n = TEMP_FAILURE_RETRY(recv(nl, r.buf, sizeof r.buf, MSG_DONTWAIT));
    if (n < 0) return a.Return(-errno);
    int left = static_cast<int>(n);
    for (auto* nh = reinterpret_cast<nlmsghdr*>(r.buf); NLMSG_OK(nh, left);
         nh = NLMSG_NEXT(nh, left)) {
      if (nh->nlmsg_seq != q.nh->nlmsg_seq) continue;
      if (nh->nlmsg_type == NLMSG_DONE) return a.Return(result);
      if (nh->nlmsg_type == NLMSG_ERROR)
        return a.Return(nh->nlmsg_len < NLMSG_LENGTH(sizeof(nlmsgerr))
                            ? -EBADMSG
                            : static_cast<nlmsgerr*>(NLMSG_DATA(nh))->error);
      if (result < 0 && nh->nlmsg_type == RTM_NEWADDR) result = FirstAddr(nh, index, out, result);
    }
  }
  return a.Return(-EBADMSG);
}

// routeAdd(nl, ifindex, dst: Uint8Array(4 | 16), prefixLen, gateway: Uint8Array(0 | same as dst))
// -> 0 or -errno. Adds a route to the main table. With an empty gateway the destination is on the
// link.
napi_value RouteAdd(napi_env env, napi_callback_info info) {
  Args<5> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  const Span<uint8_t> dst = a.Bytes(2);
  const uint32_t prefix = a.Uint32(3);
  const Span<uint8_t> gateway = a.Bytes(4);
  if (!a.ok || index <= 0 || (dst.len != 4 && dst.len != 16) || prefix > dst.len * 8 ||
      (gateway.len != 0 && gateway.len != dst.len))
    return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  Request q;
  auto* rt = q.Start<rtmsg>(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL);
  rt->rtm_family = dst.len == 4 ? AF_INET : AF_INET6;
  rt->rtm_dst_len = static_cast<uint8_t>(prefix);
  rt->rtm_table = RT_TABLE_MAIN;
  rt->rtm_protocol = RTPROT_STATIC;
  rt->rtm_scope = gateway.len == 0 ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
  rt->rtm_type = RTN_UNICAST;
  if (prefix > 0) q.Put(RTA_DST, dst.p, dst.len);
  if (gateway.len != 0) q.Put(RTA_GATEWAY, gateway.p, gateway.len);
  q.Put(RTA_OIF, &index, sizeof index);
  return a.Return(Command(nl, q));
}

// linkNext(nl, ifindex) -> the interface's IFF_* flags after the latest waiting change. -EAGAIN: no
// change waits. -ENODEV: the interface was deleted. -ENOBUFS: changes were lost; call linkByIndex.
// nl comes from netlinkOpen(1).
napi_value LinkNext(napi_env env, napi_callback_info info) {
  Args<2> a(env, info);
  const int nl = a.Int32(0);
  const int index = a.Int32(1);
  if (!a.ok || index <= 0) return a.Return(-EINVAL);
  if (!a.inst->Owns(nl)) return a.Return(-EBADF);
  int64_t result = -EAGAIN;
  bool lost = false;
  Reply r;
  // After an overflow the kernel drops further messages without an error until the queue is empty.
  // So read it to its end, which is nearer than this limit; a state read afterwards is current.
  for (int reads = 0; reads < 4096; reads++) {
    const ssize_t n = TEMP_FAILURE_RETRY(recv(nl, r.buf, sizeof r.buf, MSG_DONTWAIT));
    if (n < 0 && errno == ENOBUFS) {
      lost = true;
      continue;
    }
    if (n < 0 && errno != EAGAIN) return a.Return(-errno);
    if (n < 0) break;
    // Signed: an unpadded last message makes it negative, which ends the loop.
    int left = static_cast<int>(n);
    for (auto* nh = reinterpret_cast<nlmsghdr*>(r.buf); NLMSG_OK(nh, left);
         nh = NLMSG_NEXT(nh, left)) {
      if (nh->nlmsg_len < NLMSG_LENGTH(sizeof(ifinfomsg))) continue;
      const auto* ifi = static_cast<ifinfomsg*>(NLMSG_DATA(nh));
      // AF_BRIDGE reports a bridge port's change; the interface itself still exists.
      if (ifi->ifi_index != index || ifi->ifi_family != AF_UNSPEC) continue;
      if (nh->nlmsg_type == RTM_NEWLINK) result = ifi->ifi_flags;
      if (nh->nlmsg_type == RTM_DELLINK) result = -ENODEV;
    }
  }
  return a.Return(lost ? -ENOBUFS : result);
}

}  // namespace

const Entry kNetlinkEntries[] = {
    {"netlinkOpen", NetlinkOpen}, {"linkGet", LinkGet},       {"linkByIndex", LinkByIndex},
    {"linkSet", LinkSet},         {"linkSetMac", LinkSetMac}, {"addrSet", AddrSet},
    {"addrGet", AddrGet},         {"routeAdd", RouteAdd},     {"linkNext", LinkNext},
    {nullptr, nullptr}};

}  // namespace tapnic
