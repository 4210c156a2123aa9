/**
 * A DHCP client for IPv4: RFC 2131 and RFC 2132, on the machine's clock. Left out: INIT-REBOOT
 * (there is no lease file), DHCPINFORM, host names, authentication. Unlike RFC 2131 the first
 * DISCOVER is not delayed, because one host starts at a time.
 *
 * States: SELECTING (an offer is awaited) -> REQUESTING -> PROBING -> BOUND -> RENEWING (T1) ->
 * REBINDING (T2) -> at the end of the lease, or after DHCPNAK, the address is removed and the client
 * begins again; INIT waits before that.
 */

import type { Task } from '../../sys/clock.ts';
import { errnoName } from '../../sys/errno.ts';
import { inPass } from '../../sys/pass.ts';
import { count, R_DHCP_BAD, R_DHCP_STRAY } from '../../sys/reason.ts';
import type { InAddr } from '../../sys/types.ts';
import { Callout, callout_reset, callout_stop, nowNs } from '../../kern/kern_timeout.ts';
import type { Ifnet } from '../../net/if_var.ts';
import { INADDR_ANY, inet_ntoa } from '../../netinet/in.ts';
import { DhcpProbe } from './addr_probe.ts';
import { type DhcpGateway, LeaseConfig } from './dhcp_config.ts';
import { type Lease, leaseOf } from './dhcp_lease.ts';
import {
  buildRequest,
  bytes32,
  DHCPACK,
  DHCPDECLINE,
  DHCPDISCOVER,
  DHCPNAK,
  DHCPOFFER,
  DHCPRELEASE,
  DHCPREQUEST,
  DHO_CLASSLESS_ROUTES,
  DHO_CLIENT_ID,
  DHO_DNS,
  DHO_DOMAIN_NAME,
  DHO_LEASE_TIME,
  DHO_MAX_SIZE,
  DHO_MESSAGE,
  DHO_MESSAGE_TYPE,
  DHO_MTU,
  DHO_PARAMETERS,
  DHO_REQUESTED_ADDRESS,
  DHO_ROUTERS,
  DHO_SERVER_ID,
  DHO_SUBNET_MASK,
  DHO_T1,
  DHO_T2,
  type DhcpReply,
  parseReply,
} from './dhcp_msg.ts';
import { DhcpPort, type DhcpPortUser } from './dhcp_port.ts';

const SEC = 1e9;
/** Seconds until the first retransmission; it doubles up to the maximum. RFC 2131, section 4.1. */
const FIRST_S = 4;
const LAST_S = 64;
/** Transmissions of a REQUEST before the client looks for another server. */
const REQUESTS_MAX = 2;
/** Seconds before the client begins again after DHCPDECLINE: RFC 2131, section 3.1. */
const DECLINE_S = 10;
/** The least time between retransmissions of a renewal: RFC 2131, section 4.4.5. */
const RENEW_MIN_NS = 60 * SEC;
/** RFC 2132, section 9.10: 576 or more. */
const SIZE_MIN = 576;
const SIZE_MAX = 1500;
/** The longest text of a server that is printed. */
const TEXT_MAX = 80;

/** What is requested. RFC 3442: 121 stands before 3. */
const PARAMETERS = [
  DHO_SUBNET_MASK,
  DHO_CLASSLESS_ROUTES,
  DHO_ROUTERS,
  DHO_DNS,
  DHO_DOMAIN_NAME,
  DHO_MTU,
  DHO_LEASE_TIME,
  DHO_SERVER_ID,
  DHO_T1,
  DHO_T2,
];

type State =
  'init' | 'selecting' | 'requesting' | 'probing' | 'bound' | 'renewing' | 'rebinding' | 'stopped';

/** A lease for output, as `ready` and the log show it. */
export interface DhcpInfo {
  readonly state: State;
  /** With prefix length; null: there is no address. */
  readonly addr: string | null;
  readonly server: string | null;
  readonly routers: readonly string[];
  readonly dns: readonly string[];
  readonly domain: string | null;
  /** Seconds; null: no lease, or one that never ends. */
  readonly lease: number | null;
}

/** A change of the lease, for the log. */
export interface DhcpEvent extends DhcpInfo {
  readonly event:
    'bound' | 'renewed' | 'rebound' | 'expired' | 'refused' | 'declined' | 'released' | 'problem';
  readonly if: string;
  /** What happened, one line. */
  readonly text: string;
}

/** Receives the events of all clients. The code that opens a stack sets it. */
export const dhcpConsole: { log(event: DhcpEvent): void } = { log: () => undefined };

