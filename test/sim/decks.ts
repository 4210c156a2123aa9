/** The calls that programs of `upcalls.ts` draw: names from prototypes and from the source of ifconfig. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Bsd } from '../../src/api/bsd.ts';
import { DgramHandle } from '../../src/api/dgram_handle.ts';
import { RawSocket } from '../../src/api/raw.ts';
import { Server } from '../../src/api/server.ts';
import { Socket } from '../../src/api/socket.ts';
import { capabilityKeywords } from '../../src/ctl/bits.ts';
import { below, type SeededPrng } from '../../src/host/prng.ts';

/** Names of the public methods and getters of a class. */
function namesOf(type: { prototype: object }): string[] {
  return Object.getOwnPropertyNames(type.prototype).filter(
    (name) => name !== 'constructor' && !name.startsWith('_'),
  );
}

/** Words of ifconfig that are not capabilities, as its source has them. */
function ifconfigVerbs(file: string): string[] {
  const source = readFileSync(join(import.meta.dirname, `../../../src/ctl/${file}`), 'utf8');
  return [...source.matchAll(/case '(-?[a-z]+)':/g)].map((m) => m[1]!);
}

/** Names that are drawn one after the other in random order, each as often as any other. */
export class Deck {
  readonly names: readonly string[];
  /** Names drawn at least once. */
  readonly seen = new Set<string>();
  #left: string[] = [];

  constructor(names: readonly string[]) {
    this.names = names;
  }

  /**
   * Forgets the order of the last world, so that `seed` alone determines the draws. Four seeds in a row
   * begin with different quarters of the names, so that together they draw all.
   */
  reset(seed: number): void {
    this.#left = this.names.filter((_, i) => i % 4 === seed % 4);
  }

  draw(prng: SeededPrng): string {
    if (this.#left.length === 0) this.#left = [...this.names];
    const [name] = this.#left.splice(below(prng, this.#left.length), 1);
    this.seen.add(name!);
    return name!;
  }
}

// Connections end too soon to be interesting if these come as often as the others.
export const ENDINGS = ['end', 'destroy', 'resetAndDestroy', 'close', 'closeAll', 'destroySoon'];
const STREAM_METHODS = ['write', 'end', 'destroy', 'pause', 'resume', 'cork', 'uncork', 'read'];
// Once for each socket, by its server or by connect().
const INTERNAL = ['adopt', 'connect'];
// With a program as argument.
const USERS = ['start', 'stop'];

export const decks = {
  tcp: new Deck([
    ...namesOf(Socket).filter((name) => ![...INTERNAL, ...STREAM_METHODS].includes(name)),
    ...STREAM_METHODS,
  ]),
  server: new Deck(namesOf(Server)),
  dgram: new Deck(namesOf(DgramHandle).filter((name) => !USERS.includes(name))),
  raw: new Deck(namesOf(RawSocket)),
  bsd: new Deck(namesOf(Bsd)),
  ifconfig: new Deck([...new Set(ifconfigVerbs('ifconfig_verbs.ts')), ...capabilityKeywords(-1)]),
  /** Words after `inet6`; drawn in worlds with IPv6. */
  ifconfig6: new Deck([...new Set(ifconfigVerbs('ifconfig_inet6.ts'))]),
  control: new Deck(['info', 'ifconfig', 'netstat', 'sysctl', 'vmstat', 'fault', 'arp', 'none']),
};
