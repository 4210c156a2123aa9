/**
 * Frames that a hostile peer sends, drawn from a seed: correct ones of every protocol that the stack
 * has, with changed bytes, wrong lengths, cut or longer, tagged or not. With the virtio-net header
 * of mode `vnet` its fields are drawn too. Written from the RFCs, without code under test.
 */

import type { Prng } from '../../src/sys/prng.ts';
import {
  buildArp,
  buildEther,
  buildIcmp,
  buildIp4,
  buildTcp,
  buildUdp,
  ETHERTYPE_IPV4,
} from '../support/frames.ts';
import { HOST_ADDR, HOST_MAC, READER_ADDR, READER_MAC } from '../support/reader.ts';

const VNET_HDR = 12;
const FLAGS = ['S', '.', 'F.', 'R', 'R.', 'P.', 'S.', 'SF', 'SR', 'U.', 'FPU', ''];
const DST = [
  HOST_MAC,
  HOST_MAC,
  HOST_MAC,
  'ff:ff:ff:ff:ff:ff',
  '01:00:5e:00:00:01',
  '02:00:00:00:00:99',
];
const ETHERTYPES = [0x86dd, 0x8100, 0x88a8, 0x8809, 0x0000, 0x05dc, 0xffff];

export class HostileFrames {
  readonly #prng: Prng;
  readonly #vnet: boolean;
  readonly #vlan: number | null;

  /** @param vlan the tag that most frames carry, or null */
  constructor(prng: Prng, vnet: boolean, vlan: number | null) {
    this.#prng = prng;
    this.#vnet = vnet;
    this.#vlan = vlan;
  }

  #below(n: number): number {
    return this.#prng.next32() % n;
  }

  #pick<T>(from: readonly T[]): T {
    return from[this.#below(from.length)]!;
  }

  #bytes(n: number): Uint8Array {
    return Uint8Array.from({ length: n }, () => this.#prng.next32() & 0xff);
  }

  /** A stranger of the network, or now and then a source that no host has. */
  #source(): string {
    const odd = ['0.0.0.0', '255.255.255.255', '127.0.0.1', '224.0.0.1', HOST_ADDR];
    return this.#below(8) === 0 ? this.#pick(odd) : `192.0.2.${20 + this.#below(200)}`;
  }

  #ip(): {
    src: string;
    dst: string;
    id: number;
    options: Uint8Array;
    mf: boolean;
    fragOff: number;
  } {
    return {
      src: this.#source(),
      dst: this.#below(8) === 0 ? '192.0.2.255' : HOST_ADDR,
      id: this.#below(4),
      options: this.#below(6) === 0 ? this.#bytes(4 * (1 + this.#below(10))) : new Uint8Array(0),
      mf: this.#below(6) === 0,
      fragOff: this.#below(6) === 0 ? 8 * this.#below(8192) : 0,
    };
  }

  #payload(): Uint8Array {
    return this.#bytes(this.#pick([0, 0, 1, 7, 8, 100, 700, 1400]));
  }

  /** An Ethernet frame that is correct, or nearly so. */
  #valid(): Uint8Array {
    const ether = {
      src: READER_MAC,
      dst: this.#pick(DST),
      ...(this.#vlan === null ? {} : { vlan: this.#vlan }),
    };
    const ip = this.#ip();
    switch (this.#below(7)) {
      case 0:
        return buildArp(ether, {
          op: this.#below(4),
          sha: READER_MAC,
          spa: this.#source(),
          tha: HOST_MAC,
          tpa: this.#pick([HOST_ADDR, HOST_ADDR, READER_ADDR]),
        });
      case 1:
      case 2: {
        const segment = {
          sport: 1 + this.#below(65535),
          dport: this.#pick([80, 80, 81]),
          flags: this.#pick(FLAGS),
          seq: this.#prng.next32(),
          ack: this.#prng.next32(),
          win: this.#below(65536),
          payload: this.#payload(),
        };
        return buildEther(ether, ETHERTYPE_IPV4, buildTcp(ip, segment));
      }
      case 3:
        return buildEther(
          ether,
          ETHERTYPE_IPV4,
          buildUdp(ip, { sport: 1, dport: this.#below(65536), payload: this.#payload() }),
        );
      case 4: {
        const icmp = buildIcmp({
          type: this.#pick([0, 3, 4, 5, 8, 11, 12, 13, 17, 255]),
          code: this.#below(16),
          seq: this.#below(65536),
          payload: this.#payload(),
        });
        return buildEther(ether, ETHERTYPE_IPV4, buildIp4(ip, 1, icmp));
      }
      case 5: {
        const proto = this.#below(256);
        return buildEther(ether, ETHERTYPE_IPV4, buildIp4(ip, proto, this.#payload()));
      }
      default:
        return buildEther(ether, this.#pick(ETHERTYPES), this.#payload());
    }
  }

  /** Damages a frame: bytes of its headers, its length, or all of it. */
  #damaged(frame: Uint8Array): Uint8Array {
    switch (this.#below(6)) {
      case 0:
        return frame.subarray(0, 1 + this.#below(frame.length));
      case 1: {
        const longer = new Uint8Array(frame.length + this.#pick([1, 4, 46, 1000, 9000]));
        longer.set(frame);
        return longer;
      }
      case 2:
        return this.#bytes(1 + this.#below(200));
      default: {
        const end = Math.min(frame.length, 80);
        for (let n = 1 + this.#below(4); n > 0; n--)
          frame[12 + this.#below(end - 12)] = this.#prng.next32() & 0xff;
        return frame;
      }
    }
  }

  /** The next frame, with a virtio-net header if the wire has one. */
  next(): Uint8Array {
    const valid = this.#valid();
    const frame = this.#below(3) === 0 ? valid : this.#damaged(valid);
    if (!this.#vnet) return frame;
    const out = new Uint8Array(VNET_HDR + frame.length);
    if (this.#below(2) === 0) out.set(this.#bytes(10));
    out.set(frame, VNET_HDR);
    return out;
  }
}