export class DhcpClient implements DhcpPortUser, Task {
  readonly #ifp: Ifnet;
  readonly #port: DhcpPort;
  readonly #config: LeaseConfig;
  readonly #callout = new Callout(this);
  #state: State = 'stopped';
  #xid = 0;
  #begunNs = 0;
  /** Seconds since the exchange began, as the last DISCOVER said: section 4.4.1. */
  #secs = 0;
  /**
   * Whether the answer must be broadcast: not in the first DISCOVER, because the tap receives
   * unicast; in later ones, for servers and relays whose unicast does not arrive.
   */
  #broadcast = false;
  /** Transmissions in this state. */
  #tries = 0;
  /** Refusals since the last lease; each one doubles the pause. */
  #refusals = 0;
  /** When the current REQUEST was sent first: the lease begins there. */
  #requestedNs = 0;
  /** When the lease began. */
  #leasedNs = 0;
  /** The offer, or the lease. */
  #lease: Lease | null = null;
  /** The Ethernet address from which the lease was received. */
  #serverLladdr: Uint8Array | null = null;
  /** A server that offered but then did not answer, or 0: another one is preferred. */
  #failed: InAddr = INADDR_ANY;
  #probe: DhcpProbe | null = null;
  /** Called once when the client has an address. */
  #onBound: (() => void) | null = null;
  /** The last thing that went wrong, for the message when there is no address; '' : nothing. */
  #lastProblem = '';

  constructor(ifp: Ifnet, gateway: DhcpGateway) {
    this.#ifp = ifp;
    this.#port = new DhcpPort(ifp, this);
    this.#config = new LeaseConfig(ifp, gateway, (text) => this.#log('problem', text));
  }

  /** Begins to look for a server. The interface must be up. */
  start(): void {
    inPass(() => this.#begin());
  }

  /** Releases the lease, removes the address and stops. Returns whether there was a lease. */
  stop(): boolean {
    const leased = this.#configured;
    inPass(() => {
      if (leased) this.#release();
      this.#unconfigure();
      this.#state = 'stopped';
      this.#lease = null;
      callout_stop(this.#callout);
      this.#port.close();
    });
    return leased;
  }

  /** Calls `done` as soon as the client has an address. */
  whenBound(done: () => void): void {
    if (this.#configured) done();
    else this.#onBound = done;
  }

  /** Why there is no address yet; '': no server answered. */
  get lastProblem(): string {
    return this.#lastProblem;
  }

  get info(): DhcpInfo {
    const lease = this.#configured ? this.#lease : null;
    return {
      state: this.#state,
      addr: lease === null ? null : `${inet_ntoa(lease.addr)}/${lease.prefixlen}`,
      server: lease === null ? null : inet_ntoa(lease.server),
      routers: (lease?.routers ?? []).map(inet_ntoa),
      dns: (lease?.dns ?? []).map(inet_ntoa),
      domain: lease?.domain ?? null,
      lease: lease === null || lease.seconds === Infinity ? null : lease.seconds,
    };
  }

  get #configured(): boolean {
    return ['bound', 'renewing', 'rebinding'].includes(this.#state);
  }

  #log(event: DhcpEvent['event'], text: string): void {
    if (event === 'problem' || event === 'declined' || event === 'refused')
      this.#lastProblem = text;
    dhcpConsole.log({ event, if: this.#ifp.if_xname, text, ...this.info });
  }

  /** Sets the deadline of the state, ns of the machine's clock. */
  #arm(dueNs: number): void {
    if (dueNs === Infinity) callout_stop(this.#callout);
    else callout_reset(this.#callout, Math.max(dueNs - nowNs(), 0));
  }

  /** A random factor from -1 to 1. */
  #jitter(): number {
    return (this.#ifp.if_vnet.prng.next32() / 0xffffffff) * 2 - 1;
  }

  /** Sets the time of the next retransmission: 4, 8, ... 64 s, each one second more or less. */
  #backOff(): void {
    const seconds = Math.min(FIRST_S * 2 ** (this.#tries - 1), LAST_S) + this.#jitter();
    this.#arm(nowNs() + seconds * SEC);
  }

  /** Begins after a pause. */
  #beginLater(seconds: number): void {
    this.#state = 'init';
    this.#port.tap(false);
    this.#arm(nowNs() + seconds * SEC);
  }

  #begin(): void {
    this.#lease = null;
    this.#state = 'selecting';
    this.#tries = 0;
    this.#begunNs = nowNs();
    this.#xid = this.#ifp.if_vnet.prng.next32();
    this.#port.tap(true);
    this.#discover();
  }

  #discover(): void {
    this.#broadcast = this.#tries > 0;
    this.#tries++;
    this.#secs = Math.floor((nowNs() - this.#begunNs) / SEC);
    this.#port.broadcast(this.#message(DHCPDISCOVER, INADDR_ANY), INADDR_ANY);
    this.#backOff();
  }

  /** REQUEST of an offered address: section 4.3.2. */
  #request(): void {
    const { addr, server } = this.#lease!;
    this.#tries++;
    const options = [
      [DHO_REQUESTED_ADDRESS, bytes32(addr)],
      [DHO_SERVER_ID, bytes32(server)],
    ] as const;
    this.#port.broadcast(this.#message(DHCPREQUEST, INADDR_ANY, options), INADDR_ANY);
    this.#backOff();
  }

  /** REQUEST that extends the lease: to its server, or to any. */
  #extend(): void {
    const { addr, server, t2, seconds } = this.#lease!;
    this.#secs = Math.floor((nowNs() - this.#begunNs) / SEC);
    const message = this.#message(DHCPREQUEST, addr);
    // An error, such as no route to the server, is the same as no answer.
    if (this.#state === 'renewing') this.#port.send(message, server);
    else this.#port.broadcast(message, addr);
    const end = this.#leasedNs + (this.#state === 'renewing' ? t2 : seconds) * SEC;
    const now = nowNs();
    this.#arm(Math.min(now + Math.max((end - now) / 2, RENEW_MIN_NS), end));
  }

  /** Begins to extend the lease, by a new exchange. */
  #startExtending(state: 'renewing' | 'rebinding'): void {
    this.#state = state;
    this.#xid = this.#ifp.if_vnet.prng.next32();
    this.#begunNs = this.#requestedNs = nowNs();
    this.#extend();
  }

  #message(
    type: number,
    ciaddr: InAddr,
    more: readonly (readonly [number, readonly number[]])[] = [],
  ): Uint8Array {
    const { if_lladdr: chaddr, if_mtu } = this.#ifp;
    const asks = type === DHCPDISCOVER || type === DHCPREQUEST;
    const size = Math.min(Math.max(if_mtu, SIZE_MIN), SIZE_MAX);
    return buildRequest({
      xid: this.#xid,
      secs: this.#secs,
      broadcast: this.#broadcast && ciaddr === INADDR_ANY && asks,
      ciaddr,
      chaddr,
      options: [
        [DHO_MESSAGE_TYPE, [type]],
        [DHO_CLIENT_ID, [1, ...chaddr]],
        ...more,
        ...(asks ? ([[DHO_MAX_SIZE, [size >>> 8, size & 0xff]]] as const) : []),
        ...(asks ? ([[DHO_PARAMETERS, PARAMETERS]] as const) : []),
      ],
    });
  }

