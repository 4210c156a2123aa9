/**
 * A world in which programs call the stack from inside its upcalls: every public method of every kind
 * of socket, every sysctl that can be set, every word of ifconfig. Methods come from the prototypes,
 * sysctls from the trees, words from the source of ifconfig, so new ones take part by themselves.
 */

import { Bsd } from '../../src/api/bsd.ts';
import { DgramHandle } from '../../src/api/dgram_handle.ts';
import { RawSocket } from '../../src/api/raw.ts';
import { NetHost } from '../../src/api/net_host.ts';
import { connect, Server } from '../../src/api/server.ts';
import type { Socket } from '../../src/api/socket.ts';
import { handleRequest } from '../../src/ctl/control.ts';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { SimPager } from '../../src/host/sim_pager.ts';
import { EV_ADD, EV_CLEAR, EVFILT_READ, EVFILT_WRITE } from '../../src/kern/kern_event.ts';
import { Kqueue, kqueue_close, kqueue_register } from '../../src/kern/kern_event.ts';
import { File } from '../../src/kern/kern_descrip.ts';
import { machineSysctl, type SysctlOid, type SysctlTree } from '../../src/kern/kern_sysctl.ts';
import { AF_INET, AF_INET6, SOCK_DGRAM, SOCK_STREAM } from '../../src/kern/protosw.ts';
import { sbused } from '../../src/kern/uipc_sockbuf.ts';
import type { Vnet } from '../../src/kern/vnet.ts';
import { sotoinpcb } from '../../src/netinet/in_pcb.ts';
import { seqDiff } from '../../src/netinet/tcp_seq.ts';
import { intotcpcb } from '../../src/netinet/tcp_subr.ts';
import { ifCloneDestroyAll } from '../../src/net/if_clone.ts';
import { Panic } from '../../src/sys/kassert.ts';
import { mem } from '../../src/vm/arena.ts';
import { vmObjectInit, vmObjectsFlush } from '../../src/vm/vm_object.ts';
import { buildIcmp } from '../support/frames.ts';
import { Deck, decks, ENDINGS } from './decks.ts';
import { streamByte } from './endpoint.ts';
import { ADDR6_A, ADDR6_B, ADDR_A, ADDR_B, SimNet, type SimPort } from './sim_net.ts';

/** Bytes `from` to `from + n` of the stream `key`, whose first four bytes are the key. */
function streamBytes(key: number, from: number, n: number): Buffer {
  const bytes = Buffer.alloc(n);
  for (let i = 0; i < n; i++) {
    const at = from + i;
    bytes[i] = at < 4 ? key >>> (24 - 8 * at) : streamByte(key, at);
  }
  return bytes;
}

const SENDBUF_MAX = 'net.inet.tcp.sendbuf_max';
const SENDSPACE = 'net.inet.tcp.sendspace';

/** Whether a write waits, and only the limit keeps the send buffer from growing. */
function mayGrow({ bsdSocket: so, writableLength }: Socket): boolean {
  if (so === null || so.so_pcb === null || writableLength === 0) return false;
  const { sb_hiwat, sb_lowat } = so.so_snd;
  const used = sbused(so.so_snd);
  const { snd_wnd, snd_cwnd, snd_nxt, snd_una } = intotcpcb(sotoinpcb(so));
  return (
    sb_hiwat < 150_000 &&
    used >= (sb_hiwat / 8) * 7 - sb_lowat &&
    (snd_wnd / 4) * 5 >= sb_hiwat - sb_lowat &&
    Math.min(snd_wnd, snd_cwnd) >= used - seqDiff(snd_nxt, snd_una)
  );
}

/** One program's end of a connection. */
interface End {
  readonly socket: Socket;
  readonly key: number;
  /** Bytes of the stream that were written. */
  sent: number;
  /** A sendfile is under way. No writes until it ends, because their order would be unknown. */
  busy: boolean;
  readonly got: Buffer[];
  /** All that was written went into the stack, and a FIN behind it. */
  finished: boolean;
  sawEnd: boolean;
}

