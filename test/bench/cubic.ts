/** Congestion control of the kernel's TCP. */

import type { Netns } from '../support/netns.ts';

/**
 * Makes the kernel use cubic for connections through `dev` in `ns`, whatever the machine's default
 * is; bbr sends a third. By route, because a namespace may not choose cubic as its default unless the
 * machine allows it to every user.
 */
export function useCubic(ns: Netns, dev: string): void {
  for (const family of ['-4', '-6']) {
    const routes = ns.exec('ip', [family, 'route', 'show', 'dev', dev, 'proto', 'kernel']);
    for (const route of routes.split('\n').filter((line) => line.trim() !== '')) {
      const words = route
        .trim()
        .replace(/ pref \S+$/, '')
        .split(' ');
      const [to, ...rest] = words;
      const change = ['route', 'change', to!, 'dev', dev, 'proto', 'kernel', ...rest];
      ns.exec('ip', [family, ...change, 'congctl', 'cubic']);
    }
  }
}
