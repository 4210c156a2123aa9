import { expect } from 'chai';
import { RealClock } from '../../src/host/clock.ts';
import { hostEventBegin, hostEventEnd } from '../../src/host/host_event.ts';
import { inPass, passClock, passReset, passUpcall } from '../../src/sys/pass.ts';

const turn = () => new Promise((resolve) => setImmediate(resolve));

describe('host: interrupts', () => {
  const clock = new RealClock();
  let log: string[] = [];
  const note = (what: string) => ({ run: () => void log.push(what) });

  /** An event of the host whose handler is \`fn\`. */
  const event = (fn: () => void): void => {
    hostEventBegin();
    try {
      fn();
    } finally {
      hostEventEnd();
    }
  };

  beforeEach(() => {
    log = [];
    passReset();
    passClock(clock);
  });
  afterEach(passReset);

  it('run at the end of the event that raises them, in order', () => {
    event(() => {
      clock.interrupt(note('a'));
      clock.interrupt(note('b'));
      log.push('event');
    });
    expect(log).to.deep.equal(['event', 'a', 'b']);
  });

  it('run in a later turn if no event raises them, and are an event themselves', async () => {
    clock.interrupt({
      run: () => {
        log.push('a');
        clock.interrupt(note('raised by a'));
      },
    });
    setImmediate(() => log.push('next turn'));
    expect(log).to.deep.equal([]);
    await turn();
    expect(log).to.deep.equal(['a', 'raised by a', 'next turn']);
  });

  it('leave the event after 32 handlers, and continue in later turns', async () => {
    let n = 0;
    const again = {
      run(): void {
        if (++n < 100) clock.interrupt(again);
      },
    };
    event(() => clock.interrupt(again));
    expect(n).to.equal(32);
    await turn();
    expect(n).to.equal(64);
    await turn();
    await turn();
    expect(n).to.equal(100);
  });

  it('let a program have its turn before the next one', async () => {
    const upcall = { upcall: () => void log.push('program') };
    event(() => {
      clock.interrupt({ run: () => inPass(passUpcall, upcall) });
      clock.interrupt(note('next'));
    });
    expect(log).to.deep.equal([]);
    await turn();
    expect(log).to.deep.equal(['program', 'next']);
  });

  it('lose none when one throws', async () => {
    const throws = (): void =>
      event(() => {
        clock.interrupt({
          run: () => {
            throw new Error('no');
          },
        });
        clock.interrupt(note('next'));
      });
    expect(throws).to.throw('no');
    await turn();
    expect(log).to.deep.equal(['next']);
    event(() => clock.interrupt(note('later')));
    expect(log).to.deep.equal(['next', 'later']);
  });

  it('run when the handler of the event throws', () => {
    const throws = (): void =>
      event(() => {
        clock.interrupt(note('a'));
        throw new Error('handler');
      });
    expect(throws).to.throw('handler');
    expect(log).to.deep.equal(['a']);
  });
});
