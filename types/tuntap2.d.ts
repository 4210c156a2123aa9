/**
 * Types of the optional npm package tuntap2 0.9.1, as far as `--driver tuntap2` uses it: enough to
 * compile without it. What the adapter expects of it is `Tuntap2Device` in src/host/tuntap2.ts.
 */
declare module 'tuntap2' {
  import type { Duplex } from 'node:stream';

  class Interface extends Duplex {
    readonly name: string;
    readonly isTap: boolean;
    readonly isTun: boolean;
    isUp: boolean;
    mtu: number;
    mac: string;
    ipv4: string;
    ipv6: string;
    release(callback?: () => void): void;
  }

  export class Tap extends Interface {}
  export class Tun extends Interface {}
}