export interface UpcallResult {
  /** What went wrong; empty if nothing did. */
  readonly wrong: string[];
  /** Calls made, by kind of upcall, and bytes compared. */
  readonly kinds: Record<string, number>;
  readonly bytes: number;
  /** Send buffers that grew in a call of `setNoDelay` while a write waited. */
  readonly grown: number;
}

const writable = (tree: SysctlTree): SysctlOid[] =>
  tree.list().filter(({ set, setText }) => set !== null || setText !== undefined);

/** Made with the first world, because the trees are filled at boot. */
export let sysctls: Deck | null = null;

class UpcallWorld {
  readonly net: SimNet;
  readonly prng: SeededPrng;
  readonly disk: SimPager;
  readonly wrong: string[] = [];
  readonly kinds: Record<string, number> = {};
  readonly ends: End[] = [];
  readonly #byKey = new Map<number, End>();
  readonly #servers: Server[] = [];
  readonly #spare: Server[] = [];
  readonly #dgrams: DgramHandle[] = [];
  readonly #raws: RawSocket[] = [];
  readonly #tables: Bsd[] = [];
  readonly #kqueues: Kqueue[] = [];
  readonly #defaults: [SysctlTree, string, string][] = [];
  #connecting = 0;
  #nextKey = 1;
  /** Calls left; none before `run`. */
  #budget = 0;
  #inside = false;
  bytes = 0;
  /** As in UpcallResult. */
  grown = 0;
  /** Send buffers are full, and the operator lets them grow little by little. */
  readonly #tight: boolean;
  readonly #six: boolean;
  /** The addresses that programs use. */
  readonly #addrs: readonly string[];

  constructor(seed: number, six: boolean) {
    this.prng = new SeededPrng(seed);
    this.#six = six;
    this.#addrs = six
      ? [ADDR6_A, ADDR6_B, '::1', ADDR_B, `::ffff:${ADDR_B}`]
      : [ADDR_A, ADDR_B, '127.0.0.1'];
    this.#tight = seed % 2 === 0;
    const faults = this.#chance(0.5) ? ['drop,rate=0.02'] : [];
    const delayNs = 20_000 + below(this.prng, 3_000_000);
    const offload = this.#pick(['none', 'csum', 'tso'] as const);
    this.net = new SimNet({ seed, faults, delayNs, offload, six });
    const { clock } = this.net;
    this.disk = new SimPager({ arena: mem.buffer, clock, prng: this.prng });
    vmObjectInit(this.disk);
    for (const port of this.#ports) this.#setUp(port);
    for (const tree of this.#trees)
      for (const { name, get, type } of writable(tree))
        if (type !== 'counters') this.#defaults.push([tree, name, String(get())]);
    if (this.#tight)
      for (const { vnet } of this.#ports)
        vnet.sysctl.write(SENDBUF_MAX, String(vnet.sysctl.find(SENDSPACE)!.get()));
    const names = this.#trees.flatMap((tree) => writable(tree).map(({ name }) => name));
    // Both stacks have the same names.
    sysctls ??= new Deck([...new Set(names)]);
    for (const deck of [...Object.values(decks), sysctls]) deck.reset(seed);
  }

  get #ports(): SimPort[] {
    return [this.net.a, this.net.b];
  }

  get #trees(): SysctlTree[] {
    return [machineSysctl.tree, this.net.a.vnet.sysctl, this.net.b.vnet.sysctl];
  }

  #chance(p: number): boolean {
    return below(this.prng, 1_000_000) < p * 1_000_000;
  }

  #pick<T>(list: readonly T[]): T {
    return list[below(this.prng, list.length)]!;
  }

