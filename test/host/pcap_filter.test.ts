import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { compileFilterInsns } from '../../src/host/pcap_filter.ts';
import { needs } from '../support/needs.ts';

describe('pcap filters', () => {
  needs('tcpdump');

  it('compile, or are refused with the reason of tcpdump', () => {
    expect(compileFilterInsns('icmp').length).to.be.above(3);
    expect(() => compileFilterInsns('frob')).to.throw(/^match: frob: /);
  });

  it('block the event loop for at most two seconds', () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-filter-'));
    const path = process.env['PATH'];
    try {
      writeFileSync(join(dir, 'tcpdump'), '#!/bin/sh\nexec sleep 30\n');
      chmodSync(join(dir, 'tcpdump'), 0o755);
      process.env['PATH'] = `${dir}:${path}`;
      const begin = performance.now();
      expect(() => compileFilterInsns('host www.example.com')).to.throw(
        'match: host www.example.com: tcpdump took too long: use addresses, not names',
      );
      expect(performance.now() - begin).to.be.below(3000);
    } finally {
      process.env['PATH'] = path;
      rmSync(dir, { recursive: true });
    }
  });
});
