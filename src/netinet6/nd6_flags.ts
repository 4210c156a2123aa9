/**
 * Sets the flags of neighbour discovery on an interface, after SIOCSIFINFO_FLAGS of sys/netinet6/nd6.c, and
 * starts stateless autoconfiguration.
 */

import { EINVAL, type Errno } from '../sys/errno.ts';
import { ifBringUp } from '../net/if.ts';
import type { Ifnet } from '../net/if_var.ts';
import { nd6Log } from './in6_autoconf.ts';
import { in6_ifattach } from './in6_ifattach.ts';
import {
  IN6_IFF_DUPLICATED,
  in6Ifextra,
  in6ifa_ifpforlinklocal,
  ND6_IFF_ACCEPT_RTADV,
  ND6_IFF_AUTO_LINKLOCAL,
  ND6_IFF_IFDISABLED,
  ND6_IFF_NO_DAD,
  ND6_IFF_NO_PREFER_IFACE,
  ND6_IFF_NO_RADR,
  ND6_IFF_PERFORMNUD,
  ND6_IFF_STABLEADDR,
} from './in6_var.ts';
import { nd6DadAll, nd6TentativeAll } from './nd6_dad.ts';
import { nd6RsStart, nd6RsStop } from './nd6_rs.ts';

const SETTABLE =
  ND6_IFF_PERFORMNUD |
  ND6_IFF_ACCEPT_RTADV |
  ND6_IFF_IFDISABLED |
  ND6_IFF_AUTO_LINKLOCAL |
  ND6_IFF_NO_RADR |
  ND6_IFF_NO_PREFER_IFACE |
  ND6_IFF_NO_DAD |
  ND6_IFF_STABLEADDR;

/**
 * Replaces the flags ND6_IFF_* of `ifp`. IFDISABLED stays set while its link-local address is a
 * duplicate. EINVAL: IPv6 is not attached to the interface. Else the errno of adding the link-local
 * address. @see ndp(8), sys/netinet6/nd6.c (there nd6_ioctl)
 */
export function nd6_setflags(ifp: Ifnet, flags: number): Errno {
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  if (nd === undefined) return EINVAL;
  const was = nd.flags;
  nd.flags = (flags & SETTABLE) | (was & ~SETTABLE);
  const disabled = (nd.flags & ND6_IFF_IFDISABLED) !== 0;
  const wasDisabled = (was & ND6_IFF_IFDISABLED) !== 0;
  if (disabled && !wasDisabled) nd6TentativeAll(ifp);
  if (!disabled && wasDisabled) {
    const ll = in6ifa_ifpforlinklocal(ifp, 0);
    if (ll !== null && (ll.ia6_flags & IN6_IFF_DUPLICATED) !== 0) {
      nd.flags |= ND6_IFF_IFDISABLED;
      nd6Log(ifp, 'cannot enable IPv6: the link-local address is a duplicate');
    } else {
      nd6DadAll(ifp);
    }
  }
  if ((nd.flags & (ND6_IFF_ACCEPT_RTADV | ND6_IFF_IFDISABLED)) !== ND6_IFF_ACCEPT_RTADV)
    nd6RsStop(ifp);
  const error = in6_ifattach(ifp);
  nd6RsStart(ifp);
  return error;
}

/**
 * Configures `ifp` by router advertisements, as `ifconfig ifp inet6 accept_rtadv up`: enables IPv6, adds the
 * link-local address and solicits routers. `radr` false: do not use their default routes. Errnos: see
 * nd6_setflags, and those of bringing the interface up. @see rc.conf(5), ifconfig(8)
 */
export function in6AutoconfStart(ifp: Ifnet, radr: boolean): Errno {
  const nd = in6Ifextra(ifp)?.nd_ifinfo;
  if (nd === undefined) return EINVAL;
  const error = ifBringUp(ifp);
  if (error !== 0) return error;
  const on = nd.flags | ND6_IFF_ACCEPT_RTADV | ND6_IFF_AUTO_LINKLOCAL;
  const own = on & ~(ND6_IFF_IFDISABLED | ND6_IFF_NO_RADR);
  return nd6_setflags(ifp, radr ? own : own | ND6_IFF_NO_RADR);
}