  #vnet(): Vnet {
    return this.#pick(this.#ports).vnet;
  }

  #setUp({ vnet }: SimPort): void {
    const server = new Server({ stack: new NetHost(vnet) });
    server.on('connection', (socket: Socket) => {
      this.#adopt(socket);
      this.act('connection');
    });
    server.listen(80);
    this.#servers.push(server);
    const spare = new Server({ stack: new NetHost(vnet) });
    for (const event of ['listening', 'error', 'close'])
      spare.on(event, () => this.act(`server ${event}`));
    this.#spare.push(spare);
    this.#newDgram(vnet);
    const raw = new RawSocket(vnet, { family: this.#six ? 6 : 4 });
    raw.on('message', () => this.act('raw message'));
    raw.on('error', () => this.act('raw error'));
    this.#raws.push(raw);
    this.#tables.push(new Bsd(vnet));
  }

  /** Every datagram says how long it is and what is in it. */
  #newDgram(vnet: Vnet): void {
    const socket = new DgramHandle(vnet, { type: this.#six ? 'udp6' : 'udp4' });
    socket.start({
      message: (data) => {
        const want = data.length < 4 ? data : streamBytes(data.readUInt32BE(0), 0, data.length);
        if (!data.equals(want)) this.wrong.push('a datagram has bytes that were not sent');
        this.act('message');
      },
      failed: () => this.act('dgram error'),
    });
    // The port may be taken by the last one.
    socket.bind(5000);
    this.#dgrams.push(socket);
  }

  #adopt(socket: Socket): void {
    const key = this.#nextKey++;
    const end: End = {
      socket,
      key,
      sent: 0,
      busy: false,
      got: [],
      finished: false,
      sawEnd: false,
    };
    this.ends.push(end);
    this.#byKey.set(key, end);
    socket.on('data', (data: Buffer) => {
      end.got.push(data);
      this.act('data');
    });
    socket.on('finish', () => {
      end.finished = true;
      this.act('finish');
    });
    socket.on('end', () => {
      end.sawEnd = true;
      this.act('end');
    });
    for (const event of ['drain', 'close', 'timeout', 'error'])
      socket.on(event, () => this.act(event));
    this.#watch(socket);
    this.#write(end, 1 + below(this.prng, 20_000));
  }

  /** A kqueue on the socket whose upcall is a program's. */
  #watch(socket: Socket): void {
    const so = socket.bsdSocket;
    if (so === null || this.#chance(0.5)) return;
    const kq = new Kqueue();
    kq.kq_upcall = { run: () => this.act('kqueue') };
    for (const filter of [EVFILT_READ, EVFILT_WRITE])
      kqueue_register(
        kq,
        { ident: 3, filter, flags: EV_ADD | EV_CLEAR, fflags: 0, data: 0, udata: null },
        so,
      );
    this.#kqueues.push(kq);
  }

  #connect(host = this.#pick(this.#addrs), vnet = this.#vnet()): void {
    if (this.ends.length > 40) return;
    this.#connecting++;
    connect(new NetHost(vnet), 80, host)
      .then(
        (socket) => {
          this.#adopt(socket);
          this.act('connect');
        },
        (e: unknown) => this.#failed(e),
      )
      .finally(() => this.#connecting--);
  }

  #write(end: End, n: number): void {
    const { socket } = end;
    if (end.busy || socket.destroyed || socket.writableEnded) return;
    const chunk = streamBytes(end.key, end.sent, n);
    end.sent += n;
    socket.write(chunk);
  }

  #sendfile(end: End): void {
    const { socket } = end;
    if (end.busy || socket.destroyed || socket.writableEnded) return;
    const lead = below(this.prng, 5000);
    const n = 1 + below(this.prng, 40_000);
    const bytes = Buffer.concat([Buffer.alloc(lead), streamBytes(end.key, end.sent, n)]);
    const { disk } = this;
    const file = new File(disk.open(bytes), (fd) => disk.close(fd));
    end.busy = true;
    socket
      .sendfile(file, { offset: lead, nbytes: n })
      .then(
        (sent) => (end.sent += sent),
        (e: unknown) => {
          end.sent += (e as { bytes?: number }).bytes ?? 0;
          this.#failed(e);
        },
      )
      .finally(() => {
        end.busy = false;
        file.drop();
        this.act('sendfile');
      });
  }

  /** What a program may get is an error with a code; a panic is a fault of the stack. */
  #failed(e: unknown): void {
    if (e instanceof Panic || e instanceof AggregateError || !(e instanceof Error))
      this.wrong.push(e instanceof Error ? (e.stack ?? e.message) : String(e));
    else if (!('code' in e)) this.wrong.push(e.stack ?? e.message);
  }

  /** A program's turn: one or two calls of anything. */
  act(kind: string): void {
    this.kinds[kind] = (this.kinds[kind] ?? 0) + 1;
    if (this.#inside || this.#budget <= 0) return;
    this.#inside = true;
    try {
      for (let n = 1 + below(this.prng, 2); n > 0 && this.#budget > 0; n--) {
        this.#budget--;
        try {
          this.#anything();
        } catch (e) {
          this.#failed(e);
        }
      }
    } finally {
      this.#inside = false;
    }
  }

  #anything(): void {
    if (this.#tight && this.#chance(0.3)) {
      this.#growLittle();
      return;
    }
    const dice = below(this.prng, 100);
    if (dice < 30) this.#tcp(this.#draw(decks.tcp));
    else if (dice < 43) this.#sysctl(sysctls!.draw(this.prng));
    else if (dice < 45) this.#tune();
    else if (dice < 55 && this.#six && this.#chance(0.5))
      this.#ifconfig6(this.#draw(decks.ifconfig6));
    else if (dice < 55) this.#ifconfig(this.#draw(decks.ifconfig));
    else if (dice < 72) this.#bsd(this.#draw(decks.bsd));
    else if (dice < 79) this.#dgram(this.#draw(decks.dgram));
    else if (dice < 82) this.#raw(this.#draw(decks.raw));
    else if (dice < 86) this.#server(this.#draw(decks.server));
    else if (dice < 90) this.#control(this.#draw(decks.control));
    else this.#connect();
  }

  #draw(deck: Deck): string {
    for (;;) {
      const name = deck.draw(this.prng);
      if (!ENDINGS.includes(name) || this.#chance(0.2)) return name;
    }
  }

  /** Reads the property `name` of `object` and calls it, if it is a method. */
  #call(object: object, name: string, args: readonly unknown[]): void {
    const member = (object as Record<string, unknown>)[name];
    if (typeof member !== 'function') return;
    const result: unknown = member.apply(object, args);
    if (result instanceof Promise)
      result.then(
        () => this.act('promise'),
        (e: unknown) => this.#failed(e),
      );
  }

  #tcp(name: string): void {
    const live = this.ends.filter(({ socket }) => !socket.destroyed);
    if (live.length === 0) return;
    const end = this.#pick(live);
    const size = this.#pick([0, 1, 600, 1460, 5000, 40_000, 200_000]);
    if (name === 'write') this.#write(end, size + below(this.prng, 2000));
    else if (name === 'sendfile') this.#sendfile(end);
    else if (name === 'setTimeout') this.#call(end.socket, name, [below(this.prng, 50)]);
    else if (name === 'end' || name === 'destroy') this.#call(end.socket, name, []);
    else if (name === 'read') end.socket.read();
    else this.#call(end.socket, name, [this.#chance(0.5), below(this.prng, 5000)]);
  }

  #sysctl(name: string): void {
    const tree = this.#pick(this.#trees.filter((t) => t.find(name) !== undefined));
    const { type, get, min, max } = tree.find(name)!;
    if (type === 'string') {
      tree.write(name, this.#pick([String(get()), 'newreno', 'cubic', 'x']));
      return;
    }
    const now = Number(get());
    const v = this.#pick([
      0,
      1,
      now,
      now * 2,
      Math.floor(now / 2),
      min,
      max,
      below(this.prng, 1e5),
    ]);
    tree.write(name, String(v));
  }

  /** The operator lets send buffers grow, and the next call of each program meets that. */
  #tune(): void {
    const grown = 32_768 + below(this.prng, 200_000);
    for (const { vnet } of this.#ports) vnet.sysctl.write(SENDBUF_MAX, String(grown));
    for (const { socket } of this.ends) socket.setNoDelay(true);
  }

  /**
   * The operator lets one full send buffer grow a little, by sysctl(3) or by the control socket. The
   * next call of its program makes it grow in the middle of TCP's output, while a write waits.
   */
  #growLittle(): void {
    const live = this.ends.filter(({ socket }) => socket.readyState === 'open');
    if (live.length === 0) return;
    const end = this.#pick(live);
    if (end.socket.writableLength === 0) this.#write(end, 50_000 + below(this.prng, 30_000));
    const { socket } = live.find((one) => mayGrow(one.socket)) ?? end;
    if (!mayGrow(socket)) return;
    const { so_snd: sb, so_vnet: vnet } = socket.bsdSocket!;
    const before = sb.sb_hiwat;
    const value = String(before + 1 + below(this.prng, 8000));
    if (this.#chance(0.5)) vnet.sysctl.write(SENDBUF_MAX, value);
    else this.#ask(vnet, 'sysctl', { name: SENDBUF_MAX, value });
    socket.setNoDelay(true);
    if (sb.sb_hiwat > before) this.grown++;
  }

  #ifconfig(word: string): void {
    const port = this.#pick(this.#ports);
    const vlan = `vlan${below(this.prng, 3)}`;
    const addr = `192.0.2.${1 + below(this.prng, 4)}`;
    const { if_xname: tn } = port.ifp;
    const commands: Record<string, string[]> = {
      create: [vlan, 'create', 'vlan', String(below(this.prng, 100)), 'vlandev', tn],
      plumb: [`lagg${below(this.prng, 2)}`, 'plumb'],
      vlan: [vlan, 'vlan', '7', 'vlandev', tn],
      vlandev: [vlan, 'vlan', '8', 'vlandev', tn],
      '-vlandev': [vlan, '-vlandev'],
      destroy: [vlan, 'destroy'],
      unplumb: [vlan, 'unplumb'],
      laggproto: ['lagg0', 'laggproto', 'failover'],
      laggport: ['lagg0', 'laggport', vlan],
      '-laggport': ['lagg0', '-laggport', vlan],
      mtu: [tn, 'mtu', String(this.#pick([500, 576, 1000, 1400, 1500]))],
      inet: [tn, 'inet', `${addr}/24`],
      netmask: [tn, 'inet', addr, 'netmask', '255.255.255.0'],
      alias: [tn, 'inet', '198.51.100.7/32', 'alias'],
      add: [tn, 'inet', '198.51.100.8/32', 'add'],
      '-alias': [tn, 'inet', '198.51.100.7', '-alias'],
      delete: [tn, 'inet', this.#chance(0.3) ? addr : '198.51.100.8', 'delete'],
      remove: [tn, 'inet', '198.51.100.8', 'remove'],
    };
    for (const ether of ['ether', 'link', 'lladdr'])
      commands[ether] = [tn, ether, `02:00:00:00:01:0${below(this.prng, 9)}`];
    const minus = this.#chance(0.5) && decks.ifconfig.names.indexOf(word) > 20 ? '-' : '';
    const [name, ...words] = commands[word] ?? [tn, `${minus}${word}`];
    this.#ask(port.vnet, 'ifconfig', { if: name, words });
    // An interface that stays down would end the run.
    if (word === 'down') this.#ask(port.vnet, 'ifconfig', { if: tn, words: ['up'] });
  }

  /** `ifconfig tn0 inet6` with a word. */
  #ifconfig6(word: string): void {
    const { vnet, ifp } = this.#pick(this.#ports);
    const addr = `2001:db8::${1 + below(this.prng, 4)}`;
    const other = '2001:db8:1::7';
    const commands: Record<string, string[]> = {
      prefixlen: [addr, 'prefixlen', '64'],
      pltime: [other, 'pltime', '1'],
      vltime: [other, 'vltime', '2', 'pltime', '1'],
      eui64: ['2001:db8:2::', 'eui64'],
      delete: [this.#chance(0.3) ? addr : other, 'delete'],
    };
    const words = ['inet6', ...(commands[word] ?? [other, word])];
    this.#ask(vnet, 'ifconfig', { if: ifp.if_xname, words });
  }

  #control(cmd: string): void {
    const report = this.#pick(['m', 'an', 'i', 's', 'z']);
    this.#ask(this.#vnet(), cmd, { report, all: true, name: 'net', op: 'list' });
  }

  #ask(vnet: Vnet, cmd: string, args: Record<string, unknown>): void {
    handleRequest({ vnet, info: {} }, { id: 1, cmd, args });
  }

  #server(name: string): void {
    const server = this.#pick(this.#spare);
    if (name === 'listen') this.#call(server, name, [8000 + below(this.prng, 2)]);
    else if (name === 'getConnections') this.#call(server, name, [() => this.act('connections')]);
    else this.#call(server, name, []);
  }

  #dgram(name: string): void {
    const at = below(this.prng, this.#dgrams.length);
    const socket = this.#dgrams[at]!;
    const n = this.#pick([0, 4, 100, 1472, 1473, 9000]);
    const addr = this.#pick(this.#addrs);
    const to = [5000, addr];
    const data = streamBytes(below(this.prng, 1 << 30), 0, n);
    const group = this.#six ? 'ff0e::77' : '239.1.2.3';
    if (name === 'send')
      this.#call(socket, name, [data, ...(this.#chance(0.9) ? to : []), () => this.act('sent')]);
    else if (name === 'setMembership')
      this.#call(socket, name, [group, undefined, this.#chance(0.5)]);
    else if (name === 'setSourceMembership')
      this.#call(socket, name, [addr, group, undefined, this.#chance(0.5)]);
    else if (name === 'setMulticastInterface') this.#call(socket, name, [addr]);
    else if (name === 'bind') this.#call(socket, name, [below(this.prng, 2) * 5000]);
    else this.#call(socket, name, to);
    if (name !== 'close') return;
    // If this throws for want of memory, the closed socket stays in the list.
    this.#newDgram(this.#vnet());
    this.#dgrams.splice(at, 1);
  }

  #raw(name: string): void {
    const at = below(this.prng, this.#raws.length);
    const type = this.#six ? 128 : 8;
    const echo = Uint8Array.from(buildIcmp({ type, payload: new Uint8Array(40) }));
    this.#call(this.#raws[at]!, name, [echo, this.#pick(this.#addrs)]);
    if (name === 'close')
      this.#raws[at] = new RawSocket(this.#vnet(), { family: this.#six ? 6 : 4 });
  }

  #bsd(name: string): void {
    const table = this.#pick(this.#tables);
    const int = (n: number): number => below(this.prng, n);
    const fd = 3 + int(8);
    const addr = { address: this.#pick(this.#addrs), port: 9000 + int(3) };
    const buf = new Uint8Array(int(3000));
    const option = [
      fd,
      this.#pick([0, 6, 0xffff]),
      this.#pick([1, 2, 4, 8, 0x80, 0x1001 + int(7)]),
    ];
    const filter = this.#pick([EVFILT_READ, EVFILT_WRITE]);
    const kevent = [fd, [{ ident: 3 + int(8), filter, flags: EV_ADD }], 4, int(50)];
    const args: Record<string, unknown[]> = {
      socket: [this.#six ? AF_INET6 : AF_INET, this.#pick([SOCK_STREAM, SOCK_DGRAM])],
      bind: [fd, { ...addr, address: this.#six ? '::' : '0.0.0.0' }],
      listen: [fd, int(4)],
      connect: [fd, addr],
      connectAsync: [fd, addr],
      send: [fd, buf],
      sendAsync: [fd, buf],
      sendto: [fd, buf, 0, addr],
      recv: [fd, buf],
      recvAsync: [fd, buf],
      recvfrom: [fd, buf],
      shutdown: [fd, int(3)],
      setsockopt: [...option, int(5000)],
      getsockopt: option,
      getsockoptBytes: [...option, new Uint8Array(16)],
      open: ['/dev/bpf'],
      ioctl: [
        fd,
        this.#pick(Object.keys(table.ioctls)),
        this.#pick(['tn0', 'lo0', int(4), new Uint8Array(int(40))]),
      ],
      read: [fd, new Uint8Array(this.#pick([4096, 100]))],
      readAsync: [fd, new Uint8Array(this.#pick([4096, 100]))],
      write: [fd, buf],
      kqueue: [],
      kevent,
      keventAsync: kevent,
      closeAll: [],
    };
    this.#call(table, name, args[name] ?? [fd, int(100)]);
  }

  async #turn(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** One event of the clock. What an upcall threw comes out here. */
  #step(untilNs: number): boolean {
    try {
      return this.net.clock.step(untilNs);
    } catch (e) {
      this.#failed(e);
      return true;
    }
  }

  /** Lets buffers grow while windows are open, before other calls are made. */
  async #growFirst(): Promise<void> {
    this.#connect(this.#six ? ADDR6_B : ADDR_B, this.net.a.vnet);
    for (let n = 0; this.grown < 4 && n < 300 && this.wrong.length === 0; n++) {
      this.#step(Infinity);
      this.#growLittle();
      await this.#turn();
    }
  }

  /** Makes `calls` calls from upcalls. */
  async run(calls: number): Promise<void> {
    if (this.#tight) await this.#growFirst();
    for (let i = 0; i < 4; i++) this.#connect();
    this.#budget = calls;
    for (let n = 0; this.#budget > 0 && n < 50_000 && this.wrong.length === 0; n++) {
      const until = this.net.clock.nowNs() + 50_000_000;
      if (!this.#step(until)) {
        this.net.clock.advanceTo(until);
        this.act('idle');
      }
      // Programs have other work, from which they call too.
      if (n % 16 === 0) this.act('outside');
      if (n % 4 === 0) await this.#turn();
    }
    this.#budget = 0;
  }

  /** Lets everything come to its end in order, and compares. */
  async end(): Promise<void> {
    for (const [tree, name, value] of this.#defaults) tree.write(name, value);
    for (const port of this.#ports) {
      ifCloneDestroyAll(port.vnet);
      const addr = port === this.net.a ? ADDR_A : ADDR_B;
      const addr6 = port === this.net.a ? ADDR6_A : ADDR6_B;
      const inet6 = this.#six ? [['inet6', `${addr6}/64`]] : [];
      for (const words of [['up'], ['mtu', '1500'], ['inet', `${addr}/24`], ...inet6])
        this.#ask(port.vnet, 'ifconfig', { if: port.ifp.if_xname, words });
    }
    for (const { socket } of this.ends) {
      socket.setTimeout(0);
      while (socket.writableCorked > 0) socket.uncork();
      socket.resume().end();
    }
    for (const table of this.#tables) table.closeAll();
    for (const server of [...this.#servers, ...this.#spare]) server.close();
    for (const socket of [...this.#dgrams, ...this.#raws]) socket.close();
    await this.#pass(600e9, () => this.#connecting === 0 && this.#allClosed());
    for (const { socket } of this.ends) socket.destroy();
    await this.#pass(200e9, () => false);
    for (const kq of this.#kqueues) kqueue_close(kq);
    if (this.#connecting > 0) this.wrong.push('a connect that never ends');
    for (const end of this.ends) this.#compare(end);
    vmObjectsFlush();
  }

  #allClosed(): boolean {
    return this.ends.every(({ socket, busy }) => socket.destroyed && !busy);
  }

  async #pass(ns: number, done: () => boolean): Promise<void> {
    const until = this.net.clock.nowNs() + ns;
    for (let n = 0; !done(); n++) {
      if (n % 8 === 0) await this.#turn();
      if (!this.#step(until)) break;
    }
    await this.#turn();
    await this.#turn();
  }

  #compare(end: End): void {
    const got = Buffer.concat(end.got);
    if (got.length < 4) return;
    const peer = this.#byKey.get(got.readUInt32BE(0));
    if (peer === undefined) {
      this.wrong.push(`stream ${end.key} received a stream that was not sent`);
      return;
    }
    this.bytes += got.length;
    const what = `${peer.key}: ${got.length} bytes received of ${peer.sent}`;
    if (!got.equals(streamBytes(peer.key, 0, got.length))) this.wrong.push(`${what}: they differ`);
    if (got.length > peer.sent) this.wrong.push(`${what}: more than were written`);
    if (end.sawEnd && peer.finished && got.length !== peer.sent)
      this.wrong.push(`${what}: the end came too soon`);
  }
}

/** Runs the world of `seed` with `calls` calls from upcalls, over IPv6 or IPv4. */
export async function runUpcallWorld(
  seed: number,
  calls: number,
  six = false,
): Promise<UpcallResult> {
  const world = new UpcallWorld(seed, six);
  await world.run(calls);
  if (world.wrong.length === 0) await world.end();
  const { wrong, kinds, bytes, grown } = world;
  if (wrong.length === 0) world.net.close();
  return { wrong, kinds, bytes, grown };
}
