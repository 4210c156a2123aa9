/** The system calls of scripts, by name, on an emulated host. */

import type { PdHost, PdPollfd } from '../../src/packetdrill/host.ts';
import type { Arg, CallSpec } from './parser.ts';

/** The addresses that `...` stands for, and the host's descriptors by those of the script. */
export interface CallContext {
  readonly host: PdHost;
  readonly fds: Map<number, number>;
  /** Linux's number of the family that `socket(...)` gets. */
  readonly domain: number;
  /** In Linux's sockaddr layout. */
  readonly bindAddress: Uint8Array;
  readonly connectAddress: Uint8Array;
}

/** A call that was started: its result (PD_BLOCK while it blocks), and the check of its output. */
export interface CallResult {
  readonly result: number;
  /** Describes how an out-argument differs from the script; '' if it does not. */
  readonly check: () => string;
}

class CallError extends Error {}

const num = (arg: Arg | undefined): number => {
  if (arg?.kind === 'num') return arg.value;
  throw new CallError('a number is missing');
};
/** The number in `[5]`. */
const boxed = (arg: Arg | undefined): number => {
  if (arg?.kind === 'list' && arg.items.length === 1) return num(arg.items[0]);
  throw new CallError('[number] is missing');
};
const noCheck = (): string => '';
const int = (v: number): Uint8Array => new Uint8Array(Int32Array.of(v).buffer);
const intOf = (bytes: Uint8Array): number =>
  bytes.length >= 4 ? new DataView(bytes.buffer, bytes.byteOffset).getInt32(0, true) : 0;

/** The total length of an iovec. */
function iovBytes(arg: Arg | undefined): number {
  if (arg?.kind !== 'list') throw new CallError('[{..., number}] is missing');
  let n = 0;
  for (const item of arg.items) {
    if (item.kind !== 'struct') throw new CallError('{..., number} is missing');
    n += num(item.items[1]);
  }
  return n;
}

function optionBytes(arg: Arg | undefined): Uint8Array {
  if (arg?.kind === 'text') return Uint8Array.from(arg.value, (c) => c.charCodeAt(0));
  if (arg?.kind === 'struct') {
    const [onoff, linger] = [num(arg.fields.get('onoff')), num(arg.fields.get('linger'))];
    return Uint8Array.from([...int(onoff), ...int(linger)]);
  }
  return int(boxed(arg));
}

function checkValue(host: PdHost, arg: Arg | undefined): () => string {
  return () => {
    const got = host.valueOut;
    if (arg?.kind === 'text') {
      const text = String.fromCharCode(...got).replace(/\0.*$/, '');
      return text === arg.value ? '' : `the value is "${text}", not "${arg.value}"`;
    }
    if (arg?.kind === 'struct') {
      const want = optionBytes(arg);
      return want.every((byte, i) => byte === got[i]) ? '' : `the value is [${got.join(' ')}]`;
    }
    const want = boxed(arg);
    return intOf(got) === want ? '' : `the value is ${intOf(got)}, not ${want}`;
  };
}

function poll(ctx: CallContext, args: readonly Arg[]): CallResult {
  const list = args[0];
  if (list?.kind !== 'list') throw new CallError('[{fd=, events=, revents=}] is missing');
  const want: number[] = [];
  const fds = list.items.map((item): PdPollfd => {
    if (item.kind !== 'struct') throw new CallError('{fd=, events=, revents=} is missing');
    want.push(num(item.fields.get('revents')));
    const fd = num(item.fields.get('fd'));
    return { fd: ctx.fds.get(fd) ?? fd, events: num(item.fields.get('events')), revents: -1 };
  });
  const check = (): string =>
    fds.every((p, i) => p.revents === want[i])
      ? ''
      : `revents ${fds.map((p) => p.revents).join(', ')}, not ${want.join(', ')}`;
  return { result: ctx.host.poll(fds, num(args[2])), check };
}

function optionCall(ctx: CallContext, name: string, fd: number, args: readonly Arg[]): CallResult {
  const { host } = ctx;
  const [level, option] = [num(args[1]), num(args[2])];
  if (name === 'setsockopt') {
    const value = optionBytes(args[3]);
    const len = num(args[4]);
    return { result: host.setsockopt(fd, level, option, value.subarray(0, len)), check: noCheck };
  }
  const result = host.getsockopt(fd, level, option, boxed(args[4]));
  return { result, check: checkValue(host, args[3]) };
}

function transfer(ctx: CallContext, name: string, fd: number, args: readonly Arg[]): number {
  const { host } = ctx;
  const none = new Uint8Array(0);
  const bytes = (n: number): Uint8Array => new Uint8Array(n);
  switch (name) {
    case 'read':
      return host.recv(fd, bytes(num(args[2])), 0);
    case 'readv':
      return host.recv(fd, bytes(iovBytes(args[1])), 0);
    case 'recv':
    case 'recvfrom':
      return host.recv(fd, bytes(num(args[2])), num(args[3]));
    case 'write':
      return host.send(fd, bytes(num(args[2])), 0, none);
    case 'writev':
      return host.send(fd, bytes(iovBytes(args[1])), 0, none);
    case 'send':
      return host.send(fd, bytes(num(args[2])), num(args[3]), none);
    case 'sendto':
      return host.send(fd, bytes(num(args[2])), num(args[3]), ctx.connectAddress);
    default:
      throw new CallError(`${name}: not a call of this runner`);
  }
}

/** Starts a call. Throws for unsupported arguments. */
export function beginCall(ctx: CallContext, { name, args }: CallSpec): CallResult {
  const { host } = ctx;
  if (name === 'socket') {
    const domain = args[0]?.kind === 'any' ? ctx.domain : num(args[0]);
    return { result: host.socket(domain, num(args[1]), num(args[2])), check: noCheck };
  }
  if (name === 'poll') return poll(ctx, args);
  const scripted = num(args[0]);
  const fd = ctx.fds.get(scripted) ?? scripted;
  const plain = (result: number): CallResult => ({ result, check: noCheck });
  switch (name) {
    case 'bind':
      return plain(host.bind(fd, ctx.bindAddress));
    case 'listen':
      return plain(host.listen(fd, num(args[1])));
    case 'accept':
      return plain(host.accept(fd));
    case 'connect':
      return plain(host.connect(fd, ctx.connectAddress));
    case 'shutdown':
      return plain(host.shutdown(fd, num(args[1])));
    case 'close':
      return plain(host.closeFd(fd));
    case 'fcntl':
      return plain(host.fcntl(fd, num(args[1]), args.length > 2 ? num(args[2]) : 0));
    case 'ioctl':
      return { result: host.ioctl(fd, num(args[1]), 0), check: checkValue(host, args[2]) };
    case 'getsockopt':
    case 'setsockopt':
      return optionCall(ctx, name, fd, args);
    default:
      return plain(transfer(ctx, name, fd, args));
  }
}
