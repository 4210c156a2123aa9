import { execFileSync, spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { gunzipSync } from 'node:zlib';
import { expect } from 'chai';
import { needsHere } from '../support/needs.ts';
import { cliMain } from '../support/root.ts';
import { builtCapture, captureBytes, capturePath } from './captures.ts';

/** Text that would be markup, a script or an attribute, if it were not escaped. */
const HOSTILE = `</script><script>document.title='owned'</script><img src=x onerror="document.title='owned'">'"&\u0001`;

interface Run {
  status: number | null;
  stdout: string;
  stderr: string;
}

describe('explain: tapnic explain', function () {
  this.timeout(120_000);
  let dir: string;
  before(() => (dir = mkdtempSync(join(tmpdir(), 'tapnic-explain-'))));
  after(() => rmSync(dir, { recursive: true }));

  function explain(args: readonly string[], input?: Buffer): Run {
    return spawnSync(process.execPath, [cliMain, 'explain', ...args], {
      encoding: 'utf8',
      timeout: 60_000,
      maxBuffer: 1 << 28,
      ...(input === undefined ? {} : { input }),
    });
  }

  function output(...args: string[]): string {
    const { status, stdout, stderr } = explain(args);
    expect({ status, stderr }).to.deep.equal({ status: 0, stderr: '' });
    return stdout;
  }

  const json = (...args: string[]): never => JSON.parse(output(...args, '--json')) as never;

  /** The page as Chromium has it after its script has run. */
  function dom(page: string, hash = ''): string {
    const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=20000'];
    return execFileSync(
      'chromium',
      [...flags, `--user-data-dir=${join(dir, 'profile')}`, '--dump-dom', `file://${page}${hash}`],
      { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'], maxBuffer: 1 << 28 },
    );
  }

  it('counts packets by interface as tshark does', function () {
    needsHere(this, 'tshark');
    const file = join(dir, 'default.pcapng');
    writeFileSync(file, captureBytes('default.pcapng'));
    const names = execFileSync(
      'tshark',
      ['-r', file, '-T', 'fields', '-e', 'frame.interface_name'],
      {
        encoding: 'utf8',
        stdio: 'pipe',
      },
    );
    const counts = new Map<string, number>();
    for (const name of names.trimEnd().split('\n')) counts.set(name, (counts.get(name) ?? 0) + 1);
    const { places } = json(file) as { places: { name: string; out: number; in: number }[] };
    expect(places.map((p) => [p.name, p.out + p.in])).to.have.deep.members([...counts]);
  });

  it('reads compressed files and standard input alike', () => {
    const plain = output(capturePath('default.pcapng'));
    const { stdout } = explain(['-'], captureBytes('default.pcapng'));
    expect(stdout).to.equal(plain);
    expect(explain(['-'], readFileSync(capturePath('default.pcapng'))).stdout).to.equal(plain);
  });

  it('shows that -nomap converts, and that the default arm does not', () => {
    const { reasons } = json(capturePath('nomap.pcapng')) as {
      reasons: { what: string; reason: string; packets: number }[];
    };
    expect(reasons).to.have.lengthOf(1);
    expect(reasons[0]).to.include({
      what: 'conversion',
      reason: 'mbuf.convert_no_ifcap_nomap',
    });
    expect(json(capturePath('default.pcapng'))).to.deep.include({ reasons: [] });
  });

  it('follows a packet through the points in their order', () => {
    const life = json(capturePath('nomap.pcapng'), '--packet', '2') as {
      stages: { point: string; changes: string[]; frames: unknown[] }[];
    };
    expect(life.stages.map(({ point }) => point)).to.deep.equal(['sockbuf', 'ip', 'if', 'wire']);
    const [, ip, converted, wire] = life.stages;
    expect(ip!.changes.join()).to.match(/(\d+) of \1 pages kept by reference/);
    expect(converted!.changes.join()).to.match(/convert_no_ifcap_nomap.*is (clust and )?sfbuf/);
    expect(wire!.changes.join()).to.match(
      new RegExp(`cut into ${wire!.frames.length} frames with (\\d+) of \\1 bytes`),
    );
  });

  it('takes the number of a packet in files without ids', () => {
    const text = output(capturePath('tcpdump.pcap'), '--packet', '5');
    expect(text).to.match(/packet 5: \d+ bytes: TCP /);
    const { status, stderr } = explain([capturePath('tcpdump.pcap'), '--packet', '500000']);
    expect({ status, stderr }).to.deep.equal({
      status: 1,
      stderr: `tapnic: ${capturePath('tcpdump.pcap')}: no packet 500000\n`,
    });
  });

  it('rejects wrong arguments', () => {
    const file = capturePath('default.pcapng');
    for (const args of [
      ['--packet', 'x'],
      ['--packet', '0'],
      ['--svg', 'a.svg'],
      ['--packet', '4294967296'],
    ])
      expect(explain([file, ...args]).status, args.join(' ')).to.equal(2);
    expect(explain([file, '--packet', '2', '--html', 'a.html']).status).to.equal(2);
    for (const args of [
      ['--html', '/nonexistent/a'],
      ['--packet', '2', '--svg', '/nonexistent/a'],
    ])
      expect(explain([file, ...args])).to.include({
        status: 1,
        stderr: 'tapnic: /nonexistent/a: ENOENT: no such file or directory\n',
      });
  });

  it('draws a packet; text of the file is only text', function () {
    needsHere(this, 'python3');
    const file = join(dir, 'hostile.pcapng');
    writeFileSync(
      file,
      builtCapture([`${HOSTILE}@if`], [{ id: 7, direction: 2, comment: HOSTILE }]),
    );
    const svgs = [
      [capturePath('nomap.pcapng'), '2'],
      [file, '7'],
    ].map(([path, id], i) => {
      const svg = join(dir, `${i}.svg`);
      output(path!, '--packet', id!, '--svg', svg);
      return svg;
    });
    const program =
      'import sys,xml.dom.minidom as m\n' +
      'for f in sys.argv[1:]: print(sorted({e.tagName for e in m.parse(f).getElementsByTagName("*")}))';
    const tags = execFileSync('python3', ['-c', program, ...svgs], { encoding: 'utf8' });
    for (const line of tags.trimEnd().split('\n'))
      expect(JSON.parse(line.replace(/'/g, '"'))).to.deep.equal(
        ['path', 'rect', 'style', 'svg', 'text', 'title'].filter((t) => line.includes(`'${t}'`)),
      );
  });

  it('terminal output has no control characters of the file', () => {
    const bytes = builtCapture(['\u001b[2J\n@if'], [{ id: 7 }]);
    expect(explain(['-'], bytes).stdout).to.include('\\x1b[2J\\n@if');
    expect(explain(['-', '--packet', '7'], bytes).stdout).to.include('\\x1b[2J\\n@if');
  });

  describe('the page', () => {
    /** The data in a page. */
    const dataOf = (page: string): { texts: string[] } => {
      const packed = /id="data">([^<]*)</.exec(readFileSync(page, 'utf8'))![1]!;
      return JSON.parse(gunzipSync(Buffer.from(packed, 'base64')).toString()) as never;
    };

    it('shows packets and details in Chromium, and loads nothing', function () {
      needsHere(this, 'chromium');
      const page = join(dir, 'nomap.html');
      output(capturePath('nomap.pcapng'), '--html', page);
      expect(readFileSync(page, 'utf8'))
        .to.include("default-src 'none'")
        .and.not.match(/https?:\/\//);
      const html = dom(page, '#packet=20');
      expect(html).to.match(/data-ready="192"/);
      expect(html).to.match(/<div class="row sel[^"]*"[^>]*>\s+20 /);
      expect(html).to.include('<i>  why=conversion mbuf.convert_no_ifcap_nomap');
      expect(html).to.match(/<option value="0">192\.0\.2\.2\.80 &gt; 192\.0\.2\.1\.\d+<\/option>/);
    });

    it('executes nothing that a file contains', function () {
      needsHere(this, 'chromium');
      const bytes = Buffer.concat([Buffer.alloc(14), Buffer.from(HOSTILE)]);
      const file = join(dir, `x'"><script>document.title=1<\u2028.pcapng`);
      writeFileSync(
        file,
        builtCapture([`${HOSTILE}@if`], [{ id: 7, direction: 2, comment: HOSTILE, bytes }]),
      );
      const page = join(dir, 'hostile.html');
      output(file, '--html', page);
      const html = dom(page, '#packet=1');
      expect(html).to.match(/data-ready="1"/);
      expect(html).to.not.match(/<img|<title>owned|<title>1</);
      expect(html.match(/<script/g)).to.have.lengthOf(2);
      // Chromium shows it as text.
      expect(html).to.include('&lt;img src=x onerror=');
    });

    it('shows 100,000 packets', function () {
      needsHere(this, 'chromium');
      const tcp = captureBytes('tcpdump.pcap').subarray(24 + 16, 24 + 16 + 74);
      const packets = Array.from({ length: 100_000 }, (_, i) => ({
        id: 1 + (i >> 2),
        direction: 2 as const,
        iface: i & 3,
        bytes: tcp,
        comment: `id=${1 + (i >> 2)}; point=if; dir=out; csum=nic; chain=[int,pkthdr ${i}]`,
      }));
      const file = join(dir, 'many.pcapng');
      const names = ['sockbuf', 'ip', 'if', 'wire'].map((point) => `tn0@${point}`);
      writeFileSync(file, builtCapture(names, packets));
      const page = join(dir, 'many.html');
      output(file, '--html', page);
      expect(readFileSync(page).length).to.be.below(10_000_000);
      const html = dom(page, '#packet=99999');
      expect(html).to.match(/data-ready="100000"/);
      // Only the visible rows are elements.
      expect(html.match(/class="row/g)!.length).to.be.within(10, 100);
      expect(dataOf(page).texts).to.have.lengthOf(1);
    });
  });
});
