import { setImmediate as turn, setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { type Activity, LinkClock } from '../../src/host/link_clock.ts';

const MS = 1e6;

/** Waits until `done`, for some seconds. */
async function until(done: () => boolean): Promise<void> {
  for (const end = performance.now() + 5000; !done() && performance.now() < end;) await sleep(1);
}

/** A clock whose events and posted tasks write to `log`. */
class Rig {
  readonly clock = new LinkClock();
  readonly log: string[] = [];
  activity: Activity = 'none';
  reads = false;

  constructor() {
    this.clock.follow({ activity: () => this.activity, reading: () => this.reads });
  }

  /** An event after `ms`, which does `then`. */
  event(name: string, ms: number, then: () => void = () => undefined): void {
    this.clock.schedule(this.clock.nowNs() + ms * MS, {
      run: () => {
        this.note(name);
        then();
      },
    });
  }

  /** The callouts' alarm after `ms`. */
  alarm(name: string, ms: number): void {
    this.clock.setAlarm(this.clock.nowNs() + ms * MS, { run: () => this.note(name) });
  }

  note(name: string): void {
    this.log.push(`${name} ${this.clock.nowNs() / MS}`);
  }
}

describe('host: the clock of a link', () => {
  it('runs posted tasks one per turn, with their promise jobs, before time advances', async () => {
    const rig = new Rig();
    rig.event('event', 1, () => {
      for (const name of ['first', 'second'])
        rig.clock.post({
          run: () => {
            rig.note(name);
            void Promise.resolve().then(() => rig.note(`${name} reacts`));
            setImmediate(() => setImmediate(() => rig.event(`${name} later`, 0)));
          },
        });
      rig.clock.interrupt({ run: () => rig.note('interrupt') });
    });
    rig.event('next', 1.5);
    await rig.clock.advanceTurns(2 * MS);
    expect(rig.log).to.deep.equal([
      'event 1',
      'interrupt 1',
      'first 1',
      'first reacts 1',
      'second 1',
      'second reacts 1',
      'first later 1',
      'second later 1',
      'next 1.5',
    ]);
    expect(rig.clock.nowNs()).to.equal(2 * MS);
  });

  it('is still without a reason to advance, but runs what is due now', async () => {
    const rig = new Rig();
    rig.event('now', 0);
    rig.event('later', 1);
    rig.alarm('alarm', 2);
    await until(() => rig.log.length > 0);
    await sleep(5);
    expect(rig.log).to.deep.equal(['now 0']);
    // Frames that are on the wire drive an automatic clock; an idle alarm does not.
    rig.clock.start('auto');
    await until(() => rig.log.length > 1);
    await sleep(5);
    expect(rig.log).to.deep.equal(['now 0', 'later 1']);
    rig.activity = 'fast';
    rig.clock.poke();
    await until(() => rig.log.length > 2);
    expect(rig.log).to.deep.equal(['now 0', 'later 1', 'alarm 2']);
  });

  it('resolves waits in the order of their times', async () => {
    const rig = new Rig();
    rig.event('event', 3);
    const waits = [3, 1, 2].map((ms) =>
      rig.clock.advanceTurns(ms * MS).then((reached) => rig.note(`${ms} ${reached}`)),
    );
    await Promise.all(waits);
    expect(rig.log).to.deep.equal(['1 true 1', '2 true 2', 'event 3', '3 true 3']);
  });

  it('gives those who waited their turn before time advances', async () => {
    const rig = new Rig();
    rig.clock.start('auto');
    rig.event('event', 1);
    rig.event('next', 2);
    await rig.clock.run('active', Infinity, () => rig.log.length > 0);
    await turn();
    expect(rig.clock.nowNs()).to.equal(1 * MS);
    await rig.clock.run('active', Infinity, () => false);
    expect(rig.log).to.deep.equal(['event 1', 'next 2']);
  });

  it('stands while the disk is read', async () => {
    const rig = new Rig();
    rig.event('event', 1);
    rig.reads = true;
    const wait = rig.clock.advanceTurns(2 * MS);
    await sleep(10);
    expect(rig.log).to.deep.equal([]);
    rig.reads = false;
    await wait;
    expect(rig.log).to.deep.equal(['event 1']);
  });

  it('paces time that only idle timers use', async () => {
    const rig = new Rig();
    rig.alarm('alarm', 5000);
    let done = false;
    const start = performance.now();
    expect(await rig.clock.run('paced', 60_000 * MS, () => rig.log.length > 0)).to.equal(false);
    expect(performance.now() - start).to.be.at.least(4);
    expect(rig.log).to.deep.equal(['alarm 5000']);
    rig.clock.start('auto');
    rig.activity = 'slow';
    rig.alarm('slow', 5000);
    await until(() => rig.log.length > 1);
    expect(rig.log).to.have.lengthOf(2);
    // A wait for quiet does not wait for what may take as long as a program likes.
    expect(await rig.clock.run('active', Infinity, () => done)).to.equal(false);
    rig.activity = 'fast';
    const active = rig.clock.run('active', Infinity, () => done);
    done = true;
    rig.clock.poke();
    expect(await active).to.equal(false);
  });

  it('goes on after an exception of a task', async () => {
    const rig = new Rig();
    const thrown: unknown[] = [];
    const others = process.listeners('uncaughtException');
    process.removeAllListeners('uncaughtException');
    process.on('uncaughtException', (e) => thrown.push(e.message));
    rig.clock.post({
      run: () => {
        throw new Error('program');
      },
    });
    rig.event('event', 1, () => {
      throw new Error('event');
    });
    rig.event('next', 2);
    await rig.clock.advanceTurns(3 * MS);
    process.removeAllListeners('uncaughtException');
    for (const other of others) process.on('uncaughtException', other);
    expect(thrown).to.deep.equal(['program', 'event']);
    expect(rig.log).to.deep.equal(['event 1', 'next 2']);
  });

  it('ends what waits when it is closed, and runs nothing more', async () => {
    const rig = new Rig();
    rig.event('event', 1);
    const wait = rig.clock.advanceTurns(2 * MS);
    rig.clock.close();
    expect(await wait).to.equal(false);
    expect(await rig.clock.advanceTurns(3 * MS)).to.equal(false);
    await turn();
    expect(rig.log).to.deep.equal([]);
  });
});
