/** Programs that use the installed package in each way that Node and TypeScript know. */

/** Loads the addon: Tap does so before it checks its options. */
export const LOAD = `
  const { Tap } = await import('tapnic');
  try {
    new Tap({ name: '' });
  } catch (e) {
    console.log(e.code === 'EINVAL' ? 'loaded' : e.message);
  }`;

const PING = `
  const stack = await createStack({ memory: '32M' });
  const said = await new Promise((resolve) =>
    execFile('ping', ['-c', '1', '-W', '5', '192.0.2.2'], (_error, stdout) => resolve(stdout)),
  );
  const tap = new Tap();
  const leaked = await stack.close();
  console.log(/\\d+ received/.exec(said)?.[0], tap.name, JSON.stringify(leaked));
  tap.destroy();
`;
const PING_PRINTS = '1 received tap0 {}\n';

/** Each way to load the package at run time: a file, its program and what that prints. */
export const PROGRAMS: { file: string; code: string; prints: string }[] = [
  {
    file: 'import.mjs',
    code: `
  import { execFile } from 'node:child_process';
  import { createStack, Tap } from 'tapnic';
  ${PING}`,
    prints: PING_PRINTS,
  },
  {
    file: 'require.cjs',
    code: `
  const { execFile } = require('node:child_process');
  const { createStack, Tap } = require('tapnic');
  (async () => { ${PING} })();`,
    prints: PING_PRINTS,
  },
  {
    file: 'both.cjs',
    code: `
  const required = require('tapnic');
  import('tapnic').then((imported) =>
    console.log(required.Tap === imported.Tap, Object.keys(required).sort().join(' ')));`,
    prints:
      'true SF_FLAGS SF_NOCACHE SF_NODISKIO SF_SYNC SF_USER_READAHEAD Server Socket Tap TapnicError Tun connect ' +
      'createLink createServer createStack openFile stackInWorker tuntap\n',
  },
];

const USE = (tapnic: string): string => `
  export const options: ${tapnic}StackOptions = { memory: '32M' };
  export const stack: Promise<${tapnic}Stack> = ${tapnic}createStack(options);
  export const server = (stack: ${tapnic}Stack): ${tapnic}Server => new ${tapnic}Server({ stack });
  export class Mine extends ${tapnic}Tap {}
  export const tun = (): ${tapnic}Tun => new ${tapnic}Tun();
  export const isOurs = (e: unknown): e is ${tapnic}TapnicError => e instanceof ${tapnic}TapnicError;
  export const flags: number = ${tapnic}SF_SYNC | ${tapnic}SF_FLAGS(1, 0);
  // @ts-expect-error no such option
  void ${tapnic}createStack({ nonesuch: 1 });
`;
const NAMED = `import { createStack, Server, SF_FLAGS, SF_SYNC, type Stack, type StackOptions, Tap, TapnicError, Tun } from 'tapnic';${USE('')}`;

/** Files of TypeScript: an ES module, and CommonJS with each form of import. */
export const TYPED: Record<string, string> = {
  'named.mts': NAMED,
  'named.cts': NAMED,
  'required.cts': `import tapnic = require('tapnic');${USE('tapnic.')}`,
};

/** Settings of tsc that a consumer may have, and which files they accept. */
export const SETTINGS: { module: string; moduleResolution: string; files: string[] }[] = [
  { module: 'node16', moduleResolution: 'node16', files: Object.keys(TYPED) },
  { module: 'nodenext', moduleResolution: 'nodenext', files: Object.keys(TYPED) },
  { module: 'preserve', moduleResolution: 'bundler', files: Object.keys(TYPED) },
  { module: 'esnext', moduleResolution: 'bundler', files: ['named.mts', 'named.cts'] },
];
