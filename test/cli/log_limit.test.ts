import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { LINES_PER_SECOND, LogLimit } from '../../src/cli/log_limit.ts';
import { counted, R_LOG_SUPPRESSED, resetReasons } from '../../src/sys/reason.ts';

describe('cli: limit on log lines', () => {
  it('prints 100 lines per second and of errors, and says how many it suppressed', async () => {
    resetReasons();
    const lines: string[] = [];
    const reports: number[] = [];
    const limit = new LogLimit(
      (line) => lines.push(line),
      (n) => reports.push(n),
    );
    for (let i = 0; i < LINES_PER_SECOND + 50; i++) limit.write(`a${i}`, false);
    expect(lines).to.have.lengthOf(LINES_PER_SECOND);
    limit.write('an error', true);
    expect(lines.at(-1)).to.equal('an error');
    expect(counted(R_LOG_SUPPRESSED)).to.equal(50);
    expect(reports).to.deep.equal([]);
    await sleep(1100);
    expect(reports).to.deep.equal([50]);
    limit.write('next', false);
    expect(lines.at(-1)).to.equal('next');
    await sleep(1100);
    expect(reports, 'no report without a loss').to.deep.equal([50]);
  }).timeout(10_000);
});
