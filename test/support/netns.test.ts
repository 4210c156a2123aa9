import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import { needs } from './needs.ts';
import { Netns } from './netns.ts';
import { distRoot } from './root.ts';

const names = (): string => execFileSync('ip', ['netns', 'list'], { encoding: 'utf8' });

describe('test support: namespaces', () => {
  needs('root', 'netns');

  it('creates a namespace with only lo, which is up, and removes it and its processes afterwards', async () => {
    let name = '';
    let pid: number | undefined;
    {
      using ns = new Netns('a');
      ({ name } = ns);
      expect(names()).to.contain(name);
      expect(ns.exec('ip', ['-br', 'link']).trim().split('\n')).to.have.lengthOf(1);
      expect(ns.exec('ip', ['-br', 'addr', 'show', 'lo'])).to.contain('127.0.0.1/8');
      ({ pid } = ns.spawn('sleep', ['1000']));
      expect(await ns.execAsync('cat', [], { input: 'through' })).to.equal('through');
      expect(await ns.run('sh', ['-c', 'echo no >&2; exit 3'])).to.deep.equal({
        status: 3,
        signal: null,
        stdout: '',
        stderr: 'no\n',
      });
    }
    expect(names()).not.to.contain(name);
    for (let i = 0; i < 100 && existsSync(`/proc/${pid}`); i++)
      await new Promise((resolve) => setTimeout(resolve, 10));
    expect(existsSync(`/proc/${pid}`), 'the child is still alive').to.equal(false);
  });

  it('is removed after a throw', () => {
    let name = '';
    expect(() => {
      using ns = new Netns();
      ({ name } = ns);
      throw new Error('on purpose');
    }).to.throw('on purpose');
    expect(name).not.to.equal('');
    expect(names()).not.to.contain(name);
  });

  it('is removed after two signals, as timeout(1) and npm send them', () => {
    const script = `import { Netns } from ${JSON.stringify(join(distRoot, 'test/support/netns.js'))};
      process.on('exit', () => process.kill(process.pid, 'SIGTERM'));
      console.log(new Netns('t').name);
      process.kill(process.pid, 'SIGTERM');
      setTimeout(() => {}, 60_000);`;
    const args = ['--input-type=module', '-e', script];
    const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8' });
    expect(stdout).to.match(/-t\n$/);
    expect(names()).not.to.contain(stdout.trim());
    expect(status).to.equal(143);
  });

  it('kills a program that exceeds its time limit', async () => {
    using ns = new Netns();
    const { signal } = await ns.run('sleep', ['1000'], { timeoutMs: 50 });
    expect(signal).to.equal('SIGKILL');
  });
});
