/**
 * The rules that no compiler and no linter holds: which folder may import which, what may touch
 * clocks, randomness and files, and the looks of the tree. Read from the sources as text.
 */

import { existsSync, readFileSync } from 'node:fs';
import { dirname, join, posix } from 'node:path';
import { expect } from 'chai';
import { packageRoot } from './support/root.ts';
import { linesOf, parsePackage, type SourceFile, SyntaxKind } from './support/program.ts';
import { textOf, walk } from './support/program.ts';
import { filesBelow, readSources, specifiers, stripComments } from './support/sources.ts';
import type { Source } from './support/sources.ts';

const root = packageRoot();
const TREES = ['src', 'drivers', 'native-bindings', 'test', 'scripts', 'types'];
const LINES_MAX = 700;
const FUNCTION_LINES_MAX = 70;

const allFiles = TREES.flatMap(filesBelow);
const sources = readSources(allFiles);

/** The protocols above the families, and what names one family: those go through InpAf. */
const FAMILY_FREE = /^src\/netinet\/(tcp|udp|raw_ip|in_dgram|in_pcblist)/;
const FAMILY =
  /\bAF_INET6?\b|\binetAf\b|\bV_ip\b|\bfib4_lookup\b|\bin_(localip|broadcast)\b|\bip_(ctl)?output\b|\bicmp_error\b|'\.\/(in|in_(var|fib|ifaddr)|inp_inet|ip_(in|out)put)\.ts'/;

/** A folder of the table, and what else it may import; null is everything. */
interface Rule {
  folder: string;
  may: RegExp | null;
}

const inSrc = (...folders: string[]): RegExp => new RegExp(`^src/(${folders.join('|')})/`);

/** All but the fronts and what runs on them. */
const BELOW_FRONTS =
  /^(drivers\/|native-bindings\/|src\/(?!(cli|apps|testing|packetdrill)\/|index\.ts$))/;

/** The first rule whose folder holds the file counts. */
const RULES: Rule[] = [
  { folder: 'src/sys/', may: /^$/ },
  { folder: 'src/vm/', may: inSrc('sys') },
  { folder: 'src/kern/', may: inSrc('sys', 'vm') },
  // What hardware sees of the bus; its own tests and the drivers' half are in the rest of src/bus.
  { folder: 'src/bus/device.ts', may: inSrc('sys') },
  { folder: 'src/bus/', may: inSrc('sys', 'vm', 'kern') },
  { folder: 'src/net/', may: inSrc('sys', 'vm', 'kern') },
  { folder: 'src/netinet/', may: inSrc('sys', 'vm', 'kern', 'net') },
  { folder: 'src/netinet6/', may: inSrc('sys', 'vm', 'kern', 'net', 'netinet') },
  // Blocks are what models share; a block knows no model.
  { folder: 'src/dev/', may: /^src\/(sys\/|bus\/device\.ts$|dev\/blocks\/)/ },
  {
    folder: 'drivers/',
    may: /^src\/((sys|vm|kern|bus|net)\/|dev\/[^/]+\/[^/]*reg\.ts$)/,
  },
  { folder: 'src/fault/', may: inSrc('sys') },
  { folder: 'src/pcap/', may: inSrc('sys') },
  { folder: 'src/explain/', may: inSrc('sys', 'pcap') },
  { folder: 'src/host/', may: /^(src\/sys\/|native-bindings\/|src\/dev\/[^/]+\/[^/]*reg\.ts$)/ },
  { folder: 'src/api/', may: inSrc('sys', 'kern', 'net', 'netinet', 'netinet6') },
  {
    folder: 'src/ctl/',
    may: inSrc('sys', 'vm', 'kern', 'bus', 'net', 'netinet', 'netinet6', 'pcap', 'fault'),
  },
  { folder: 'src/apps/', may: inSrc('api', 'sys') },
  { folder: 'src/index.ts', may: BELOW_FRONTS },
  // Assembly: checks options, boots a machine, plugs NICs between a stack and wires.
  { folder: 'src/machine/', may: BELOW_FRONTS },
  // Hosts for scripts: a machine without NICs, and ctl for the commands that scripts call.
  {
    folder: 'src/packetdrill/',
    may: inSrc('sys', 'vm', 'kern', 'net', 'netinet', 'netinet6', 'host', 'api', 'ctl', 'machine'),
  },
  { folder: 'src/testing/', may: null },
  { folder: 'src/cli/', may: null },
  { folder: 'native-bindings/', may: /^$/ },
  { folder: 'test/', may: null },
  { folder: 'scripts/', may: null },
  { folder: 'types/', may: null },
];

