/** `inetd`: runs the small services on the emulated host until a signal. */

import type { Command } from 'commander';
import type { DirectOptions } from '../api/direct.ts';
import type { DgramSocketOptions } from '../machine/dgram.ts';
import { newCommand, print, printJson } from './command.ts';
import { aborted, ownOption, runNicCommand } from './nic_command.ts';
import { addNicFlags, type RawFlags } from './nic_flags.ts';

const DEFAULT_SERVICES = 'echo,discard,chargen,daytime';

/** `192.0.2.2 and 2001:db8::2` */
function addresses({ addr, addr6 }: { addr: string | null; addr6: string | null }): string {
  return [addr, addr6].filter((a) => a !== null).join(' and ') || 'no address';
}

async function inetd(raw: RawFlags): Promise<void> {
  const [{ createServer }, { NetHost }, { DgramSocket }, { DirectService }, { Inetd, services }] =
    await Promise.all([
      import('../api/server.ts'),
      import('../api/net_host.ts'),
      import('../machine/dgram.ts'),
      import('../api/direct.ts'),
      import('../apps/inetd/inetd.ts'),
    ]);
  let wanted = services;
  await runNicCommand(raw, {
    own: ['services'],
    check(own) {
      const known = services.map(({ name }) => name);
      wanted = ownOption(own, 'services', DEFAULT_SERVICES, (list) => {
        const names = list.split(',').filter((name) => name !== '');
        const stranger = names.find((name) => !known.includes(name));
        if (stranger !== undefined) throw new Error(`${stranger}: one of ${known.join(', ')}`);
        if (names.length === 0) throw new Error(`name at least one of ${known.join(', ')}`);
        return services.filter(({ name }) => names.includes(name));
      });
    },
    async run(instance, stopping) {
      const { log, vnet } = instance;
      const sockets = {
        // The services still answer a client that has ended its side.
        server: () => createServer(new NetHost(vnet), { allowHalfOpen: true }),
        dgram: (options: DgramSocketOptions) => new DgramSocket(vnet, options),
        direct: (options: DirectOptions) => new DirectService(vnet, options),
      };
      const running = new Inetd(sockets, { services: wanted, log });
      instance.run(running);
      await running.ready;
      const ready = instance.ready();
      const ports = Object.fromEntries(wanted.map(({ name, port }) => [name, port]));
      if (raw['json'] === true) printJson({ ...ready, services: ports });
      else {
        const list = wanted.map(({ name, port }) => `${name} (${port})`).join(', ');
        print(
          `${list} at ${addresses(ready)} (${ready.tap} <-> ${ready.if}, seed ${ready.seed}, ` +
            `control ${ready.control})\n`,
        );
      }
      await aborted(stopping);
      return 0;
    },
  });
}

export const inetdCommand: Command = addNicFlags(
  newCommand('inetd')
    .description('echo, discard, chargen and daytime over TCP and UDP on the emulated host')
    .option('--services <list>', `comma list (default: ${DEFAULT_SERVICES})`),
).action(inetd);
