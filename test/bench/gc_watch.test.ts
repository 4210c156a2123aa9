import { expect } from 'chai';
import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { gcFacts, GcWatch } from './gc_watch.ts';

/** A process that keeps or drops what it allocates, on request. */
const PROGRAM = `
  const kept = [];
  process.stdin.on('data', (text) => {
    for (let i = 0; i < 200_000; i++) {
      const o = { a: i, b: [i, i + 1] };
      if (String(text).trim() === 'keep') kept.push(o);
    }
    process.stdout.write('done\\n');
  });
  process.stdout.write('ready\\n');
`;

async function told(child: ChildProcess, text: string): Promise<void> {
  const done = once(child.stdout!, 'data');
  child.stdin!.write(text);
  await done;
}

describe('bench: the garbage collector of a measured process', function () {
  this.timeout(60_000);

  it('reports pauses of the period and the growth of live memory only', async () => {
    using gc = new GcWatch();
    const [env, ...rest] = gc.wrapper;
    const child = spawn(env!, [...rest, process.execPath, '-e', PROGRAM]);
    try {
      await once(child.stdout, 'data');
      await told(child, 'drop\n');
      const first = await gc.read(child.pid!);
      expect(first.growth).to.equal(0);

      await told(child, 'drop\n');
      const dropped = await gc.read(child.pid!);
      expect(dropped.pauses).to.be.above(0);
      expect(dropped.maxMs).to.be.above(0);
      expect(dropped.growth).to.be.below(1 << 20);
      expect(gcFacts(dropped)).to.include({ gcPauses: dropped.pauses });

      await told(child, 'keep\n');
      const kept = await gc.read(child.pid!);
      expect(kept.growth).to.be.above(200_000 * 40);

      const idle = await gc.read(child.pid!);
      expect({ pauses: idle.pauses, maxMs: idle.maxMs }).to.deep.equal({ pauses: 0, maxMs: 0 });
    } finally {
      child.kill('SIGKILL');
    }
  });
});
