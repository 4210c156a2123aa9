/**
 * A DHCP client on a stack without an address, on virtual time, and a scripted server. Messages are
 * built and read here by the layout of RFC 2131, not by the code under test.
 */

import { expect } from 'chai';
import type { Mbuf } from '../../src/kern/mbuf.ts';
import { type DhcpEvent, DhcpClient, dhcpConsole } from '../../src/machine/dhcp/dhcp_client.ts';
import type { DhcpGateway } from '../../src/machine/dhcp/dhcp_config.ts';
import { fib4_lookup } from '../../src/netinet/in_fib.ts';
import { inAddrOf, inet_ntoa } from '../../src/netinet/in.ts';
import { in_difaddr } from '../../src/netinet/in_ifaddr.ts';
import { isInIfaddr } from '../../src/netinet/in_var.ts';
import type { Ifnet } from '../../src/net/if_var.ts';
import type { Errno } from '../../src/sys/errno.ts';
import { addr, OUR_MAC, Rig, US } from '../netinet/rig.ts';
import {
  BROADCAST_MAC,
  buildArp,
  buildEther,
  buildUdp,
  decodeFrame,
  ETHERTYPE_IPV4,
  type Frame,
  ip4,
  mac,
} from '../support/frames.ts';

export const SERVER = '198.51.100.1';
export const SERVER_MAC = '02:00:00:00:00:53';
export const OFFERED = '198.51.100.57';
export const SEC = 1e9;

const TYPES = ['', 'DISCOVER', 'OFFER', 'REQUEST', 'DECLINE', 'ACK', 'NAK', 'RELEASE'];

/** A message of the client. */
export interface Sent {
  type: string;
  frame: Frame;
  xid: number;
  secs: number;
  broadcast: boolean;
  ciaddr: string;
  options: Map<number, number[]>;
}

export type Options = readonly (readonly [number, readonly number[]])[];

export interface Answer {
  yiaddr?: string;
  xid?: number;
  chaddr?: string;
  op?: number;
  cookie?: number[];
  /** Options instead of the usual ones, after the message type. */
  options?: Options;
  /** Options before the usual ones. */
  more?: Options;
  /** Bytes for the option field instead of all options. */
  raw?: number[];
  sname?: number[];
  file?: number[];
  /** Default: unicast to the client. */
  to?: { mac: string; ip: string };
  from?: string;
  sum?: number;
}

export const u32 = (n: number): number[] => [24, 16, 8, 0].map((s) => (n >>> s) & 0xff);

/** The options of a lease of an hour; of 24 bits. */
export const lease = (seconds = 3600, server = SERVER): Options => [
  [54, ip4(server)],
  [51, u32(seconds)],
  [1, [255, 255, 255, 0]],
  [3, ip4(server)],
];

export class DhcpRig extends Rig {
  readonly client: DhcpClient;
  readonly events: DhcpEvent[] = [];

  constructor(gateway: DhcpGateway = 'auto') {
    super({ arp: false });
    in_difaddr(this.ifp, addr(US));
    this.sent.length = 0;
    dhcpConsole.log = (event): void => void this.events.push(event);
    this.client = new DhcpClient(this.ifp, gateway);
  }

  /** The server answers ARP requests for its address. */
  override if_transmit(ifp: Ifnet, m: Mbuf): Errno {
    const error = super.if_transmit(ifp, m);
    const { arp } = decodeFrame(this.sent.at(-1)!);
    if (arp?.op === 1 && arp.tpa === SERVER && arp.spa !== '0.0.0.0')
      this.clock.post({ run: () => this.arp(2, SERVER, arp.spa, SERVER_MAC) });
    return error;
  }

  /** Advances virtual time. */
  pass(seconds: number): void {
    this.clock.advance(seconds * SEC);
  }

  /** Takes the messages that the client has sent since the last call. */
  taken(): Sent[] {
    const frames = this.sent.splice(0).map((bytes) => decodeFrame(bytes));
    return frames.filter((f) => f.ip?.udp?.dport === 67).map(readMessage);
  }

  /** Takes the only message that was sent. */
  one(type: string): Sent {
    const sent = this.taken();
    expect(sent.map((s) => s.type)).to.deep.equal([type]);
    return sent[0]!;
  }

  /** The number of ARP probes for `ip` sent since the last `taken`. */
  probes(ip: string): number {
    return this.sent.filter((bytes) => {
      const { arp } = decodeFrame(bytes);
      return arp?.op === 1 && arp.spa === '0.0.0.0' && arp.tpa === ip;
    }).length;
  }

