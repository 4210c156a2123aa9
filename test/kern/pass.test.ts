import { expect } from 'chai';
import { passDefer, passEnter, passLeave, passReset } from '../../src/sys/pass.ts';

describe('passes', () => {
  let log: string[];
  const task = (name: string, more?: () => void): { run: () => void } => ({
    run: () => {
      log.push(name);
      more?.();
    },
  });

  beforeEach(() => {
    passReset();
    log = [];
  });

  it('run what was deferred when the outermost one ends, first in, first out', () => {
    passEnter();
    passDefer(task('a'));
    passEnter();
    passDefer(task('b'));
    passLeave();
    expect(log).to.eql([]);
    passLeave();
    expect(log).to.eql(['a', 'b']);
  });

  it('without one, a task runs now', () => {
    passDefer(task('a'));
    expect(log).to.eql(['a']);
  });

  it('what a deferred task defers runs after what is waiting, passes inside it do not drain', () => {
    passEnter();
    passDefer(
      task('a', () => {
        passDefer(task('c'));
        passEnter();
        passDefer(task('d'));
        passLeave();
        log.push('a ends');
      }),
    );
    passDefer(task('b'));
    passLeave();
    expect(log).to.eql(['a', 'a ends', 'b', 'c', 'd']);
  });

  it('a task that throws loses nothing of what waits behind it', () => {
    passEnter();
    passDefer(
      task('a', () => {
        throw new Error('a');
      }),
    );
    passDefer(task('b'));
    expect(() => passLeave()).to.throw('a');
    expect(log).to.eql(['a']);
    passDefer(task('c'));
    expect(log).to.eql(['a', 'b', 'c']);
  });
});
