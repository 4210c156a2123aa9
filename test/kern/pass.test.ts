import { expect } from 'chai';
import {
  inPass,
  passClock,
  passDefer,
  passDoorbell,
  passReset,
  passTime,
  passUpcall,
  recordEnter,
  recordLeave,
  runTask,
} from '../../src/sys/pass.ts';
import { ManualClock } from '../../src/host/manual_clock.ts';
import type { Task } from '../../src/sys/clock.ts';
import { bytesPerCall } from '../support/alloc.ts';

const NONE = 1;

describe('passes', () => {
  let clock: ManualClock;
  let log: string[];
  const task = (name: string, more?: () => void): { run: () => void; upcall: () => void } => {
    const run = (): void => {
      log.push(name);
      more?.();
    };
    return { run, upcall: run };
  };
  const failing = (name: string): ReturnType<typeof task> =>
    task(name, () => {
      throw new Error(name);
    });

  beforeEach(() => {
    passReset();
    clock = new ManualClock();
    passClock(clock);
    log = [];
  });

  it('have one time each; outside them time goes on', () => {
    clock.advance(5);
    inPass(() => {
      expect(passTime(clock)).to.equal(5);
      clock.advance(3);
      inPass(() => expect(passTime(clock)).to.equal(5));
    });
    expect(passTime(clock)).to.equal(8);
    clock.advance(1);
    expect(passTime(clock)).to.equal(9);
    inPass(() => expect(passTime(clock)).to.equal(9));
  });

  it('return what the function returns and hand it its arguments', () => {
    expect(inPass(() => 7)).to.equal(7);
    expect(inPass((a: number, b: number) => a - b, 5, 3)).to.equal(2);
    const list = (a: number, b: number, c: number): number[] => [a, b, c];
    expect(inPass(list, 1, 2, 3)).to.eql([1, 2, 3]);
  });

  it('run deferred work at the outermost end, first in, first out', () => {
    inPass(() => {
      passDefer(task('a'));
      inPass(() => passDefer(task('b')));
      expect(log).to.eql([]);
    });
    expect(log).to.eql(['a', 'b']);
  });

  it('run what deferred work defers behind what waits, and join inside it', () => {
    inPass(() => {
      passDefer(
        task('a', () => {
          passDefer(task('c'));
          inPass(() => passDefer(task('d')));
          log.push('a ends');
        }),
      );
      passDefer(task('b'));
    });
    expect(log).to.eql(['a', 'a ends', 'b', 'c', 'd']);
  });

  it('ring doorbells behind all deferred work, and call programs in a later turn', () => {
    inPass(() => {
      passUpcall(task('upcall'));
      passDoorbell(task('doorbell', () => passDefer(task('from the doorbell'))));
      passDoorbell(task('doorbell 2'));
      passDefer(task('a', () => passDefer(task('b'))));
    });
    const pass = ['a', 'b', 'doorbell', 'from the doorbell', 'doorbell 2'];
    expect(log).to.eql(pass);
    clock.runPosted();
    expect(log).to.eql([...pass, 'upcall']);
  });

  it('run each upcall outside a pass, and the upcalls of its own passes behind those that wait', () => {
    inPass(() => {
      passUpcall(
        task('u1', () => {
          expect(() => passDefer(task('x'))).to.throw('no pass is open');
          inPass(() => {
            passUpcall(task('u3'));
            passDefer(task('work of u1'));
          });
          log.push('u1 ends');
        }),
      );
      passUpcall(task('u2'));
    });
    clock.runPosted();
    expect(log).to.eql(['u1', 'work of u1', 'u1 ends', 'u2', 'u3']);
  });

  it('drain when the function throws, and throw its error', () => {
    const error = new Error('body');
    const run = (): void =>
      inPass(() => {
        passDefer(task('work'));
        passDoorbell(task('doorbell'));
        passUpcall(task('upcall'));
        throw error;
      });
    expect(run).to.throw(error);
    expect(log).to.eql(['work', 'doorbell']);
    clock.runPosted();
    expect(log).to.eql(['work', 'doorbell', 'upcall']);
    inPass(() => passDefer(task('next')));
    expect(log.at(-1)).to.equal('next');
  });

  it('pass an exception on to a caller that joined, without ending the pass', () => {
    inPass(() => {
      passDefer(task('work'));
      const joined = (): void =>
        inPass(() => {
          throw new Error('joined');
        });
      expect(joined).to.throw('joined');
      expect(log).to.eql([]);
      passDefer(task('more'));
    });
    expect(log).to.eql(['work', 'more']);
  });

  for (const [kind, put] of [
    ['deferred work', passDefer],
    ['a doorbell', passDoorbell],
  ] as const)
    it(`lose nothing of what waits behind ${kind} that throws`, () => {
      const run = (): void =>
        inPass(() => {
          put(failing('a'));
          put(task('b'));
          passUpcall(task('upcall'));
        });
      expect(run).to.throw('a');
      clock.runPosted();
      expect(log).to.eql(['a', 'b', 'upcall']);
      inPass(() => passDefer(task('c')));
      expect(log.at(-1)).to.equal('c');
    });

  it('throw several errors as one, the first one first', () => {
    let thrown: unknown = null;
    try {
      inPass(() => {
        passDefer(failing('work'));
        passDoorbell(failing('doorbell'));
        throw new Error('body');
      });
    } catch (e) {
      thrown = e;
    }
    expect(thrown).to.be.instanceOf(AggregateError);
    const { errors, message } = thrown as AggregateError;
    expect(errors.map(({ message: text }: Error) => text)).to.eql(['body', 'work', 'doorbell']);
    expect(message).to.equal('Error: body; Error: work; Error: doorbell');
  });

  it('throw an undefined that was thrown', () => {
    let caught = false;
    try {
      inPass(() => {
        throw undefined;
      });
    } catch {
      caught = true;
    }
    expect(caught).to.equal(true);
  });

  it('throw the error of an upcall in its turn of the event loop, and return the result of the call', () => {
    const run = (): number =>
      inPass(() => {
        passUpcall(
          task('u1', () => {
            inPass(() => passUpcall(failing('u3')));
            log.push('u1 ends');
          }),
        );
        passUpcall(failing('u2'));
        return 7;
      });
    expect(run()).to.equal(7);
    expect(log).to.eql([]);
    expect(() => clock.runPosted()).to.throw('u2');
    expect(log).to.eql(['u1', 'u1 ends', 'u2']);
    expect(() => clock.runPosted()).to.throw('u3');
    clock.runPosted();
  });

  it('run one upcall in a turn, so that programs that answer each other leave turns to others', () => {
    let turns = 0;
    const posted: Task[] = [];
    const counting = new ManualClock();
    counting.post = (t) => void posted.push(t);
    passClock(counting);
    const answer = (): void => {
      turns++;
      inPass(() => passUpcall({ upcall: answer }));
    };
    inPass(() => passUpcall({ upcall: answer }));
    inPass(() => passUpcall({ upcall: answer }));
    for (let n = 1; n <= 5000; n++) {
      posted.shift()!.run();
      expect(turns).to.equal(n);
      expect(posted).to.have.lengthOf(2);
    }
  });

  it('panic on work that is put off outside a pass', () => {
    for (const put of [passDefer, passDoorbell, passUpcall])
      expect(() => put(task('a'))).to.throw('no pass is open');
    expect(log).to.eql([]);
  });

  it('panic when a work record is entered twice, and not after it was left', () => {
    const record = { entered: false };
    const use = (inside: () => void): void => {
      recordEnter(record);
      try {
        inside();
      } finally {
        recordLeave(record);
      }
    };
    expect(() => use(() => use(() => {}))).to.throw('the record is in use');
    let used = false;
    use(() => (used = true));
    expect(used).to.equal(true);
  });

  it('leave no garbage', () => {
    const item = { run(): void {}, upcall(): void {} };
    const put = (a: object, b: number, c: number): number => {
      passDefer(item);
      passDoorbell(item);
      passUpcall(item);
      return inPass(joined, a, b, c);
    };
    const joined = (_a: object, b: number, c: number): number => b + c;
    const round = (): void => {
      inPass(put, item, 1, 2);
      clock.runPosted();
    };
    expect(bytesPerCall(round)).to.be.below(NONE);
    expect(bytesPerCall(() => inPass(runTask, item))).to.be.below(NONE);
  }).timeout(60_000);
});
