import { expect } from 'chai';
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { RealClock } from '../../src/host/clock.ts';
import { distRoot } from '../support/root.ts';

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms));

describe('host: RealClock', () => {
  it('advances in whole nanoseconds, and agrees with the date', () => {
    const clock = new RealClock();
    const a = clock.nowNs();
    let b = a;
    while (b === a) b = clock.nowNs();
    expect(b).to.be.greaterThan(a);
    expect(Number.isSafeInteger(b)).to.equal(true);
    expect(clock.bootSec + b / 1e9).to.be.closeTo(Date.now() / 1000, 0.05);
  });

  it('never runs an alarm early, and at most 200 ms late', async () => {
    const clock = new RealClock();
    for (const delayNs of [0, 300_000, 1_000_000, 7_500_000, 20_000_000]) {
      const deadline = clock.nowNs() + delayNs;
      const at = await new Promise<number>((resolve) => {
        clock.setAlarm(deadline, { run: () => resolve(clock.nowNs()) });
      });
      expect(at - deadline).to.be.within(0, 200_000_000);
    }
  });

  it('has one alarm: an earlier or a later one replaces it, and it can be cleared', async () => {
    const clock = new RealClock();
    const log: string[] = [];
    const note = (what: string) => ({ run: () => void log.push(what) });
    clock.setAlarm(clock.nowNs() + 5e6, note('replaced by later'));
    clock.setAlarm(clock.nowNs() + 30e6, note('later'));
    await sleep(15);
    expect(log).to.deep.equal([]);
    await sleep(40);
    expect(log).to.deep.equal(['later']);
    clock.setAlarm(clock.nowNs() + 1e12, note('replaced by earlier'));
    clock.setAlarm(clock.nowNs() + 2e6, note('earlier'));
    await sleep(30);
    clock.setAlarm(clock.nowNs() + 2e6, note('cleared'));
    clock.clearAlarm();
    await sleep(20);
    expect(log).to.deep.equal(['later', 'earlier']);
  });

  it('runs posted tasks in order, after the running code', async () => {
    const clock = new RealClock();
    const log: string[] = [];
    clock.post({ run: () => void log.push('a') });
    clock.post({
      run: () => {
        clock.post({ run: () => void log.push('posted by b') });
        log.push('b');
      },
    });
    expect(log).to.deep.equal([]);
    await sleep(5);
    expect(log).to.deep.equal(['a', 'b', 'posted by b']);
  });

  it('keeps the process alive only for an alarm with ref on, and a task that throws does not stop the next one', () => {
    const url = JSON.stringify(pathToFileURL(join(distRoot, 'src/host/clock.js')));
    const run = (code: string) => {
      const text = `import { RealClock } from ${url}; const task = { run() { console.log('ran'); } }; ${code}`;
      const args = ['--input-type=module', '-e', text];
      return execFileSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 }).trim();
    };
    expect(
      run(`const c = new RealClock({ ref: false }); c.setAlarm(c.nowNs() + 9e9, task);`),
    ).to.equal('');
    expect(
      run(`const c = new RealClock(); c.setAlarm(c.nowNs() + 9e9, task); c.clearAlarm();`),
    ).to.equal('');
    expect(run(`const c = new RealClock(); c.setAlarm(c.nowNs() + 5e6, task);`)).to.equal('ran');
    const thrower = `process.on('uncaughtException', () => {}); const c = new RealClock();
      c.post({ run() { throw new Error('x'); } }); c.post(task);`;
    expect(run(thrower)).to.equal('ran');
  }).timeout(20_000);
});
