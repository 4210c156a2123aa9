/** `--napi thread`: a kernel thread processes the frames, if the namespace's sysfs is writable. */

import { expect } from 'chai';
import { readFileSync } from 'node:fs';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { sha256, Site, withServed } from '../support/served.ts';

describe('netns: --napi thread', function () {
  needs('root', 'tap', 'netns', 'curl', 'unshare');
  this.timeout(60_000);

  it('has a NAPI thread and serves the same bytes', async () => {
    using site = new Site();
    const bytes = site.file('file', 20_000_000);
    await withServed(site, ['--napi', 'thread'], async (tapnic) => {
      expect(tapnic.ready.napi).to.equal('thread');
      expect(tapnic.ns.exec('cat', ['/sys/class/net/nic0/threaded']).trim()).to.equal('1');
      const r = await tapnic.curl('-o', site.path('out'), tapnic.urlOf('file'));
      expect(r.status, r.stderr).to.equal(0);
      expect(sha256(readFileSync(site.path('out')))).to.equal(sha256(bytes));
    });
  });

  it('runs without one, and warns, where sysfs cannot be written', async () => {
    using site = new Site();
    site.file('file', 100_000);
    using ns = new Netns();
    // As in a container: sysfs is mounted read-only.
    const tapnic = await Instance.start(
      ns,
      ['serve', site.dir, '--napi', 'thread'],
      [
        'unshare',
        '--mount',
        'sh',
        '-c',
        'mount -o remount,ro /sys 2>/dev/null || mount -t sysfs -o ro sysfs /sys; exec "$@"',
        'sh',
      ],
    );
    expect(tapnic.ready.napi).to.equal('off');
    const r = await tapnic.curl('-o', '/dev/null', tapnic.urlOf('file'));
    expect(r.status, r.stderr).to.equal(0);
    const exit = await tapnic.stop();
    expect(exit.code, exit.stderr).to.equal(0);
    expect(exit.leaked).to.deep.equal({});
    expect(exit.stderr.match(/no NAPI thread/g)).to.have.length(1);
  });
});
