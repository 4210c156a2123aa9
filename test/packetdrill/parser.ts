/**
 * Parses the part of packetdrill's language that our scripts use into events: options, shell lines,
 * system calls, TCP, UDP and ICMP packets, and times. Errors name line and column. Not supported: Python
 * blocks, tunnels, and struct arguments other than linger, iovec and pollfd.
 */

export class ScriptError extends Error {
  constructor(file: string, line: number, column: number, message: string) {
    super(`${file}:${line}:${column}: ${message}`);
  }
}

/** A position in a script, counted from 1. */
export interface At {
  readonly line: number;
  readonly column: number;
}

/** The time of an event, in microseconds. `rel`: relative to the previous event. */
export interface When {
  readonly any: boolean;
  readonly rel: boolean;
  readonly us: number;
  /** `a~b`: the end of the range that starts at `us`; else null. */
  readonly toUs: number | null;
  /** `a...b`: the time at which a blocking call returns; else null. */
  readonly endUs: number | null;
}

export type TcpOption =
  | { kind: 'mss' | 'wscale'; value: number }
  | { kind: 'sackOK' | 'nop' | 'eol' }
  | { kind: 'FO'; cookie: string }
  | { kind: 'TS'; val: number; ecr: number }
  | { kind: 'sack'; blocks: [number, number][] };

export type EcnWord = 'noecn' | 'ect0' | 'ect1' | 'ect01' | 'ce';

export interface IpSpec {
  ecn?: EcnWord;
  tos?: number;
  ttl?: number;
}

export interface TcpSpec {
  readonly type: 'tcp';
  readonly out: boolean;
  readonly ip: IpSpec;
  /** Source and destination port as written, from the sender's side. */
  readonly ports: readonly [number, number] | null;
  /** Letters FSRP.UEWA, sorted in that order. A is AE of accurate ECN. */
  readonly flags: string;
  readonly seq: number;
  readonly len: number;
  readonly ack: number | null;
  readonly win: number | null;
  readonly urg: number | null;
  /** Null for `<...>`: any options. */
  readonly options: readonly TcpOption[] | null;
}

export interface IcmpSpec {
  readonly type: 'icmp';
  readonly icmpType: number;
  readonly code: number;
  readonly mtu: number;
  /** The sequence number of the quoted segment. */
  readonly seq: number;
  readonly len: number;
}

export interface UdpSpec {
  readonly type: 'udp';
  readonly out: boolean;
  readonly ip: IpSpec;
  /** Bytes of data. */
  readonly len: number;
}

export type Arg =
  | { kind: 'any' }
  | { kind: 'num'; value: number }
  | { kind: 'text'; value: string }
  | { kind: 'list'; items: Arg[] }
  | { kind: 'struct'; fields: Map<string, Arg>; items: Arg[] };

export interface CallSpec {
  readonly type: 'call';
  readonly name: string;
  readonly args: readonly Arg[];
  /** Null for any result. */
  readonly result: number | null;
  /** The errno's name, or '' if the script does not check it. */
  readonly errno: string;
}

export interface ShellSpec {
  readonly type: 'shell';
  readonly text: string;
}

export interface Event {
  readonly at: At;
  readonly when: When;
  readonly what: TcpSpec | UdpSpec | IcmpSpec | CallSpec | ShellSpec;
}

export interface Script {
  readonly file: string;
  readonly options: ReadonlyMap<string, string>;
  /** The text of the script's first comment. */
  readonly title: string;
  readonly events: readonly Event[];
}

