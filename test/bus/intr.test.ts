import { expect } from 'chai';
import { ManualClock } from '../../src/host/manual_clock.ts';
import { inPass, passDefer } from '../../src/sys/pass.ts';
import { bus_setup_intr, bus_teardown_intr, IntrVector } from '../../src/bus/intr.ts';

describe('IntrVector', () => {
  it('runs the handler once for two raises, later, inside a pass', () => {
    const clock = new ManualClock();
    const line = new IntrVector(clock);
    const log: string[] = [];
    bus_setup_intr(line, {
      run: () => {
        passDefer({ run: () => log.push('end of pass') });
        log.push('handler');
      },
    });
    line.raise();
    line.raise();
    expect(log).to.deep.equal([]);
    clock.runPosted();
    expect(log).to.deep.equal(['handler', 'end of pass']);
    expect(line.delivered).to.equal(1);
  });

  it('runs the handler again if the line is raised while it runs', () => {
    const clock = new ManualClock();
    const line = new IntrVector(clock);
    let runs = 0;
    bus_setup_intr(line, {
      run: () => {
        if (++runs < 3) line.raise();
      },
    });
    line.raise();
    clock.runPosted();
    expect(runs).to.equal(3);
  });

  it('counts an interrupt without a handler as stray', () => {
    const clock = new ManualClock();
    const line = new IntrVector(clock);
    bus_setup_intr(line, { run: () => expect.fail() });
    line.raise();
    bus_teardown_intr(line);
    clock.runPosted();
    expect(line.stray).to.equal(1);
  });

  it('closes the pass when the handler throws', () => {
    const clock = new ManualClock();
    const line = new IntrVector(clock);
    bus_setup_intr(line, {
      run: () => {
        throw new Error('handler');
      },
    });
    line.raise();
    expect(() => clock.runPosted()).to.throw('handler');
    expect(() => passDefer({ run(): void {} })).to.throw('no pass is open');
    let ran = false;
    inPass(() => passDefer({ run: () => (ran = true) }));
    expect(ran).to.equal(true);
  });
});
