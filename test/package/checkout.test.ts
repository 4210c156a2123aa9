/** How scripts/lib.sh finds out whether node_modules is current: by content, not by times. */

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { needsHere } from '../support/needs.ts';
import { packageRoot } from '../support/root.ts';

const LOCK = {
  packages: {
    '': { name: 'x' },
    'node_modules/a': { version: '1.0.0', integrity: 'sha512-a' },
    'node_modules/other-cpu': { version: '1.0.0', integrity: 'sha512-o', optional: true },
  },
};
const INSTALLED = { packages: { 'node_modules/a': LOCK.packages['node_modules/a'] } };

describe('package: the packages of a checkout', function () {
  this.timeout(60_000);
  let dir: string;

  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'tapnic-checkout-'));
    mkdirSync(join(dir, 'scripts'));
    mkdirSync(join(dir, 'bin'));
    for (const file of ['lib.sh', 'deps-current.mjs'])
      copyFileSync(join(packageRoot(), 'scripts', file), join(dir, 'scripts', file));
    writeFileSync(join(dir, 'package-lock.json'), JSON.stringify(LOCK));
    // An npm that installs what the lock says, or cannot because it is offline.
    const npm = `#!/bin/sh
echo "$@" >> npm.log
[ -e offline ] && exit 1
rm -rf node_modules && mkdir -p node_modules/a && sleep 0.3
echo '{}' > node_modules/a/package.json
echo '${JSON.stringify(INSTALLED)}' > node_modules/.package-lock.json
`;
    writeFileSync(join(dir, 'bin/npm'), npm);
    chmodSync(join(dir, 'bin/npm'), 0o755);
    install();
  });
  afterEach(() => rmSync(dir, { recursive: true }));

  /** Writes node_modules as a copy has it: without a stamp, older than package-lock.json. */
  function install(installed: object = INSTALLED): void {
    mkdirSync(join(dir, 'node_modules/a'), { recursive: true });
    writeFileSync(join(dir, 'node_modules/a/package.json'), '{}');
    const record = join(dir, 'node_modules/.package-lock.json');
    writeFileSync(record, JSON.stringify(installed));
    utimesSync(record, 1, 1);
  }

  const SCRIPT = '. scripts/lib.sh; with_build_lock ensure_deps';
  const env = (): NodeJS.ProcessEnv => ({
    ...process.env,
    PATH: `${join(dir, 'bin')}:${process.env['PATH']}`,
  });
  const ensure = (before = ''): { status: number | null; stderr: string } =>
    spawnSync('bash', ['-euc', before + SCRIPT], { cwd: dir, encoding: 'utf8', env: env() });
  const calls = (): number => {
    const log = join(dir, 'npm.log');
    return existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n').length : 0;
  };

  it('are used as they are if a copy has the right ones, whatever its times', () => {
    for (let i = 0; i < 2; i++) {
      expect(ensure()).to.include({ status: 0, stderr: '' });
      // Times of a fresh clone: everything is new.
      utimesSync(join(dir, 'package-lock.json'), new Date(), new Date());
    }
    expect(calls()).to.equal(0);
  });

  it('are installed if one is missing or differs, also after a start with the right ones', () => {
    expect(ensure().status).to.equal(0);
    install({ packages: { 'node_modules/a': { version: '0.9.0', integrity: 'sha512-b' } } });
    utimesSync(join(dir, 'node_modules/.package-lock.json'), new Date(), new Date(Date.now() + 5));
    const changed = ensure();
    expect(changed.stderr).to.match(/npm ci \(node_modules\/a is 0\.9\.0, not 1\.0\.0\)/);
    expect([changed.status, calls()]).to.deep.equal([0, 1]);
    rmSync(join(dir, 'node_modules'), { recursive: true });
    expect(ensure().stderr).to.match(/npm ci \(node_modules has no record of npm\)/);
    install();
    rmSync(join(dir, 'node_modules/a/package.json'));
    rmSync(join(dir, 'node_modules/.tapnic-lock'), { force: true });
    expect(ensure().stderr).to.match(/npm ci \(node_modules\/a is missing\)/);
    expect(ensure()).to.include({ status: 0, stderr: '' });
    expect(calls()).to.equal(3);
  });

  it('are not needed from the registry by an offline machine that has them', () => {
    writeFileSync(join(dir, 'offline'), '');
    expect(ensure()).to.include({ status: 0, stderr: '' });
    install({ packages: {} });
    utimesSync(join(dir, 'node_modules/.package-lock.json'), new Date(), new Date(Date.now() + 5));
    const failed = ensure();
    expect(failed.status).to.equal(1);
    expect(failed.stderr).to.match(/npm ci failed: it needs the registry, or a node_modules/);
  });

  it('are installed once by two starts at the same time', async () => {
    rmSync(join(dir, 'node_modules'), { recursive: true });
    const both = [0, 1].map(() =>
      once(spawn('bash', ['-euc', SCRIPT], { cwd: dir, env: env(), stdio: 'ignore' }), 'close'),
    );
    expect((await Promise.all(both)).map(([code]) => code as number)).to.deep.equal([0, 0]);
    expect(calls()).to.equal(1);
  });

  it('are used in a read-only checkout; missing ones give one clear line', function () {
    needsHere(this, 'root', 'unshare');
    const readOnly = (): ReturnType<typeof spawnSync> =>
      spawnSync(
        'unshare',
        [
          '-m',
          'bash',
          '-euc',
          `mount --bind "$PWD" "$PWD"; mount -o remount,ro,bind "$PWD"; cd "$PWD"; ${SCRIPT}`,
        ],
        { cwd: dir, encoding: 'utf8', env: env() },
      );
    expect(readOnly()).to.include({ status: 0, stderr: '' });
    rmSync(join(dir, 'node_modules'), { recursive: true });
    const failed = readOnly();
    expect(failed.status).to.equal(1);
    expect(failed.stderr).to.match(/cannot install packages: \S+ is not writable\n$/);
    expect(calls()).to.equal(0);
  });
});
