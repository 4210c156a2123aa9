/** Filters of faults: tcpdump compiles those with names while the event loop turns. */

import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { createStack, type Stack, type StackOptions, TapnicError } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { pinged } from '../support/ping.ts';

/** Resolves with the TapnicError that `promise` rejects with; rejects otherwise. */
async function rejection(promise: Promise<unknown>): Promise<TapnicError> {
  try {
    await promise;
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not reject');
}

/** Number of times that the event loop ran a timer of 10 ms before `promise` settled. */
async function turnsUntil(promise: Promise<unknown>): Promise<number> {
  let turns = 0;
  const timer = setInterval(() => turns++, 10);
  await promise.catch(() => undefined);
  clearInterval(timer);
  return turns;
}

function alive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

/** tcpdump compiles filters with names. */
const NAMED = 'host www.example.com';

/** Far fewer than in the two seconds that tcpdump has, far more than around a blocking call. */
const TURNS = 20;

describe('api: filters of faults', function () {
  needs('root', 'tap', 'netns', 'tcpdump');
  this.timeout(60_000);
  let ns: Netns;
  let dir: string;
  let path: string | undefined;
  let stack: Stack | null = null;

  const open = async (options: StackOptions = {}): Promise<Stack> =>
    (stack = await createStack({ netns: ns.name, memory: '32M', engine: 'ts', ...options }));

  beforeEach(() => {
    ns = new Netns('filter');
    dir = mkdtempSync(join(tmpdir(), 'tapnic-filter-'));
    path = process.env['PATH'];
  });
  afterEach(async () => {
    process.env['PATH'] = path;
    const leaked = await stack?.close();
    stack = null;
    ns[Symbol.dispose]();
    rmSync(dir, { recursive: true });
    expect(leaked ?? {}).to.deep.equal({});
  });

  const pidFile = (): string => join(dir, 'pid');

  /** Puts a tcpdump into the path that does not end. It writes its pid to a file. */
  function hangTcpdump(): void {
    const script = `#!/bin/sh\necho $$ > ${pidFile()}.new\nmv ${pidFile()}.new ${pidFile()}\nexec sleep 30\n`;
    writeFileSync(join(dir, 'tcpdump'), script, { mode: 0o755 });
    process.env['PATH'] = `${dir}:${path}`;
  }

  it('the stack works meanwhile, and the fault waits for its filter', async () => {
    const s = await open();
    hangTcpdump();
    const fault = s.addFault('drop', { point: 'rx', match: NAMED });
    expect(JSON.parse(JSON.stringify(fault)), 'the entry is data').to.deep.equal(s.faults()[0]);
    const [turns, answers, error] = await Promise.all([
      turnsUntil(fault.ready),
      pinged(ns, '192.0.2.2', 2),
      rejection(fault.ready),
    ]);
    expect(turns).to.be.above(TURNS);
    expect(answers).to.equal(2);
    expect(error.code).to.equal('EINVAL');
    expect(error.message).to.equal(
      'fault: EINVAL: match: host www.example.com: tcpdump took too long: use addresses, not names',
    );
    expect(s.faults(), 'the fault was removed').to.deep.equal([]);
  });

  it('a fault without a filter is ready at once; a wrong filter is a rejection', async () => {
    const s = await open();
    const plain = s.addFault('drop', { nth: 1_000_000 });
    await plain.ready;
    expect(s.faults().map(({ id }) => id)).to.deep.equal([plain.id]);
    for (const [match, why] of [
      ['no such', /^fault: EINVAL: match: no such: /],
      ['a\0b', /^fault: EINVAL: match: "a\\u0000b": not a filter$/],
      ['x'.repeat(200_000), /^fault: EINVAL: match: tcpdump is needed to compile it: .*E2BIG/],
    ] as const)
      expect((await rejection(s.addFault('drop', { match }).ready)).message).to.match(why);
    process.env['PATH'] = dir;
    expect((await rejection(s.addFault('drop', { match: NAMED }).ready)).message).to.match(
      /^fault: EINVAL: match: tcpdump is needed to compile it: spawn tcpdump ENOENT$/,
    );
    expect(s.faults().map(({ id }) => id)).to.deep.equal([plain.id]);
  });

  it('a removed fault and a closed stack cancel the compilation, and end tcpdump', async () => {
    const s = await open();
    hangTcpdump();
    const removed = s.addFault('drop', { match: NAMED });
    // No handler: an unhandled rejection would end the run.
    s.addFault('drop', { match: NAMED });
    while (!existsSync(pidFile())) await new Promise((resolve) => setTimeout(resolve, 10));
    const pid = Number(readFileSync(pidFile(), 'utf8'));
    s.removeFault(removed.id);
    await s.close();
    expect((await rejection(removed.ready)).message).to.equal(
      `fault: ECANCELED: ${removed.id}: it was removed`,
    );
    // A killed process exists until libuv has read its status.
    for (let i = 0; i < 500 && alive(pid); i++) await new Promise((r) => setTimeout(r, 10));
    expect(alive(pid)).to.equal(false);
  });

  it('createStack compiles its filters likewise', async () => {
    hangTcpdump();
    const opened = open({ fault: [`drop,match=${NAMED}`] });
    const [turns, error] = await Promise.all([turnsUntil(opened), rejection(opened)]);
    expect(turns).to.be.above(TURNS);
    expect(error.message).to.equal(
      'createStack: EINVAL: fault: match: host www.example.com: tcpdump took too long: use addresses, not names',
    );
  });
});
