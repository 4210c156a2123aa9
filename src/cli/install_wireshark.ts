/**
 * `capture --install-wireshark`: puts extcap, dissector and profile into the user's folders of
 * Wireshark. It replaces only files that it wrote, and checks all of them before it writes one.
 */

import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { CliError, fileError, ownPackage, print } from './command.ts';

/** Every installed file contains it. */
const MARK = 'Written by `tapnic capture --install-wireshark`';
const FOLDERS_MS = 10_000;

interface Folders {
  readonly extcap: string;
  readonly lua: string;
  readonly config: string;
}

interface NewFile {
  readonly path: string;
  readonly text: string;
  readonly executable?: boolean;
}

/** The folders that tshark names; empty without tshark. */
function namedFolders(): Map<string, string> {
  let text: string;
  try {
    text = execFileSync('tshark', ['-G', 'folders'], {
      encoding: 'utf8',
      timeout: FOLDERS_MS,
      stdio: ['ignore', 'pipe', 'ignore'],
    });
  } catch {
    return new Map();
  }
  const lines = text.split('\n').map((line) => /^([^:]+):\s+(\/.*)$/.exec(line));
  return new Map(lines.flatMap((line) => (line === null ? [] : [[line[1]!, line[2]!]])));
}

/** The user's folders. Versions before 4.2 search extcaps in the folder of the configuration. */
function foldersOf(): Folders {
  const home = process.env['HOME'] ?? '';
  if (home === '') throw new CliError("HOME is not set: Wireshark's folders are in it");
  const xdg = process.env['XDG_CONFIG_HOME'] ?? '';
  const named = namedFolders();
  const config =
    named.get('Personal configuration') ?? join(xdg === '' ? `${home}/.config` : xdg, 'wireshark');
  const lib = join(home, '.local/lib/wireshark');
  const old = named.has('Personal configuration') && !named.has('Personal Extcap path');
  return {
    config,
    lua: named.get('Personal Lua Plugins') ?? join(lib, 'plugins'),
    extcap:
      named.get('Personal Extcap path') ?? (old ? join(config, 'extcap') : join(lib, 'extcap')),
  };
}

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

/** The files of the package, with the places where Wireshark looks for them. */
function filesOf({ extcap, lua, config }: Folders): NewFile[] {
  const dir = ownPackage()?.dir;
  if (dir === undefined) throw new CliError("the package's folder is missing");
  const assets = join(dir, 'wireshark');
  const script = fileURLToPath(new URL('extcap.js', import.meta.url));
  const profile = readdirSync(join(assets, 'profile')).map((name) => ({
    path: join(config, 'profiles/tapnic', name),
    text: readFileSync(join(assets, 'profile', name), 'utf8'),
  }));
  return [
    {
      path: join(extcap, 'tapnic-extcap'),
      text: `#!/bin/sh\n# ${MARK}.\nexec ${quoted(process.execPath)} ${quoted(script)} "$@"\n`,
      executable: true,
    },
    { path: join(lua, 'tapnic.lua'), text: readFileSync(join(assets, 'tapnic.lua'), 'utf8') },
    ...profile,
  ];
}

/** The text of the file at `path`; null if it is missing. Throws CliError. */
function present(path: string): string | null {
  try {
    return readFileSync(path, 'utf8');
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return null;
    throw new CliError(`${path}: ${fileError(e)}`);
  }
}

function put({ path, text, executable = false }: NewFile): void {
  try {
    mkdirSync(dirname(path), { recursive: true });
    writeFileSync(path, text);
    chmodSync(path, executable ? 0o755 : 0o644);
  } catch (e) {
    throw new CliError(`${path}: ${fileError(e)}`);
  }
}

/** Installs the files and prints where. Throws CliError. */
export function installWireshark(): void {
  const files = filesOf(foldersOf());
  const old = files.map(({ path }) => present(path));
  const strange = files.find((_, i) => old[i]?.includes(MARK) === false);
  if (strange !== undefined)
    throw new CliError(
      `${strange.path}: another program wrote or changed this file: move it away, then install again`,
    );
  files.forEach((file, i) => {
    const same = old[i] === file.text;
    if (!same) put(file);
    print(`${file.path}${same ? ' (unchanged)' : ''}\n`);
  });
  print('Restart Wireshark. Its profile is `tapnic`: wireshark -C tapnic\n');
}