  /** Timer: the deadline of the state has passed. */
  run(): void {
    const now = nowNs();
    switch (this.#state) {
      case 'init':
        return this.#begin();
      case 'selecting':
        return this.#discover();
      case 'requesting':
        if (this.#tries < REQUESTS_MAX) return this.#request();
        this.#failed = this.#lease!.server;
        this.#log('problem', `${inet_ntoa(this.#failed)} offers an address but does not grant it`);
        return this.#begin();
      case 'bound':
        return this.#startExtending('renewing');
      case 'renewing':
        if (now < this.#leasedNs + this.#lease!.t2 * SEC) return this.#extend();
        return this.#startExtending('rebinding');
      case 'rebinding':
        if (now < this.#leasedNs + this.#lease!.seconds * SEC) return this.#extend();
        return this.#expired();
      case 'probing':
      case 'stopped':
        return;
    }
  }

  datagram(payload: Uint8Array, from: Uint8Array | null): void {
    const reply = parseReply(payload);
    if (reply === null) return count(R_DHCP_BAD);
    const ours = reply.chaddr.every((byte, i) => byte === this.#ifp.if_lladdr[i]);
    if (!ours || reply.xid !== this.#xid || !this.#expects(reply)) return count(R_DHCP_STRAY);
    switch (reply.type) {
      case DHCPOFFER:
        return this.#offered(reply);
      case DHCPACK:
        return this.#acknowledged(reply, from);
      case DHCPNAK:
        return this.#refused(reply);
      default:
    }
  }

  /** Whether a message of this type, from this server, is awaited. */
  #expects({ type, options }: DhcpReply): boolean {
    const fromOurs = options.addr(DHO_SERVER_ID) === this.#lease?.server;
    switch (this.#state) {
      case 'selecting':
        return type === DHCPOFFER;
      case 'requesting':
      case 'renewing':
        return (type === DHCPACK || type === DHCPNAK) && fromOurs;
      case 'rebinding':
        return type === DHCPACK || type === DHCPNAK;
      case 'init':
      case 'probing':
      case 'bound':
      case 'stopped':
        return false;
    }
  }

  /** The lease of a reply; null: it is refused, and counted. */
  #leaseOf(reply: DhcpReply): Lease | null {
    const lease = leaseOf(reply);
    if (typeof lease !== 'string') return lease;
    count(R_DHCP_BAD);
    this.#lastProblem = `a server's message was refused: ${lease}`;
    return null;
  }

  #offered(reply: DhcpReply): void {
    const lease = this.#leaseOf(reply);
    if (lease === null) return;
    // Give the other servers until the first retransmission.
    if (lease.server === this.#failed && this.#tries === 1) return count(R_DHCP_STRAY);
    this.#lease = lease;
    this.#state = 'requesting';
    this.#tries = 0;
    this.#requestedNs = nowNs();
    this.#request();
  }

  #acknowledged(reply: DhcpReply, from: Uint8Array | null): void {
    const lease = this.#leaseOf(reply);
    if (lease === null) return;
    if (lease.addr !== this.#lease!.addr) return count(R_DHCP_BAD);
    if (from !== null) this.#serverLladdr = from;
    if (this.#state !== 'requesting') {
      const event = this.#state === 'renewing' ? 'renewed' : 'rebound';
      this.#bind(lease);
      this.#config.update(lease);
      this.#log(event, `lease of ${inet_ntoa(lease.addr)} ${event}`);
      return;
    }
    this.#lease = lease;
    this.#state = 'probing';
    this.#arm(Infinity);
    this.#probe = new DhcpProbe(this.#ifp, lease.addr, (conflict) =>
      conflict ? this.#decline() : this.#configure(),
    );
  }

  /** Enters BOUND and sets T1. */
  #bind(lease: Lease): void {
    this.#lease = lease;
    this.#leasedNs = this.#requestedNs;
    this.#state = 'bound';
    this.#refusals = 0;
    this.#failed = INADDR_ANY;
    this.#arm(this.#leasedNs + lease.t1 * SEC);
  }

  /** The probe found no other host: takes the address. */
  #configure(): void {
    const lease = this.#lease!;
    this.#probe = null;
    this.#port.tap(false);
    const error = this.#config.apply(lease);
    if (error !== 0) {
      this.#log('problem', `${inet_ntoa(lease.addr)} cannot be used: ${errnoName(error)}`);
      return this.#beginLater(DECLINE_S);
    }
    const opened = this.#port.open();
    this.#bind(lease);
    if (opened !== 0)
      this.#log('problem', `UDP port 68: ${errnoName(opened)}: the lease cannot be renewed`);
    this.#log('bound', `bound to ${inet_ntoa(lease.addr)}/${lease.prefixlen}`);
    const done = this.#onBound;
    this.#onBound = null;
    done?.();
  }