/** Linux's values of the symbols in scripts. */
export const SYMBOLS: Readonly<Record<string, number>> = {
  AF_UNSPEC: 0,
  AF_INET: 2,
  AF_INET6: 10,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_NONBLOCK: 0x800,
  IPPROTO_IP: 0,
  IPPROTO_TCP: 6,
  IPPROTO_UDP: 17,
  SOL_IP: 0,
  IPPROTO_IPV6: 41,
  SOL_IPV6: 41,
  SOL_SOCKET: 1,
  SOL_TCP: 6,
  SO_REUSEADDR: 2,
  SO_TYPE: 3,
  SO_ERROR: 4,
  SO_BROADCAST: 6,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_KEEPALIVE: 9,
  SO_OOBINLINE: 10,
  SO_LINGER: 13,
  SO_REUSEPORT: 15,
  SO_RCVLOWAT: 18,
  SO_SNDLOWAT: 19,
  SO_ACCEPTCONN: 30,
  TCP_NODELAY: 1,
  TCP_MAXSEG: 2,
  TCP_CORK: 3,
  TCP_KEEPIDLE: 4,
  TCP_KEEPINTVL: 5,
  TCP_KEEPCNT: 6,
  TCP_INFO: 11,
  TCP_CONGESTION: 13,
  TCP_USER_TIMEOUT: 18,
  TCP_FASTOPEN: 23,
  IPV6_UNICAST_HOPS: 16,
  IPV6_V6ONLY: 26,
  IPV6_DONTFRAG: 62,
  // Linux has no such option: FreeBSD's number.
  IPV6_USE_MIN_MTU: 42,
  IPV6_TCLASS: 67,
  IP_TOS: 1,
  IP_TTL: 2,
  IP_MTU_DISCOVER: 10,
  IP_PMTUDISC_DONT: 0,
  IP_PMTUDISC_DO: 2,
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_RDWR: 2,
  O_NONBLOCK: 0x800,
  F_GETFL: 3,
  F_SETFL: 4,
  FIONREAD: 0x541b,
  SIOCINQ: 0x541b,
  SIOCOUTQ: 0x5411,
  FIONBIO: 0x5421,
  SIOCATMARK: 0x8905,
  MSG_OOB: 1,
  MSG_PEEK: 2,
  MSG_DONTWAIT: 0x40,
  MSG_EOR: 0x80,
  MSG_WAITALL: 0x100,
  MSG_NOSIGNAL: 0x4000,
  MSG_MORE: 0x8000,
  POLLIN: 1,
  POLLPRI: 2,
  POLLOUT: 4,
  POLLERR: 8,
  POLLHUP: 0x10,
  POLLNVAL: 0x20,
  SHUT_RD: 0,
  SHUT_WR: 1,
  SHUT_RDWR: 2,
  EPERM: 1,
  EBADF: 9,
  EAGAIN: 11,
  EINVAL: 22,
  EPIPE: 32,
  EACCES: 13,
  EDESTADDRREQ: 89,
  EMSGSIZE: 90,
  ENOPROTOOPT: 92,
  EAFNOSUPPORT: 97,
  EADDRINUSE: 98,
  ENETUNREACH: 101,
  ECONNABORTED: 103,
  ECONNRESET: 104,
  EISCONN: 106,
  ENOTCONN: 107,
  ETIMEDOUT: 110,
  ECONNREFUSED: 111,
  EHOSTUNREACH: 113,
  EALREADY: 114,
  EINPROGRESS: 115,
};

const ICMP_TYPES: Readonly<Record<string, number>> = {
  unreachable: 3,
  source_quench: 4,
  redirect: 5,
  time_exceeded: 11,
  parameter_problem: 12,
};

const ICMP_CODES: Readonly<Record<string, number>> = {
  net_unreachable: 0,
  host_unreachable: 1,
  protocol_unreachable: 2,
  port_unreachable: 3,
  frag_needed: 4,
  source_route_failed: 5,
  net_unknown: 6,
  host_unknown: 7,
  source_host_isolated: 8,
  net_prohibited: 9,
  host_prohibited: 10,
  net_unreachable_for_tos: 11,
  host_unreachable_for_tos: 12,
  packet_filtered: 13,
  precedence_violation: 14,
  precedence_cutoff: 15,
  ttl_exceeded_in_transit: 0,
  frag_reass_exceeded: 1,
};

/** The names of ICMPv6, with `--ip_version=ipv6`. */
const ICMP6_TYPES: Readonly<Record<string, number>> = {
  unreachable: 1,
  packet_too_big: 2,
  time_exceeded: 3,
  parameter_problem: 4,
};

