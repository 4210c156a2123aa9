/**
 * The namespace of --netns: created if it is missing, and removed afterwards if it is not in use.
 */

import {
  createNetns,
  loopbackUp,
  netnsExists,
  netnsInterfaces,
  netnsUsers,
  removeNetns,
  withNetns,
} from './netns.ts';

export class NetnsScope {
  readonly name: string;
  /** Whether this object created the namespace. */
  readonly created: boolean;

  /** Throws TapnicError: EPERM without the privilege. */
  constructor(name: string) {
    this.name = name;
    this.created = !netnsExists(name);
    if (!this.created) return;
    createNetns(name);
    try {
      withNetns(name, loopbackUp);
    } catch (e) {
      removeNetns(name);
      throw e;
    }
  }

  /** Removes the namespace if this object created it and no other process or interface is in it. */
  close(): void {
    if (!this.created || !netnsExists(this.name)) return;
    if (netnsUsers(this.name).length > 0 || netnsInterfaces(this.name).length > 0) return;
    removeNetns(this.name);
  }
}