const ruleOf = (path: string): Rule | undefined =>
  RULES.find(({ folder }) => path === folder || (folder.endsWith('/') && path.startsWith(folder)));

/** A sibling below src/dev is another NIC: two models meet only in src/dev/blocks. */
const ownFolder = (path: string, rule: Rule): string =>
  rule.folder === 'src/dev/' ? path.split('/').slice(0, 3).join('/') + '/' : rule.folder;

/** What in `sources` breaks the table, one line each. */
function importFaults({ path, code }: Pick<Source, 'path' | 'code'>): string[] {
  const rule = ruleOf(path);
  if (rule === undefined) return [`${path}: no rule for this folder`];
  const faults: string[] = [];
  for (const spec of specifiers(code)) {
    if (!spec.startsWith('.')) continue;
    const target = posix.join(posix.dirname(path), spec);
    const inOwn = target.startsWith(ownFolder(path, rule)) || target === path;
    // src/bus/device.ts may not even use its own folder.
    if (inOwn || rule.may === null || rule.may.test(target)) continue;
    faults.push(`${path}: may not import ${target}`);
  }
  return faults;
}

/**
 * Module specifiers of the imports and re-exports that exist at run time: not `import type`, and not a
 * list of nothing but inline `type` names. `import()` does not count: it runs when the module that
 * calls it has been evaluated.
 */
