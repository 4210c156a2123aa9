/** The public API: a stack whose NIC is on a TAP interface, and plain TAP and TUN interfaces. */

import { realTimers } from './host/real_timers.ts';
import type { StackSocketOptions } from './api/net.ts';
import { lateServer, lateSocket } from './api/late_class.ts';
import type { ConnectionListener, Server as ServerClass, ServerOptions } from './api/server.ts';
import type { ConnectOptions } from './api/net_args.ts';
import type { Socket as SocketClass } from './api/socket.ts';
import type { Link } from './machine/link.ts';
import type { LinkOptions } from './machine/link_options.ts';
import type { Stack, StackOptions } from './machine/stack.ts';
import type { WorkerProgram, WorkerStack } from './machine/worker_stack.ts';

export type { Bsd, Linger, OptionValue, SockaddrIn, Timeval } from './api/bsd.ts';
export { openFile, type File } from './api/file.ts';
export type { StackNet, StackSocketOptions } from './api/net.ts';
export type { LookupFunction, SocketStack } from './api/net_host.ts';
export type {
  ConnectionListener,
  ListenAddress,
  ListenOptions,
  ServerOptions,
} from './api/server.ts';
export type { ConnectOptions } from './api/net_args.ts';
export type { SocketOptions } from './api/socket_options.ts';
export type { OnReadOptions } from './api/socket_reader.ts';
export type {
  SendfileBytes,
  SendfileError,
  SendfileOptions,
  SendfileSource,
} from './api/socket_sendfile.ts';
export {
  type LegacyOptions,
  Tap,
  Tun,
  type TunOffload,
  type TunOptions,
  tuntap,
} from './host/tap_stream.ts';
export type { FaultLine } from './ctl/fault.ts';
export type { InterfaceInfo } from './ctl/ifconfig.ts';
export type { SocketLine } from './ctl/netstat_an.ts';
export type { NetstatM } from './ctl/netstat_m.ts';
export type { NetstatS } from './ctl/netstat_s.ts';
export type { FaultKind, FaultPoint } from './fault/fault.ts';
export type { SysctlValue } from './kern/kern_sysctl.ts';
export type { Kevent } from './kern/kern_event.ts';
export type { TcpInfo } from './netinet/tcp_sockopt.ts';
export type { DispatcherOptions, LoadedDispatcher, Undici } from './host/node_agents.ts';
export type { PacketMeta } from './pcap/meta.ts';
export type { DgramInfo, DgramSocket, DgramSocketOptions, DgramType } from './machine/dgram.ts';
export type { Link, LinkFrame, UntilOptions } from './machine/link.ts';
export type { LinkOptions, LinkStackOptions, WireOptions } from './machine/link_options.ts';
export type { StackInfo } from './machine/nic_stack.ts';
export type {
  AddedFault,
  CapturedPacket,
  CaptureOptions,
  CaptureResult,
  FaultOptions,
  FileCapture,
  FileCaptureOptions,
  Leaked,
  NetstatReports,
  PacketCapture,
  PortOptions,
  StartFault,
  Stack,
  StackOptions,
} from './machine/stack.ts';
export type { StackProgram, WorkerProgram, WorkerStack } from './machine/worker_stack.ts';
export {
  SF_FLAGS,
  SF_NOCACHE,
  SF_NODISKIO,
  SF_SYNC,
  SF_USER_READAHEAD,
} from './kern/sendfile_flags.ts';
export { TapnicError } from './sys/errno.ts';

/** A TCP connection of a stack, as net.Socket is one of Linux: `new Socket({ stack })`. */
export type Socket = SocketClass;
export const Socket = lateSocket.type;

/** A TCP server of a stack, as net.Server is one of Linux: `new Server({ stack })`. */
export type Server = ServerClass;
export const Server = lateServer.type;

/**
 * Boots a machine, plugs its NIC into a TAP interface and configures both sides. Only one stack per
 * thread can be open. The caller must close it. Rejects with TapnicError: EINVAL (an option is
 * wrong), EBUSY (a stack is open, or the interface is in use), EACCES, EPERM, ENOENT (no privilege
 * or no device; the message names the remedy).
 */
export async function createStack(options: StackOptions = {}): Promise<Stack> {
  // Load the stack only here, so that programs that use only `Tap` start faster.
  const { openStack } = await import('./machine/stack.ts');
  return openStack(options);
}

/**
 * Creates two or more stacks in this thread that are joined by a simulated Ethernet, in virtual time and
 * without privileges. The caller must close the link. Rejects with TapnicError: EINVAL (an option is wrong),
 * EBUSY (a stack or a link is open in this thread), ENOMEM.
 */
export async function createLink<Name extends string>(
  options: LinkOptions<Name>,
): Promise<Link<Name>> {
  const { openLink } = await import('./machine/link.ts');
  return openLink(options, realTimers);
}

/**
 * Opens a stack with `options` of createStack in a worker thread, and runs `program` there with it.
 * Resolves when the function of the program has returned and its promise is resolved. The caller must
 * close it. Rejects as createStack does, and with the error of the program.
 */
export async function stackInWorker(
  options: StackOptions = {},
  program: WorkerProgram = {},
): Promise<WorkerStack> {
  const { openWorkerStack } = await import('./machine/worker_stack.ts');
  return openWorkerStack(options, program);
}

/**
 * Creates a server on the stack's emulated host; call its `listen`. `onConnection` is added as a
 * listener of 'connection' and owns each socket it receives. Throws TapnicError (EBADF: the stack
 * is closed), ERR_INVALID_ARG_TYPE.
 */
export function createServer(stack: Stack, onConnection?: ConnectionListener): Server;
export function createServer(
  stack: Stack,
  options: ServerOptions,
  onConnection?: ConnectionListener,
): Server;
export function createServer(
  stack: Stack,
  options: ServerOptions | ConnectionListener = {},
  onConnection?: ConnectionListener,
): Server {
  return typeof options === 'function'
    ? stack.createServer(options)
    : stack.createServer(options, onConnection);
}

/**
 * Connects from the stack's emulated host to a port of an address or a host name, by default of the
 * stack itself. Resolves with the socket when the connection is established; the caller owns it.
 * Rejects with TapnicError (ECONNREFUSED, ETIMEDOUT, EHOSTUNREACH, …; EBADF: the stack is closed), and
 * for wrong arguments with the errors of node:net, such as ERR_SOCKET_BAD_PORT.
 */
export function connect(
  stack: Stack,
  options: ConnectOptions & StackSocketOptions,
): Promise<Socket>;
export function connect(stack: Stack, port: number | string, host?: string): Promise<Socket>;
export function connect(stack: Stack, ...args: unknown[]): Promise<Socket> {
  return stack.connect(...(args as [number, string]));
}
