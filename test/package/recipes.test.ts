/**
 * The recipes of examples/ci: each file is checked by the tool that knows its format, and what can
 * run without its platform runs here.
 */

import { spawnSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect } from 'chai';
import { parse } from 'yaml';
import { needs, needsHere } from '../support/needs.ts';
import { Netns, type Result } from '../support/netns.ts';
import { distRoot, packageRoot } from '../support/root.ts';
import { filesBelow } from '../support/sources.ts';

const root = packageRoot();
const CI = join(root, 'examples/ci');
const read = (file: string): string => readFileSync(join(CI, file), 'utf8');

interface Action {
  runs: { steps: { name: string; run: string; env?: Record<string, string> }[] };
}
interface Topology {
  topology: {
    nodes: Record<string, { cmd: string; exec: string[] }>;
    links: { endpoints: string[] }[];
  };
}

describe('package: recipes of examples/ci', function () {
  this.timeout(120_000);
  const project = mkdtempSync(join(tmpdir(), 'tapnic-recipes-'));

  before(() => {
    // A project that has the package installed, as the files compiled for this run.
    const tapnic = join(project, 'node_modules/tapnic');
    mkdirSync(tapnic, { recursive: true });
    mkdirSync(join(project, 'node_modules/.bin'));
    for (const name of ['package.json', 'build', 'node_modules', 'commonjs'])
      symlinkSync(join(root, name), join(tapnic, name));
    symlinkSync(distRoot, join(tapnic, 'dist'));
    const tool = join(project, 'node_modules/.bin/tapnic');
    const main = join(tapnic, 'dist/src/cli/main.js');
    writeFileSync(tool, `#!/bin/sh\nexec '${process.execPath}' '${main}' "$@"\n`, { mode: 0o755 });
    const scripts = { test: 'node --test' };
    writeFileSync(join(project, 'package.json'), JSON.stringify({ private: true, scripts }));
    copyFileSync(join(CI, 'first.test.mjs'), join(project, 'first.test.mjs'));
  });
  after(() => rmSync(project, { recursive: true, force: true }));

  it('are all described in docs/ci.md', () => {
    const doc = readFileSync(join(root, 'docs/ci.md'), 'utf8');
    const files = filesBelow('examples/ci');
    expect(files).to.have.length.above(6);
    expect(files.filter((file) => !doc.includes(`](../${file})`))).to.deep.equal([]);
    expect(doc, 'the first test').to.include(read('first.test.mjs'));
  });

  it('have a workflow and an action that action-validator accepts', () => {
    const validate = (file: string): number | null =>
      spawnSync(join(root, 'node_modules/.bin/action-validator'), [file]).status;
    const action = 'github/actions/tapnic/action.yml';
    expect(validate(join(CI, 'github/workflows/tapnic.yml'))).to.equal(0);
    expect(validate(join(CI, action))).to.equal(0);
    const broken = join(project, 'action.yml');
    writeFileSync(broken, read(action).replace('using: composite', 'using: composit'));
    expect(validate(broken)).to.not.equal(0);
    rmSync(broken);
  });

  it('have a Compose file that docker-compose accepts', function () {
    needsHere(this, 'docker-compose');
    const config = (file: string): ReturnType<typeof spawnSync> =>
      spawnSync('docker-compose', ['-f', file, 'config'], { encoding: 'utf8' });
    const good = config(join(CI, 'compose.yaml'));
    expect([good.status, good.stderr]).to.deep.equal([0, '']);
    const { services } = parse(String(good.stdout)) as { services: object };
    expect(Object.keys(services).sort()).to.deep.equal(['client', 'server', 'tcpdump']);
    const broken = join(project, 'compose.yaml');
    writeFileSync(broken, read('compose.yaml').replace('cap_add: [NET_RAW]', 'cap_add: NET_RAW'));
    expect(config(broken).status).to.not.equal(0);
  });

  describe('run here:', () => {
    needs('root', 'tap', 'netns', 'unshare', 'npx', 'curl');

    /** Runs a step in its own process and namespace, as a runner does. */
    async function step(script: string, env: Record<string, string> = {}): Promise<Result> {
      using ns = new Netns('ci');
      return await ns.run('bash', ['--noprofile', '--norc', '-eo', 'pipefail', '-c', script], {
        cwd: project,
        env: { ...process.env, ...env },
        timeoutMs: 90_000,
      });
    }
    const { runs } = parse(read('github/actions/tapnic/action.yml')) as Action;

    /** Runs the steps of the action with an input; returns their status and the output. */
    async function act(run: string): Promise<[(number | null)[], string]> {
      const results: Result[] = [];
      for (const { run: script, env } of runs.steps) {
        const given = Object.entries(env ?? {}).map(([name, value]) => [
          name,
          value.replace('${{ inputs.run }}', () => run),
        ]);
        results.push(await step(script, Object.fromEntries(given) as Record<string, string>));
      }
      const output = results.map(({ stdout, stderr }) => stdout + stderr).join('');
      return [results.map(({ status }) => status), output];
    }

    it('the steps of the action, with the first test', async () => {
      const [statuses, output] = await act('npm test');
      expect(statuses, output).to.deep.equal([0, 0, 0, 0]);
      expect(output).to.match(/ok 1 - Linux fetches a page/);
      expect(output).to.match(/ok +tap +an interface can be made/);
    });

    it('the action runs every line and quote of the command, and fails with it', async () => {
      const script = runs.steps.find(({ env }) => env !== undefined)!.run;
      const failed = await step(script, { TAPNIC_RUN: 'false\necho later' });
      expect([failed.status, failed.stdout]).to.deep.equal([1, '']);
      const done = await step(script, {
        TAPNIC_RUN: `echo "it's $((6 * 7))"\nip -br link show up`,
      });
      expect(done.status, done.stderr).to.equal(0);
      expect(done.stdout).to.match(/^it's 42\nlo +UNKNOWN/);
    });

    it("the script of GitLab's job, with an installed package", async () => {
      const { tapnic } = parse(read('gitlab-ci.yml')) as { tapnic: { script: string[] } };
      expect(tapnic.script[0]).to.equal('npm ci');
      const { status, stdout, stderr } = await step(tapnic.script.slice(1).join('\n'));
      expect(status, stdout + stderr).to.equal(0);
      expect(stdout).to.match(/ok 1 - Linux fetches a page/);
    });

    it("containerlab's nodes, with its commands, over a veth pair as the link", async () => {
      const { nodes, links } = (parse(read('tapnic.clab.yml')) as Topology).topology;
      expect(links).to.deep.equal([{ endpoints: ['nic:eth1', 'client:eth1'] }]);
      using nic = new Netns('nic');
      using client = new Netns('client');
      const peer = ['peer', 'name', 'eth1', 'netns', client.name];
      nic.exec('ip', ['link', 'add', 'eth1', 'type', 'veth', ...peer]);
      for (const ns of [nic, client]) ns.exec('ip', ['link', 'set', 'eth1', 'up']);
      const www = join(project, 'www');
      mkdirSync(www);
      writeFileSync(join(www, 'random.bin'), Buffer.alloc(3_000_000, 'tapnic'));
      const cmd = nodes['nic']!.cmd.replace('/srv/sample', www).split(' ');
      const server = nic.spawn(process.execPath, [join(distRoot, 'src/cli/main.js'), ...cmd], {
        stdio: 'ignore',
      });
      for (const line of nodes['nic']!.exec) await nic.execAsync('bash', ['-c', line]);
      for (const line of nodes['client']!.exec) await client.execAsync('bash', ['-c', line]);
      server.kill('SIGTERM');
      await new Promise((resolve) => server.once('exit', resolve));
      expect(server.exitCode).to.equal(0);
    });
  });
});
