import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { within } from './instance.ts';

describe('within', () => {
  it('does not call `expired` after the promise has settled', async () => {
    let expired = 0;
    const late = (): string => `late ${++expired}`;
    expect(await within(Promise.resolve(7), 5, late)).to.equal(7);
    const failure = await within(Promise.reject(new Error('no')), 5, late).catch(String);
    expect(failure).to.equal('Error: no');
    await sleep(15);
    expect(expired).to.equal(0);
  });

  it('rejects with the message of `expired` when the time is over', async () => {
    const failure = await within(sleep(50), 5, () => 'too long').catch(String);
    expect(failure).to.equal('Error: too long');
  });
});
