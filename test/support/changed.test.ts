import { expect } from 'chai';
import { affectedSuites } from './changed.ts';
import { filesBelow, readSources } from './sources.ts';

const files = ['src', 'drivers', 'native-bindings', 'test', 'scripts', 'types', 'docs'].flatMap(
  filesBelow,
);
const sources = readSources(files);
const affected = (...changed: string[]): string[] => affectedSuites(changed, sources, files);

const KERNEL = ['tap', 'netns', 'commands', 'tcpreal', 'matrix', 'unmapped', 'bench', 'api'];

describe('affectedSuites', () => {
  it('returns no suite if nothing changed', () => {
    expect(affected()).to.deep.equal([]);
  });

  it('returns the suites whose test files import the file, directly or indirectly', () => {
    const suites = affected('src/vm/sf_buf.ts');
    expect(suites).to.include.members(['vm', 'kern', 'drivers', 'netinet', 'tidy', ...KERNEL]);
    expect(suites).to.not.include('sys');
    expect(affected('src/pcap/pcap.ts'))
      .to.include.members(['pcap', 'netns'])
      .and.not.include('vm');
  });

  it('returns the suite of a test file, and the users of a helper', () => {
    expect(affected('test/kern/garbage.test.ts')).to.deep.equal(['kern', 'tidy']);
    expect(affected('test/support/tshark.ts')).to.include.members(['support', 'tidy']);
    expect(affected('test/kern/gone.test.ts')).to.deep.equal(['kern', 'tidy']);
  });

  it('returns the suites that read a document', () => {
    expect(affected('docs/api.md')).to.deep.equal(['api', 'package', 'tidy']);
    expect(affected('docs/compat.md')).to.include.members(['machine']);
    expect(affected('docs/tn-datasheet.md')).to.include.members(['dev']);
    expect(affected('docs/usage.md')).to.include.members(['commands']);
    expect(affected('docs/usage.md')).to.not.include('kern');
  });

  it('returns the suites that run a program or read a folder', () => {
    expect(affected('src/cli/main.ts')).to.include.members(['cli', 'netns', 'tap', 'native']);
    expect(affected('test/tcpreal/hostile.py')).to.deep.equal(['tcpreal', 'tidy']);
    expect(affected('test/packetdrill/posix-poll.pkt')).to.include.members([
      'packetdrill',
      'native',
    ]);
    expect(affected('test/sim/loss_grid.snapshot.json')).to.include.members(['sim']);
    expect(affected('test/bench/baseline/sink.c')).to.include.members(['bench']);
  });

  it('returns only the suites that load the addon for a source file of the addon', () => {
    const [source] = files.filter((file) => /^native-bindings\/src\/.*\.cpp$/.test(file));
    const suites = affected(source!);
    expect(suites).to.include.members(['native', 'equivalence', 'host', 'package', ...KERNEL]);
    for (const name of ['vm', 'sys', 'pcap', 'dev']) expect(suites).to.not.include(name);
  });

  it('returns every suite for a file without a rule and without a reader', () => {
    const all = affected('package.json');
    expect(all).to.include.members(['vm', 'kern', 'netns', 'bench', 'tidy', 'support']);
    expect(affected('scripts/lib.sh')).to.deep.equal(all);
    expect(affected('test/support/reporter.ts')).to.deep.equal(all);
    expect(affected('nonesuch.bin')).to.deep.equal(all);
  });

  it('returns only tidy for the settings of other tools', () => {
    expect(affected('.ci/run')).to.deep.equal(['tidy']);
  });
});