function valueSpecifiers(code: string): string[] {
  const statement =
    /(?:^|[;\n])[ \t]*(?:import|export)\s*((?:\w+\s*,?\s*)?(?:\*(?:\s*as\s+\w+)?|\{[^}]*\})?)\s*from\s*(['"])([^'"\n]+)\2/g;
  const sideEffect = /(?:^|[;\n])[ \t]*import\s*(['"])([^'"\n]+)\1/g;
  const found = [...code.matchAll(sideEffect)].map((match) => match[2]!);
  for (const [, clause, , spec] of code.matchAll(statement)) {
    if (/^type\s*[{*\w]/.test(clause!)) continue;
    const names = /^\{([^}]*)\}$/.exec(clause!)?.[1]?.split(',') ?? null;
    const values = names?.filter((name) => name.trim() !== '' && !/^\s*type\s/.test(name));
    if (values?.length !== 0) found.push(spec!);
  }
  return found;
}

/** Cycles of value imports, each as `a -> b -> a`; one for each import that closes a cycle. */
function importCycles(files: readonly Pick<Source, 'path' | 'code'>[]): string[] {
  const edges = new Map(
    files.map(({ path, code }) => {
      const local = valueSpecifiers(code).filter((spec) => spec.startsWith('.'));
      return [path, local.map((spec) => posix.join(posix.dirname(path), spec))];
    }),
  );
  const cycles: string[] = [];
  const done = new Set<string>();
  const open: string[] = [];
  const visit = (path: string): void => {
    const at = open.indexOf(path);
    if (at >= 0) cycles.push([...open.slice(at), path].join(' -> '));
    if (at >= 0 || done.has(path)) return;
    open.push(path);
    for (const target of edges.get(path) ?? []) visit(target);
    open.pop();
    done.add(path);
  };
  for (const path of edges.keys()) visit(path);
  return cycles;
}

/** Folders whose business the real world is, and what is no part of the machine. */
const REAL_WORLD =
  /^((src\/(host|cli|apps|testing)|test|scripts|native-bindings|types)\/|src\/packetdrill\/server\.ts$)/;
const FORBIDDEN: [RegExp, string][] = [
  [/\bDate\.now\b|\bnew Date\(\s*\)/, 'reads the clock'],
  [/\bperformance\.now\b|\bprocess\.(hrtime|uptime)\b/, 'reads the clock'],
  // Not a method of that name, which node:net's sockets have, nor its definition.
  [
    /(?<![.\w])(setTimeout|setInterval|setImmediate)\b(?!\(\w+\??:)|globalThis\.set[TI]/,
    'sets a timer',
  ],
  [/\bprocess\.nextTick\b|\bqueueMicrotask\b/, 'schedules outside the clock'],
  [/\bMath\.random\b|\bcrypto\.(random|getRandom)/, 'is random'],
  [
    /\b(?:from|import|require)\s*\(?\s*['"](node:)?(fs|fs\/promises|timers|timers\/promises|perf_hooks|crypto|net|dgram|child_process|worker_threads)['"]/,
    'imports a module of the real world',
  ],
];

/** Lines of `code` that match, as `path:line: what`. */
function linesMatching({ path, code }: Pick<Source, 'path' | 'code'>, re: RegExp, what: string) {
  return code
    .split('\n')
    .flatMap((line, i) => (re.test(line) ? [`${path}:${i + 1}: ${what}: ${line.trim()}`] : []));
}

/** Exported snake_case functions that have no `@see` in the comment before them. */
function withoutSee({ path, text }: Pick<Source, 'path' | 'text'>): string[] {
  const exported =
    /^export (?:async )?(?:function\*? |const (?=\w+(?:: [^=]+)? = (?:async )?(?:\(|function)))(\w+)/gm;
  const faults: string[] = [];
  for (const found of text.matchAll(exported)) {
    const name = found[1]!;
    if (!/^[a-z][a-z0-9]*_[a-z0-9_]*$/.test(name)) continue;
    const before = text.slice(0, found.index).trimEnd();
    const start = before.lastIndexOf('/**');
    const comment = before.endsWith('*/') && start >= 0 ? before.slice(start) : '';
    // Overloads share the comment of the first.
    const overload = new RegExp(`export function ${name}\\([^]*?;\\s*$`).test(before.slice(start));
    if (!overload && !comment.includes('@see')) faults.push(`${path}: ${name}`);
  }
  return faults;
}

const FUNCTIONS = new Set([
  SyntaxKind.FunctionDeclaration,
  SyntaxKind.FunctionExpression,
  SyntaxKind.ArrowFunction,
  SyntaxKind.MethodDeclaration,
  SyntaxKind.Constructor,
  SyntaxKind.GetAccessor,
  SyntaxKind.SetAccessor,
]);

/**
 * Functions of more than `max` lines, as `path:line: lines`. The function passed to a `describe` is
 * exempt: it is a list of tests, and each test is measured.
 */
function longFunctions(files: ReadonlyMap<string, SourceFile>, max: number): string[] {
  const long: string[] = [];
  for (const [path, file] of files) {
    walk(file, (node) => {
      if (!FUNCTIONS.has(node.kind)) return;
      const lines = textOf(node, file).split('\n').length;
      if (lines <= max) return;
      const { parent } = node;
      const described =
        parent.kind === SyntaxKind.CallExpression && textOf(parent, file).startsWith('describe(');
      if (!described) long.push(`${path}:${linesOf(node, file)[0]}: ${lines} lines`);
    });
  }
  return long;
}

const NOT_ERASABLE = /^\s*(export\s+|declare\s+)*(const\s+enum|enum|namespace)\s+\w+[^=]*\{/;
const MACHINE_PATH = /(^|['"`\s=(:])\/(work|root|home|farm)\//;

describe('tidy', () => {
  it('finds the sources', () => {
    expect(sources.map(({ path }) => path)).to.include.members([
      'src/sys/types.ts',
      'test/tidy.test.ts',
    ]);
  });

  it('keeps the import directions', () => {
    expect(sources.flatMap(importFaults)).to.deep.equal([]);
  });

  it('has no cycle of imports that exist at run time', () => {
    const ours = sources.filter(({ path }) => /^(src|drivers|native-bindings)\//.test(path));
    expect(ours.flatMap(({ code }) => valueSpecifiers(code)).length).to.be.above(1000);
    expect(importCycles(ours)).to.deep.equal([]);
  });

  it('keeps clocks, timers, randomness and files to src/host and the fronts', () => {
    const faults = sources
      .filter(({ path }) => !REAL_WORLD.test(path))
      .flatMap((source) => FORBIDDEN.flatMap(([re, what]) => linesMatching(source, re, what)));
    expect(faults).to.deep.equal([]);
  });

  it('keeps address families out of TCP, UDP and raw sockets', () => {
    const faults = sources
      .filter(({ path }) => FAMILY_FREE.test(path))
      .flatMap((source) => linesMatching(source, FAMILY, 'belongs behind InpAf'));
    expect(sources.filter(({ path }) => FAMILY_FREE.test(path))).to.have.length.above(30);
    expect(faults).to.deep.equal([]);
  });

  it("has a @see on every exported function with FreeBSD's kind of name", () => {
    const ours = sources.filter(({ path }) => /^(src|drivers)\//.test(path));
    expect(ours.flatMap(withoutSee)).to.deep.equal([]);
  });

  it(`has no file above ${LINES_MAX} lines`, () => {
    const long = allFiles
      .filter((path) => /\.(ts|mjs|cjs|cc|cpp|h|sh)$/.test(path))
      .map((path) => [path, readFileSync(join(root, path), 'utf8').split('\n').length - 1] as const)
      .filter(([, lines]) => lines > LINES_MAX);
    expect(long).to.deep.equal([]);
  });

  it(`has no function above ${FUNCTION_LINES_MAX} lines`, function () {
    this.timeout(60_000);
    const files = parsePackage(root);
    expect(files.size).to.be.at.least(sources.length - 5);
    expect(longFunctions(files, FUNCTION_LINES_MAX)).to.deep.equal([]);
    // Proof that it measures functions and leaves out the blocks of tests.
    const tests = new Map([...files].filter(([path]) => path === 'test/tidy.test.ts'));
    expect(longFunctions(tests, 15)).to.not.be.empty;
    expect(longFunctions(tests, 90)).to.be.empty;
  });

  it('has a README.md in every folder with TypeScript', () => {
    const folders = new Set(sources.map(({ path }) => dirname(path)));
    const bare = [...folders].filter((dir) => !existsSync(join(root, dir, 'README.md')));
    expect(bare.sort()).to.deep.equal([]);
  });

  it('has no barrel index.ts below src', () => {
    const barrels = sources.filter(({ path }) => /^src\/.+\/index\.ts$/.test(path));
    expect(barrels.map(({ path }) => path)).to.deep.equal([]);
  });

  it('names no path of one machine', () => {
    const texts = [...TREES, 'docs', '.ci']
      .flatMap(filesBelow)
      .concat(['README.md', 'ARCHITECTURE.md', 'CHANGELOG.md', 'Dockerfile', 'package.json'])
      .filter((path) => existsSync(join(root, path)) && !/\.(node|pcap|o)$/.test(path))
      .filter((path) => path !== 'test/tidy.test.ts');
    const faults = texts.flatMap((path) =>
      linesMatching({ path, code: readFileSync(join(root, path), 'utf8') }, MACHINE_PATH, 'path'),
    );
    expect(faults).to.deep.equal([]);
  });

  it('has no enum and no namespace', () => {
    const faults = sources
      .filter(({ path }) => !path.startsWith('types/'))
      .flatMap((source) => linesMatching(source, NOT_ERASABLE, 'not erasable'));
    expect(faults).to.deep.equal([]);
  });

  it('has no test that is switched off or alone', () => {
    const faults = sources
      .filter(({ path }) => path.endsWith('.test.ts') && path !== 'test/tidy.test.ts')
      .flatMap((source) =>
        linesMatching(source, /\b(describe|it|context)\.(skip|only)\b|\bx(it|describe)\(/, 'off'),
      );
    expect(faults).to.deep.equal([]);
  });

  describe('its own checks', () => {
    const faultsOf = (path: string, code: string): string[] => importFaults({ path, code });

    it('see every form of import', () => {
      for (const code of [
        "import { a } from '../netinet/tcp.ts';",
        "import type { a } from '../netinet/tcp.ts';",
        "import {\n  a,\n  b,\n} from '../netinet/tcp.ts';",
        "import '../netinet/tcp.ts';",
        "export * from '../netinet/tcp.ts';",
        "const a = await import('../netinet/tcp.ts');",
        "type A = import('../netinet/tcp.ts').A;",
      ])
        expect(faultsOf('src/kern/a.ts', code), code).to.have.lengthOf(1);
    });

    it('know the table', () => {
      expect(faultsOf('src/kern/a.ts', "import { a } from '../vm/b.ts';")).to.deep.equal([]);
      expect(faultsOf('src/kern/a.ts', "import { a } from './b.ts';")).to.deep.equal([]);
      expect(faultsOf('src/bus/device.ts', "from './bus_dma.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/dev/tn/tn.ts', "from '../../bus/device.ts'")).to.deep.equal([]);
      expect(faultsOf('src/dev/tn/tn.ts', "from '../../kern/mbuf.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/dev/tn/tn.ts', "from '../../../drivers/if_tn.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/dev/tn/tn.ts', "from '../other/other.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/dev/tn/tn.ts', "from '../blocks/a.ts'")).to.deep.equal([]);
      expect(faultsOf('src/dev/blocks/a.ts', "from '../tn/tn.ts'")).to.have.lengthOf(1);
      expect(faultsOf('drivers/if_tn.ts', "from '../src/dev/tn/tnreg.ts'")).to.deep.equal([]);
      expect(faultsOf('drivers/if_tn.ts', "from '../src/dev/tn/tn.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/host/tap.ts', "from '../../native-bindings/index.ts'")).to.be.empty;
      expect(faultsOf('src/host/native_tn.ts', "from '../dev/tn/tnreg.ts'")).to.deep.equal([]);
      expect(faultsOf('src/host/native_tn.ts', "from '../dev/tn/tn.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/vm/a.ts', "from '../../native-bindings/index.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/machine/a.ts', "from '../ctl/b.ts'")).to.be.empty;
      expect(faultsOf('src/machine/a.ts', "from '../../drivers/if_tn.ts'")).to.be.empty;
      for (const target of ['cli/a.ts', 'apps/a.ts', 'testing/a.ts', 'index.ts'])
        expect(faultsOf('src/machine/a.ts', `from '../${target}'`), target).to.have.lengthOf(1);
      expect(faultsOf('src/index.ts', "from './cli/a.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/packetdrill/a.ts', "from '../machine/machine.ts'")).to.be.empty;
      expect(faultsOf('src/packetdrill/a.ts', "from '../cli/command.ts'")).to.have.lengthOf(1);
      expect(faultsOf('src/nonesuch/a.ts', '')).to.have.lengthOf(1);
    });

    it('tell a value import from a type import', () => {
      const values = [
        "import { a } from './a.ts';",
        "import {\n  type A,\n  b,\n} from './a.ts';",
        "import a from './a.ts';",
        "import a, { type A } from './a.ts';",
        "import * as a from './a.ts';",
        "export * from './a.ts';",
        "export { a } from './a.ts';",
        "import './a.ts';",
      ];
      for (const code of values) expect(valueSpecifiers(code), code).to.deep.equal(['./a.ts']);
      const types = [
        "import type { A } from './a.ts';",
        "import type A from './a.ts';",
        "import type * as A from './a.ts';",
        "import { type A, type B } from './a.ts';",
        "export type { A } from './a.ts';",
        "const a = await import('./a.ts');",
        "export function f() {}\nimport type { A } from './a.ts';",
      ];
      for (const code of types) expect(valueSpecifiers(code), code).to.deep.equal([]);
    });

    it('see a cycle of value imports, and no other', () => {
      const a = { path: 'src/vm/a.ts', code: "import { b } from './b.ts';" };
      const b = (code: string) => ({ path: 'src/vm/b.ts', code });
      const c = { path: 'src/sys/c.ts', code: "export { a } from '../vm/a.ts';" };
      expect(importCycles([a, b("import { c } from '../sys/c.ts';"), c])).to.deep.equal([
        'src/vm/a.ts -> src/vm/b.ts -> src/sys/c.ts -> src/vm/a.ts',
      ]);
      expect(importCycles([a, b("import { b } from './b.ts';")])).to.deep.equal([
        'src/vm/b.ts -> src/vm/b.ts',
      ]);
      expect(importCycles([a, b("import type { c } from '../sys/c.ts';"), c])).to.deep.equal([]);
      expect(importCycles([a, b('')])).to.deep.equal([]);
    });

    it('tell a timer from a method of its name', () => {
      const found = (code: string): number =>
        FORBIDDEN.flatMap(([re, what]) => linesMatching({ path: 'a', code }, re, what)).length;
      expect(found('setTimeout(f, 1);')).to.equal(1);
      expect(found('x = globalThis.setTimeout(f, 1);')).to.equal(1);
      expect(found('const { setTimeout } = timers;')).to.equal(1);
      expect(found('socket.setTimeout(1);')).to.equal(0);
      expect(found('setTimeout(ms: number): this {')).to.equal(0);
      expect(found("reason('net', 'no_buffers')")).to.equal(0);
      expect(found("import { connect } from 'node:net';")).to.equal(1);
    });

    it('look through comments, not through strings', () => {
      expect(stripComments("a('//x'); // b\n/* c\n */ d")).to.equal("a('//x');     \n    \n    d");
      expect(stripComments('r = /["/*]/; x // y')).to.equal('r = /["/*]/; x     ');
    });

    it('miss no undocumented function', () => {
      const path = 'src/kern/a.ts';
      expect(withoutSee({ path, text: 'export function m_get() {}' })).to.have.lengthOf(1);
      expect(withoutSee({ path, text: '/** @see mbuf(9) */\nexport function m_get() {}' })).to.be
        .empty;
      expect(withoutSee({ path, text: 'export const m_get = (a: number): void => {};' }))
        .to.have //
        .lengthOf(1);
      expect(withoutSee({ path, text: 'export function openTap() {}' })).to.be.empty;
    });

    it('know what is not erasable', () => {
      expect(NOT_ERASABLE.test('export const enum A {')).to.equal(true);
      expect(NOT_ERASABLE.test('namespace A {')).to.equal(true);
      expect(NOT_ERASABLE.test('const namespace = {')).to.equal(false);
    });
  });
});
