/**
 * Random programs on random links, which are closed at a random moment: nothing leaks, nothing panics. A
 * failure names its seed.
 */

import { closeSync, openSync } from 'node:fs';
import { expect } from 'chai';
import { below, SeededPrng } from '../../src/host/prng.ts';
import { connect, createLink, createServer, openFile } from '../../src/index.ts';
import type { Link, Socket, Stack } from '../../src/index.ts';
import { nicModels } from '../../src/machine/nic_models.ts';
import { full } from '../support/needs.ts';

const RUNS = full ? 300 : 10;
const NAMES = ['a', 'b', 'c', 'd'];
const ignore = (): undefined => undefined;

class Chaos {
  readonly #prng: SeededPrng;
  #link!: Link;

  constructor(seed: number) {
    this.#prng = new SeededPrng(seed);
  }

  #below(n: number): number {
    return below(this.#prng, n);
  }

  #of<T>(choices: readonly T[]): T {
    return choices[this.#below(choices.length)]!;
  }

  async run(seed: number): Promise<Record<string, number>> {
    const names = NAMES.slice(0, 2 + this.#below(3));
    const stack = (): object => ({
      nic: this.#of(nicModels).name,
      mtu: this.#of([1500, 1280, 1400]),
    });
    this.#link = await createLink({
      stacks: Object.fromEntries(names.map((name) => [name, stack()])),
      time: this.#of(['auto', 'manual']),
      delayMs: this.#of([0, 1, 50]),
      lossRate: this.#of([0, 0.05, 0.3]),
      duplicateRate: this.#of([0, 0.1]),
      reorderRate: this.#of([0, 0.2]),
      corruptRate: this.#of([0, 0, 0.05]),
      rate: this.#of([0, 0, '1M']),
      memory: '32M',
      seed,
    });
    const stacks = Object.values(this.#link.stacks);
    for (const one of stacks) {
      const options = { allowHalfOpen: this.#below(2) === 0 };
      createServer(one, options, (socket) => this.#serve(socket)).listen(80);
      one.createSocket('udp4').on('error', ignore).bind(53);
    }
    for (let n = 1 + this.#below(15); n > 0; n--) await this.#act(stacks);
    return this.#link.close();
  }

  #serve(socket: Socket): void {
    socket.on('error', ignore);
    switch (this.#below(5)) {
      case 0:
        socket.pause();
        break;
      case 1:
        socket.pipe(socket);
        break;
      case 2:
        socket.end(Buffer.alloc(this.#below(200_000)));
        break;
      case 3: {
        const file = openFile(openSync(process.execPath, 'r'), closeSync);
        const sent = socket.resume().sendfile(file, { nbytes: this.#below(300_000) });
        void sent.then(() => socket.end(), ignore).finally(() => file.drop());
        break;
      }
      default:
        socket.resetAndDestroy();
    }
  }

  async #act(stacks: readonly Stack[]): Promise<void> {
    const stack = this.#of(stacks);
    const n = 1 + this.#below(stacks.length);
    switch (this.#below(7)) {
      case 0:
        await this.#link.advance(this.#below(3000));
        break;
      case 1:
        this.#link.set({ lossRate: this.#of([0, 0.2, 1]) });
        break;
      case 2:
        this.#link.up = this.#of([true, false]);
        break;
      case 3:
        if (this.#below(6) === 0) await stack.close();
        break;
      default:
        try {
          this.#send(stack, n);
        } catch (e) {
          expect((e as NodeJS.ErrnoException).code).to.equal('EBADF');
        }
    }
  }

  /** Sends a datagram and opens a connection to stack number `n`. */
  #send(stack: Stack, n: number): void {
    const udp = stack.createSocket('udp4').on('error', ignore);
    udp.send(Buffer.alloc(this.#below(5000)), 53, `192.0.2.${n}`);
    const host = this.#of([`192.0.2.${n}`, `2001:db8::${n}`]);
    connect(stack, this.#of([80, 80, 81]), host).then((socket) => {
      socket.on('error', ignore).write(Buffer.alloc(this.#below(100_000)));
      if (this.#below(2) === 0) socket.resume();
      if (this.#below(2) === 0) socket.end();
      else if (this.#below(5) === 0) socket.destroy();
    }, ignore);
  }
}

describe('random programs on simulated links', () => {
  for (let seed = 1; seed <= RUNS; seed++)
    it(`leak nothing with seed ${seed}`, async () => {
      expect(await new Chaos(seed).run(seed)).to.deep.equal({});
    });
});
