/** What stacks take from Node.js: the names of node:net that need no stack, dns.lookup, and files. */

import { close, constants, open } from 'node:fs';
import {
  BlockList,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  isIP,
  isIPv4,
  isIPv6,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
  SocketAddress,
} from 'node:net';
import { promisify } from 'node:util';

export { lookup } from 'node:dns';

/** The names of node:net that need no stack. */
export const nodeNet = {
  BlockList,
  SocketAddress,
  isIP,
  isIPv4,
  isIPv6,
  getDefaultAutoSelectFamily,
  getDefaultAutoSelectFamilyAttemptTimeout,
  setDefaultAutoSelectFamily,
  setDefaultAutoSelectFamilyAttemptTimeout,
};

export type NodeNet = typeof nodeNet;

const { O_NONBLOCK, O_RDONLY } = constants;

/** Opens a file for reading. O_NONBLOCK: the open of a FIFO does not wait for a writer. */
export async function openPath(
  path: string | URL,
): Promise<{ readonly fd: number; readonly close: (fd: number) => void }> {
  const fd = await promisify(open)(path, O_RDONLY | O_NONBLOCK);
  return { fd, close: (n) => close(n, () => undefined) };
}