const ICMP6_CODES: Readonly<Record<string, number>> = {
  no_route: 0,
  admin_prohibited: 1,
  not_neighbour: 2,
  address_unreachable: 3,
  port_unreachable: 4,
  exceeded_hop_limit: 0,
  exceeded_frag_time: 1,
  header_field: 0,
  unknown_next_header: 1,
  unknown_option: 2,
};

const FLAG_ORDER = 'FSRP.UEWA';
/** The ACE field of accurate ECN as flags: a digit in a script. */
const ACE_FLAGS: readonly string[] = ['', 'E', 'W', 'EW', 'A', 'EA', 'WA', 'EWA'];
const ECN_WORDS: readonly string[] = ['noecn', 'ect0', 'ect1', 'ect01', 'ce'];
/** Upper limit for the size of a script. */
const TEXT_MAX = 1 << 20;

class Parser {
  readonly #file: string;
  readonly #text: string;
  readonly #defines = new Map<string, number>();
  readonly #options = new Map<string, string>();
  #pos = 0;

  constructor(file: string, text: string) {
    this.#file = file;
    this.#text = text;
  }

  script(): Script {
    if (this.#text.length > TEXT_MAX) this.fail('a script of more than 1 MiB');
    const title = /^\s*(?:\/\/|\/\*)[ *]*([^\n]*)/.exec(this.#text)?.[1]?.trim() ?? '';
    const events: Event[] = [];
    this.#skip();
    while (this.#is('--')) this.#option();
    while (this.#pos < this.#text.length) {
      events.push(this.#event(events.length === 0));
      this.#skip();
    }
    return { file: this.#file, options: this.#options, title, events };
  }

  fail(message: string, pos = this.#pos): never {
    const { line, column } = this.#at(pos);
    throw new ScriptError(this.#file, line, column, message);
  }

  // Characters.

  #at(pos: number): At {
    const before = this.#text.slice(0, pos);
    const line = before.split('\n').length;
    return { line, column: pos - before.lastIndexOf('\n') };
  }

  /** Skips spaces, line breaks and comments. */
  #skip(): void {
    const blank = /(?:\s+|\/\/[^\n]*|\/\*[^]*?\*\/)*/y;
    blank.lastIndex = this.#pos;
    blank.exec(this.#text);
    this.#pos = blank.lastIndex;
    if (this.#text.startsWith('/*', this.#pos)) this.fail('a comment without an end');
  }

  #is(text: string): boolean {
    return this.#text.startsWith(text, this.#pos);
  }

  /** Consumes `text` and the blanks behind it, if it is next. */
  #take(text: string): boolean {
    if (!this.#is(text)) return false;
    this.#pos += text.length;
    this.#skip();
    return true;
  }

  #expect(text: string): void {
    if (!this.#take(text)) this.fail(`'${text}' expected, not ${this.#next()}`);
  }

  #next(): string {
    if (this.#pos >= this.#text.length) return 'the end of the script';
    return `'${/^[\w.]+|^[^]/.exec(this.#text.slice(this.#pos, this.#pos + 40))![0]}'`;
  }

  #match(re: RegExp): string | null {
    const sticky = new RegExp(re.source, 'y');
    sticky.lastIndex = this.#pos;
    const found = sticky.exec(this.#text);
    if (found === null) return null;
    this.#pos = sticky.lastIndex;
    this.#skip();
    return found[0];
  }

  #word(): string | null {
    return this.#match(/[A-Za-z_]\w*/);
  }

  #int(what: string): number {
    const text = this.#match(/0x[0-9a-fA-F]+|\d+/);
    if (text === null) return this.fail(`${what} expected, not ${this.#next()}`);
    return Number(text);
  }

  #option(): void {
    const from = this.#pos;
    const text = this.#match(/--[a-z_]+=[^\s]*/);
    if (text === null) this.fail('an option is --name=value');
    const eq = text.indexOf('=');
    const [name, value] = [text.slice(2, eq), text.slice(eq + 1)];
    if (!['tolerance_usecs', 'mtu', 'define', 'ip_version', 'tcp_ts_tick_usecs'].includes(name))
      this.fail(`--${name}: not an option of this runner`, from);
    if (name === 'define') {
      const [symbol, number] = value.split('=');
      if (!/^\w+$/.test(symbol!) || !/^(0x[0-9a-f]+|\d+)$/i.test(number ?? ''))
        this.fail('--define=SYMBOL=number', from);
      this.#defines.set(symbol!, Number(number));
      return;
    }
    this.#options.set(name, value);
  }

  // Events.

  #event(first: boolean): Event {
    const at = this.#at(this.#pos);
    if (first && this.#is('`'))
      return {
        at,
        when: { any: false, rel: true, us: 0, toUs: null, endUs: null },
        what: this.#shell(),
      };
    const when = this.#when();
    if (this.#is('`')) return { at, when, what: this.#shell() };
    if (this.#is('%{')) this.fail('Python blocks are not supported');
    if (this.#is('<') || this.#is('>')) {
      if (when.endUs !== null) this.fail('a packet has no a...b time');
      return { at, when, what: this.#packet() };
    }
    if (when.any || when.toUs !== null) this.fail('only a sent packet has a time of * or a range');
    return { at, when, what: this.#call() };
  }

  #seconds(): number {
    const text = this.#match(/\d+(?:\.\d+)?(?!\d)|\.\d+/);
    if (text === null) this.fail(`a time expected, not ${this.#next()}`);
    const us = Number(text) * 1e6;
    if (Math.abs(us - Math.round(us)) > 1e-3) this.fail('a time finer than a microsecond');
    return Math.round(us);
  }

  #when(): When {
    const none = { toUs: null, endUs: null };
    if (this.#take('*')) return { any: true, rel: true, us: 0, ...none };
    const rel = this.#take('+');
    const us = this.#seconds();
    if (this.#take('...')) {
      const endUs = this.#seconds();
      if (endUs < us) this.fail('a call that ends before it begins');
      return { any: false, rel, us, toUs: null, endUs };
    }
    if (!this.#take('~')) return { any: false, rel, us, ...none };
    if (rel) this.#expect('+');
    const toUs = this.#seconds();
    if (toUs < us) this.fail('a range that ends before it begins');
    return { any: false, rel, us, toUs, endUs: null };
  }

  #shell(): ShellSpec {
    const from = this.#pos;
    const end = this.#text.indexOf('`', from + 1);
    if (end < 0) this.fail("a '`' without its end");
    this.#pos = end + 1;
    this.#skip();
    return { type: 'shell', text: this.#text.slice(from + 1, end) };
  }

  // Packets.

  #packet(): TcpSpec | UdpSpec | IcmpSpec {
    const out = this.#text[this.#pos] === '>';
    this.#pos++;
    this.#skip();
    const ip: IpSpec = {};
    let echoed: { seq: number; len: number } | null = null;
    if (this.#take('[')) {
      if (/\d/.test(this.#text[this.#pos] ?? '')) echoed = this.#seq();
      else this.#ip(ip);
      this.#expect(']');
    }
    if (/^icmp\b/.test(this.#text.slice(this.#pos, this.#pos + 5))) {
      if (out) this.fail('ICMP packets are only received');
      return this.#icmp(echoed);
    }
    if (this.#match(/udp\b/) !== null) return { type: 'udp', out, ip, len: this.#udpLength() };
    return this.#tcp(out, ip);
  }

  /** The length in `udp (100)`. */
  #udpLength(): number {
    this.#expect('(');
    const len = this.#int('a length');
    this.#expect(')');
    return len;
  }

  #ip(ip: IpSpec): void {
    do {
      const from = this.#pos;
      const word =
        this.#word() ?? this.fail(`a word of the IP header expected, not ${this.#next()}`);
      if (ECN_WORDS.includes(word)) ip.ecn = word as EcnWord;
      else if (word === 'tos') ip.tos = this.#int('a number');
      else if (word === 'ttl') ip.ttl = this.#int('a number');
      else this.fail(`'${word}': noecn, ect0, ect1, ect01, ce, tos or ttl expected`, from);
    } while (this.#take(','));
  }

  #seq(): { seq: number; len: number } {
    const from = this.#pos;
    const seq = this.#int('a sequence number');
    this.#expect(':');
    const end = this.#int('a sequence number');
    this.#expect('(');
    const len = this.#int('a length');
    this.#expect(')');
    if ((end - seq) >>> 0 !== len) this.fail(`${seq}:${end} is not ${len} bytes`, from);
    return { seq, len };
  }

  #icmp(before: { seq: number; len: number } | null): IcmpSpec {
    this.#word();
    const type = this.#word() ?? this.fail(`an ICMP type expected, not ${this.#next()}`);
    const six = this.#options.get('ip_version') === 'ipv6';
    const types = six ? ICMP6_TYPES : ICMP_TYPES;
    const icmpType = types[type] ?? this.fail(`${type}: not an ICMP type of this runner`);
    let code = 0;
    let mtu = 0;
    let word = this.#word();
    if (word !== null && word !== 'mtu') {
      code = (six ? ICMP6_CODES : ICMP_CODES)[word] ?? this.fail(`${word}: not an ICMP code`);
      word = this.#word();
    }
    if (word === 'mtu') mtu = this.#int('an MTU');
    else if (word !== null) this.fail(`mtu expected, not '${word}'`);
    let echoed = before;
    if (echoed === null && this.#take('[')) {
      echoed = this.#seq();
      this.#expect(']');
    }
    return { type: 'icmp', icmpType, code, mtu, ...(echoed ?? { seq: 1, len: 0 }) };
  }

  #tcp(out: boolean, ip: IpSpec): TcpSpec {
    let ports: [number, number] | null = null;
    if (/^\d+\s*>/.test(this.#text.slice(this.#pos, this.#pos + 12))) {
      const sport = this.#int('a port');
      this.#expect('>');
      ports = [sport, this.#int('a port')];
    }
    const from = this.#pos;
    const written = this.#match(/[FSRP.UEWA0-7]+|-(?=\s)/);
    if (written === null) this.fail(`TCP flags expected, not ${this.#next()}`);
    const letters = written.replace(/[0-7]/, (digit) => ACE_FLAGS[Number(digit)]!);
    const flags =
      letters === '-'
        ? ''
        : Array.from(FLAG_ORDER)
            .filter((c) => letters.includes(c))
            .join('');
    if (letters !== '-' && flags.length !== letters.length) this.fail('a duplicate flag', from);
    const { seq, len } = this.#seq();
    let ack: number | null = null;
    let win: number | null = null;
    let urg: number | null = null;
    for (;;) {
      if (ack === null && this.#match(/ack\b/) !== null) ack = this.#int('an ACK number');
      else if (win === null && this.#match(/win\b/) !== null) win = this.#int('a window');
      else if (urg === null && this.#match(/urg\b/) !== null) urg = this.#int('a pointer');
      else break;
    }
    if (flags.includes('.') !== (ack !== null)) this.fail("flag '.' and ack go together", from);
    if (!out && win === null && !flags.includes('R')) this.fail('a received packet needs a win');
    return {
      type: 'tcp',
      out,
      ip,
      ports,
      flags,
      seq,
      len,
      ack,
      win,
      urg,
      options: this.#tcpOptions(out),
    };
  }

  #tcpOptions(out: boolean): TcpOption[] | null {
    if (!this.#is('<')) return [];
    // The next event may be a received packet, but then a time precedes its '<'.
    this.#take('<');
    if (this.#take('...')) {
      if (!out) this.fail('<...> is only for sent packets');
      this.#expect('>');
      return null;
    }
    const options: TcpOption[] = [];
    do options.push(this.#tcpOption());
    while (this.#take(','));
    this.#expect('>');
    return options;
  }

  #tcpOption(): TcpOption {
    const from = this.#pos;
    const word = this.#word() ?? this.fail(`a TCP option expected, not ${this.#next()}`);
    switch (word) {
      case 'mss':
      case 'wscale':
        return { kind: word, value: this.#int('a number') };
      case 'sackOK':
      case 'nop':
      case 'eol':
        return { kind: word };
      case 'FO': {
        const cookie = /^ *([0-9a-f]*)/.exec(this.#text.slice(this.#pos))!;
        this.#pos += cookie[0].length;
        return { kind: 'FO', cookie: cookie[1]! };
      }
      case 'TS': {
        if (this.#word() !== 'val') this.fail("'val' expected", from);
        const val = this.#int('a timestamp');
        if (this.#word() !== 'ecr') this.fail("'ecr' expected", from);
        return { kind: 'TS', val, ecr: this.#int('a timestamp') };
      }
      case 'sack': {
        const blocks: [number, number][] = [];
        while (/\d/.test(this.#text[this.#pos] ?? '')) {
          const start = this.#int('a sequence number');
          this.#expect(':');
          blocks.push([start, this.#int('a sequence number')]);
        }
        if (blocks.length === 0 || blocks.length > 4) this.fail('one to four blocks', from);
        return { kind: 'sack', blocks };
      }
      default:
        return this.fail(`${word}: not a TCP option of this runner`, from);
    }
  }

  // Calls.

  #call(): CallSpec {
    const name = this.#word() ?? this.fail(`a packet, a call or \` expected, not ${this.#next()}`);
    this.#expect('(');
    const args: Arg[] = [];
    while (!this.#is(')')) {
      args.push(this.#arg());
      if (!this.#take(',')) break;
    }
    this.#expect(')');
    this.#expect('=');
    let result: number | null = null;
    let errno = '';
    if (!this.#take('?')) {
      result = this.#number();
      const word = this.#match(/E[A-Z0-9]+\b/);
      if (word !== null) {
        if (result !== -1) this.fail(`${word} goes with -1`);
        errno = word;
      }
      if (this.#is('(')) this.#note();
    }
    return { type: 'call', name, args, result, errno };
  }

  /** Skips `(Text)` or `(flags A|B)` behind a result. */
  #note(): void {
    if (this.#match(/\([^)\n]*\)/) === null) this.fail("a '(' without its end");
  }

  #number(): number {
    let value = 0;
    do {
      const from = this.#pos;
      const text = this.#match(/-?(?:0x[0-9a-fA-F]+|\d+)|[A-Z]\w*/);
      if (text === null) this.fail(`a number expected, not ${this.#next()}`);
      const v = /^[A-Z]/.test(text) ? (this.#defines.get(text) ?? SYMBOLS[text]) : Number(text);
      if (v === undefined) this.fail(`${text}: unknown symbol`, from);
      value |= v;
    } while (this.#take('|'));
    return value;
  }

  #arg(): Arg {
    if (this.#take('...')) return { kind: 'any' };
    if (this.#take('[')) {
      const items: Arg[] = [];
      while (!this.#is(']')) {
        items.push(this.#arg());
        if (!this.#take(',')) break;
      }
      this.#expect(']');
      return { kind: 'list', items };
    }
    if (this.#take('{')) return this.#struct();
    const text = this.#match(/"[^"\n]*"/);
    if (text !== null) return { kind: 'text', value: text.slice(1, -1) };
    return { kind: 'num', value: this.#number() };
  }

  #struct(): Arg {
    const fields = new Map<string, Arg>();
    const items: Arg[] = [];
    while (!this.#is('}')) {
      const name = /^[a-z_]+\s*=/.test(this.#text.slice(this.#pos, this.#pos + 40))
        ? this.#word()
        : null;
      if (name !== null) this.#expect('=');
      const value = this.#arg();
      if (name === null) items.push(value);
      else fields.set(name, value);
      if (!this.#take(',')) break;
    }
    this.#expect('}');
    return { kind: 'struct', fields, items };
  }
}

/** Parses a script. Throws ScriptError. */
export function parseScript(file: string, text: string): Script {
  return new Parser(file, text).script();
}
