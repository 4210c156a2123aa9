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

  it('run deferred tasks in FIFO order when the outermost pass ends', () => {
    passEnter();
    passDefer(task('a'));
    passEnter();
    passDefer(task('b'));
    passLeave();
    expect(log).to.eql([]);
    passLeave();
    expect(log).to.eql(['a', 'b']);
  });

  it('run a task immediately when no pass is open', () => {
    passDefer(task('a'));
    expect(log).to.eql(['a']);
  });

  it('run a task deferred by a task after those already waiting; a pass inside a task does not drain the queue', () => {
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

  it('keep the waiting tasks when a task throws', () => {
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
