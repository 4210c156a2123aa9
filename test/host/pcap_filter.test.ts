import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { compileFilterInsns } from '../../src/host/pcap_filter.ts';
import { needs } from '../support/needs.ts';

/** The message that `expression` is refused with. */
async function refusal(expression: string, signal?: AbortSignal): Promise<string> {
  try {
    await compileFilterInsns(expression, signal);
  } catch (e) {
    return (e as Error).message;
  }
  throw new Error(`compiled: ${expression}`);
}

describe('pcap filters', function () {
  needs('tcpdump');
  this.timeout(20_000);

  it('compile, or are refused with the reason of tcpdump', async () => {
    expect((await compileFilterInsns('icmp')).length).to.be.above(3);
    expect(await compileFilterInsns('')).to.deep.equal([[6, 0, 0, 65_535]]);
    expect(await refusal('frob')).to.match(/^match: frob: /);
  });

  it('end after two seconds, or when they are canceled, also in a queue', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-filter-'));
    const path = process.env['PATH'];
    try {
      writeFileSync(join(dir, 'tcpdump'), '#!/bin/sh\nexec sleep 30\n');
      chmodSync(join(dir, 'tcpdump'), 0o755);
      process.env['PATH'] = `${dir}:${path}`;
      let turns = 0;
      const timer = setInterval(() => turns++, 10);
      const stop = new AbortController();
      const first = refusal('host www.example.com');
      const second = refusal('icmp', stop.signal);
      expect(await first).to.equal(
        'match: host www.example.com: tcpdump took too long: use addresses, not names',
      );
      clearInterval(timer);
      expect(turns, 'the event loop turned').to.be.above(20);
      stop.abort();
      expect(await second).to.equal('match: icmp: canceled');
      expect(await refusal('icmp', stop.signal)).to.equal('match: icmp: canceled');
    } finally {
      process.env['PATH'] = path;
      rmSync(dir, { recursive: true });
    }
    expect((await compileFilterInsns('icmp')).length).to.be.above(3);
  });
});
