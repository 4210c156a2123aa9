/**
 * The identifier of the machine, kern.hostuuid, after sys/kern/kern_jail.c. The host sets it at boot to a
 * value that stays the same, and a program may change it. It is the secret key of stable IPv6
 * addresses (RFC 7217). Left out: kern.hostid.
 */

import { EINVAL } from '../sys/errno.ts';
import { machineSysctl } from './kern_sysctl.ts';

/** Bytes of the field on FreeBSD, with the final NUL. */
const HOSTUUIDLEN = 64;
const DEFAULT_HOSTUUID = '00000000-0000-0000-0000-000000000000';

export const hostuuid = { value: DEFAULT_HOSTUUID };

/** Sets the identifier at boot; undefined: FreeBSD's default. Adds its sysctl to the machine's tree. */
export function hostuuidInit(value: string = DEFAULT_HOSTUUID): void {
  hostuuid.value = value;
  const set = (text: string): number => {
    if (Buffer.byteLength(text) >= HOSTUUIDLEN) return EINVAL;
    hostuuid.value = text;
    return 0;
  };
  machineSysctl.tree.string('kern.hostuuid', 'Host UUID', () => hostuuid.value, set);
}
