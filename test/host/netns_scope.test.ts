/** The namespace of --netns, with several processes that start and stop at once. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface, type Interface } from 'node:readline';
import { expect } from 'chai';
import { netnsExists, removeNetns } from '../../src/host/netns.ts';
import { NetnsScope } from '../../src/host/netns_scope.ts';
import { needs } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';

const PROCESSES = 4;
const ROUNDS = 15;

/** Opens a scope for each line `NAME`, closes it at an empty line, and prints what happened. */
const PROGRAM = `
  const { NetnsScope } = await import(process.argv[1]);
  const { createInterface } = await import('node:readline');
  let scope = null;
  for await (const line of createInterface({ input: process.stdin })) {
    try {
      if (line === '') scope.close();
      else scope = new NetnsScope(line);
      console.log(line === '' ? 'closed' : scope.created ? 'created' : 'used');
    } catch (e) {
      console.log(e.message);
    }
  }`;

class Peer {
  readonly #child: ChildProcess;
  readonly #lines: Interface;

  constructor() {
    const module = join(packageRoot(), 'dist/src/host/netns_scope.js');
    const args = ['--input-type=module', '-e', PROGRAM, module];
    this.#child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] });
    this.#lines = createInterface({ input: this.#child.stdout! });
  }

  async does(line: string): Promise<string> {
    this.#child.stdin!.write(`${line}\n`);
    const [answer] = (await once(this.#lines, 'line')) as [string];
    return answer;
  }

  async end(): Promise<void> {
    this.#child.stdin!.end();
    await once(this.#child, 'close');
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

describe('host: the namespace of --netns', function () {
  needs('root', 'ip');
  this.timeout(120_000);
  const name = `tapnic-scope-${process.pid}`;

  afterEach(() => {
    if (netnsExists(name)) removeNetns(name);
  });

  it('is gone after a process that ends without closing it, but not after a killed one', async () => {
    for (const killed of [false, true]) {
      const peer = new Peer();
      expect(await peer.does(name)).to.equal('created');
      if (killed) peer.kill();
      await peer.end();
      expect(netnsExists(name)).to.equal(killed);
    }
  });

  it('has one creator of several that start at once, and is gone after it', async () => {
    const peers = Array.from({ length: PROCESSES }, () => new Peer());
    try {
      for (let round = 0; round < ROUNDS; round++) {
        const starts = await Promise.all(peers.map((peer) => peer.does(name)));
        const used = Array.from({ length: PROCESSES - 1 }, () => 'used');
        expect(starts.toSorted(), `round ${round}`).to.deep.equal(['created', ...used]);
        const creator = starts.indexOf('created');
        await Promise.all(peers.filter((_, i) => i !== creator).map((peer) => peer.does('')));
        expect(netnsExists(name), 'before the creator').to.equal(true);
        expect(await peers[creator]!.does('')).to.equal('closed');
        expect(netnsExists(name), 'after the creator').to.equal(false);
      }
    } finally {
      await Promise.all(peers.map((peer) => peer.end()));
    }
  });

  it('is reused or made again by one that starts while its creator stops', async () => {
    const peers = [new Peer(), new Peer()];
    try {
      for (let round = 0; round < ROUNDS; round++) {
        expect(await peers[0]!.does(name)).to.equal('created');
        const [closed, opened] = await Promise.all([peers[0]!.does(''), peers[1]!.does(name)]);
        expect(closed, `round ${round}`).to.equal('closed');
        expect(opened).to.be.oneOf(['created', 'used']);
        expect(netnsExists(name)).to.equal(true);
        await peers[1]!.does('');
        // A user does not remove what another process created.
        expect(netnsExists(name)).to.equal(opened === 'used');
        if (opened === 'used') removeNetns(name);
      }
    } finally {
      await Promise.all(peers.map((peer) => peer.end()));
    }
  });

  it('stays while another scope uses it that has no interface yet, and not after its death', async () => {
    const own = new NetnsScope(name);
    const peer = new Peer();
    expect(await peer.does(name)).to.equal('used');
    own.close();
    expect(netnsExists(name)).to.equal(true);
    removeNetns(name);
    const again = new NetnsScope(name);
    expect(again.created).to.equal(true);
    await peer.does('');
    expect(await peer.does(name)).to.equal('used');
    peer.kill();
    await peer.end();
    again.close();
    again.close();
    expect(netnsExists(name)).to.equal(false);
  });

  it('is not removed if another namespace got its name', () => {
    const own = new NetnsScope(name);
    removeNetns(name);
    const other = new NetnsScope(name);
    own.close();
    expect(netnsExists(name)).to.equal(true);
    other.close();
    expect(netnsExists(name)).to.equal(false);
  });
});
