/** A veth pair between two namespaces, and kernel programs on it as baselines. */

import { once } from 'node:events';
import { mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Netns } from '../support/netns.ts';
import type { BenchContext } from './context.ts';
import { useCubic } from './cubic.ts';

export interface Veth {
  /** The namespace of the server, with its addresses. */
  readonly server: Netns;
  readonly addr: string;
  readonly addr6: string;
  /** The namespace of the client. */
  readonly client: Netns;
}

/** Creates a veth pair with the kernel's default offloads; the addresses are those of an instance. */
export function vethPair(ctx: BenchContext, mtu = 1500): Veth {
  const server = ctx.netns('vs');
  const client = ctx.netns('vc');
  const ip = (ns: Netns, args: string): string => ns.exec('ip', args.split(' '));
  ip(server, `link add veth0 mtu ${mtu} type veth peer name veth1 mtu ${mtu} netns ${client.name}`);
  const ends = [
    [server, 'veth0', 2],
    [client, 'veth1', 1],
  ] as const;
  for (const [ns, dev, host] of ends) {
    ip(ns, `addr add 192.0.2.${host}/24 dev ${dev}`);
    ip(ns, `addr add 2001:db8::${host}/64 dev ${dev} nodad`);
    ip(ns, `link set ${dev} up`);
  }
  // The routes of both ends, when both are up.
  for (const [ns, dev] of ends) useCubic(ns, dev);
  return { server, client, addr: '192.0.2.2', addr6: '2001:db8::2' };
}

/** The configuration of one worker that serves `root`. */
function nginxConf(dir: string, root: string): string {
  return `daemon off;
master_process off;
worker_processes 1;
pid ${dir}/pid;
error_log ${dir}/error.log;
events { worker_connections 16384; }
http {
  access_log off;
  sendfile on;
  tcp_nopush on;
  tcp_nodelay on;
  keepalive_timeout 600;
  keepalive_requests 1000000000;
  client_body_temp_path ${dir};
  proxy_temp_path ${dir};
  fastcgi_temp_path ${dir};
  uwsgi_temp_path ${dir};
  scgi_temp_path ${dir};
  open_file_cache max=1000 inactive=600s;
  server {
    listen 80 backlog=4096;
    listen [::]:80 backlog=4096;
    root ${root};
  }
}
`;
}

/**
 * Starts nginx on port 80 of `ns`, one process on the CPU of ours, serving `root`. Row needs
 * `nginx`. @returns its pid
 */
export async function startNginx(ctx: BenchContext, ns: Netns, root: string): Promise<number> {
  const dir = join(ctx.baselines.dir, 'nginx');
  mkdirSync(dir, { recursive: true });
  const conf = join(dir, 'nginx.conf');
  writeFileSync(conf, nginxConf(dir, root));
  const nginx = ['nginx', '-e', join(dir, 'error.log'), '-p', dir, '-c', conf];
  return await startServer(ctx, ns, nginx);
}

/** A baseline written in Node.js: `baseline/NAME.mjs`, on the CPU of ours. @returns its pid */
export async function startNode(
  ctx: BenchContext,
  ns: Netns,
  script: string,
  args: readonly string[] = [],
  port = 80,
): Promise<number> {
  return await startServer(ctx, ns, [process.execPath, script, ...args], port);
}

/** Starts `command` on the CPU of ours in `ns` and waits until it accepts connections on `port`. */
export async function startServer(
  ctx: BenchContext,
  ns: Netns,
  command: readonly string[],
  port = 80,
): Promise<number> {
  const [program, ...args] = ctx.pins.command('ours', command);
  const child = ns.spawn(program!, args, { stdio: ['ignore', 'ignore', 'pipe'] });
  let stderr = '';
  child.stderr?.on('data', (chunk: Buffer) => (stderr = (stderr + chunk.toString()).slice(-4000)));
  const exit = once(child, 'close');
  ctx.defer(async () => {
    child.kill('SIGKILL');
    await exit;
  });
  // 200 times 50 ms.
  for (let i = 0; i < 200; i++) {
    if (child.exitCode !== null) throw new Error(`${command[0]}: ended: ${stderr.trim()}`);
    if (listens(ns, port)) return child.pid!;
    await sleep(50);
  }
  throw new Error(`${command[0]}: does not listen on port ${port}: ${stderr.trim()}`);
}

function listens(ns: Netns, port: number): boolean {
  return ns.exec('ss', ['-Hltn', `sport = :${port}`]).trim() !== '';
}