  /** Delivers an answer of the server to `request`. */
  answer(request: Sent, type: string, a: Answer = {}): void {
    const options = [...(a.more ?? []), ...(a.options ?? lease())];
    const field = a.raw ?? [
      53,
      1,
      TYPES.indexOf(type),
      ...options.flatMap(([code, value]) => [code, value.length, ...value]),
      255,
    ];
    const message = new Uint8Array(240 + field.length);
    message.set([a.op ?? 2, 1, 6, 0, ...u32(a.xid ?? request.xid)]);
    message.set(ip4(a.yiaddr ?? (type === 'NAK' ? '0.0.0.0' : OFFERED)), 16);
    message.set(mac(a.chaddr ?? OUR_MAC), 28);
    message.set(a.sname ?? [], 44);
    message.set(a.file ?? [], 108);
    message.set(a.cookie ?? [0x63, 0x82, 0x53, 0x63], 236);
    message.set(field, 240);
    this.datagram(message, a);
  }

  /** Delivers a datagram from the server's port to the client's. */
  datagram(message: Uint8Array, { to, from = SERVER, sum }: Answer = {}): void {
    const { mac: dst, ip } = to ?? { mac: OUR_MAC, ip: OFFERED };
    const fields = {
      sport: 67,
      dport: 68,
      payload: message,
      ...(sum === undefined ? {} : { sum }),
    };
    const packet = buildUdp({ src: from, dst: ip }, fields);
    this.inject(buildEther({ dst, src: SERVER_MAC }, ETHERTYPE_IPV4, packet));
    this.pass(0);
  }

  /** Delivers an ARP packet of another host. */
  arp(op: number, spa: string, tpa: string, sha = '02:00:00:00:00:77'): void {
    this.inject(buildArp({ dst: BROADCAST_MAC, src: sha }, { op, sha, spa, tha: OUR_MAC, tpa }));
    this.pass(0);
  }

  /** Offers and grants a lease up to the probes. */
  grant(options: Options = lease(), yiaddr = OFFERED): void {
    this.answer(this.one('DISCOVER'), 'OFFER', { options, yiaddr });
    this.answer(this.one('REQUEST'), 'ACK', { options, yiaddr });
  }

  /** Starts the client and gives it a lease. */
  bind(options: Options = lease(), yiaddr = OFFERED): void {
    this.client.start();
    this.grant(options, yiaddr);
    this.pass(0.6);
    expect(this.addrs()).to.have.length(1);
    this.sent.length = 0;
  }

  addrs(): string[] {
    return this.ifp.if_addrhead.filter(isInIfaddr).map((ia) => inet_ntoa(ia.ia_addr));
  }

  /** The gateway of the route to `dst`; '-' on the link, null: no route. */
  via(dst: string): string | null {
    const nh = fib4_lookup(this.vnet, addr(dst));
    if (nh === null) return null;
    return nh.nh_gateway.w0 === 0 ? '-' : inet_ntoa(inAddrOf(nh.nh_gateway));
  }

  names(): string[] {
    return this.events.map(({ event }) => event);
  }

  override close(): void {
    this.client.stop();
    dhcpConsole.log = () => undefined;
    this.sent.length = 0;
    super.close();
  }
}

/** Reads a message of the client, and checks what all of them have. */
function readMessage(frame: Frame): Sent {
  const { payload, sport } = frame.ip!.udp!;
  const view = new DataView(payload.buffer, payload.byteOffset, payload.byteLength);
  expect(sport).to.equal(68);
  expect(payload.length).to.be.at.least(300);
  expect([...payload.subarray(0, 4)], 'op, htype, hlen, hops').to.deep.equal([1, 1, 6, 0]);
  expect([...payload.subarray(28, 44)]).to.deep.equal([...mac(OUR_MAC), ...new Uint8Array(10)]);
  expect(view.getUint32(236)).to.equal(0x63825363);
  const options = new Map<number, number[]>();
  let at = 240;
  for (; payload[at] !== 255; at += 2 + payload[at + 1]!)
    options.set(payload[at]!, [...payload.subarray(at + 2, at + 2 + payload[at + 1]!)]);
  expect(options.get(61), 'client id').to.deep.equal([1, ...mac(OUR_MAC)]);
  return {
    type: TYPES[options.get(53)![0]!]!,
    frame,
    xid: view.getUint32(4),
    secs: view.getUint16(8),
    broadcast: (view.getUint16(10) & 0x8000) !== 0,
    ciaddr: payload.subarray(12, 16).join('.'),
    options,
  };
}