  /** Another host has the address: section 3.1, step 5. */
  #decline(): void {
    const { addr, server } = this.#lease!;
    this.#probe = null;
    const options = [
      [DHO_REQUESTED_ADDRESS, bytes32(addr)],
      [DHO_SERVER_ID, bytes32(server)],
    ] as const;
    this.#port.broadcast(this.#message(DHCPDECLINE, INADDR_ANY, options), INADDR_ANY);
    this.#log('declined', `another host has ${inet_ntoa(addr)}: declined`);
    this.#beginLater(DECLINE_S);
  }

  /** DHCPNAK: begins again, after a pause, because a server may refuse each request. */
  #refused({ options }: DhcpReply): void {
    const { addr } = this.#lease!;
    const said = Buffer.from(options.bytes(DHO_MESSAGE) ?? []).toString('latin1');
    const text = said === '' ? '' : `: ${JSON.stringify(said.slice(0, TEXT_MAX))}`;
    this.#unconfigure();
    this.#log('refused', `the server refused ${inet_ntoa(addr)}${text}`);
    const pause = Math.min(2 ** this.#refusals, LAST_S);
    this.#refusals++;
    this.#beginLater(pause * (1 + this.#jitter() / 4));
  }

  #expired(): void {
    const { addr } = this.#lease!;
    const dropped = this.#unconfigure();
    this.#log('expired', `lease of ${inet_ntoa(addr)} expired: ${dropped} connections dropped`);
    this.#begin();
  }

  /** Removes the address, if there is one. Returns the number of dropped connections. */
  #unconfigure(): number {
    this.#probe?.cancel();
    this.#probe = null;
    const dropped = this.#config.remove();
    this.#port.close();
    if (this.#configured) this.#state = 'init';
    return dropped;
  }

  /** DHCPRELEASE: section 4.4.6. Sent in a frame of its own, because there is no time for ARP. */
  #release(): void {
    const { addr, server } = this.#lease!;
    this.#xid = this.#ifp.if_vnet.prng.next32();
    this.#secs = 0;
    const message = this.#message(DHCPRELEASE, addr, [[DHO_SERVER_ID, bytes32(server)]]);
    const lladdr = this.#serverLladdr;
    if (lladdr === null || (lladdr[0]! & 1) !== 0) this.#port.send(message, server);
    else this.#port.sendFrame(message, addr, server, lladdr);
    this.#log('released', `lease of ${inet_ntoa(addr)} released`);
  }
}
