/** What a terminal would act on is escaped in everything that the command line prints. */

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'chai';
import {
  escapeData,
  escapeField,
  escapeJson,
  escapeLayout,
  jsonText,
} from '../../src/cli/escape.ts';
import { makeLog } from '../../src/cli/log.ts';
import { packageRoot } from '../support/root.ts';

/** Every character that must not reach a terminal: controls, marks of direction, separators. */
const UNSAFE = [
  ...Array.from({ length: 0x20 }, (_, i) => i),
  ...Array.from({ length: 0x21 }, (_, i) => 0x7f + i),
  0x061c,
  0x200e,
  0x200f,
  0x2028,
  0x2029,
  0x202a,
  0x202b,
  0x202c,
  0x202d,
  0x202e,
  0x2066,
  0x2067,
  0x2068,
  0x2069,
].map((code) => String.fromCharCode(code));

describe('cli: C6: escaping', () => {
  it('escapes every control character of a field, and nothing else', () => {
    for (const c of UNSAFE) {
      const text = escapeField(`a${c}b`);
      expect(text, JSON.stringify(c)).to.match(/^a\\(x[0-9a-f]{2}|u[0-9a-f]{4}|[nrt])b$/);
    }
    expect(escapeField('\x1b[31mred\x9bm\r\n\t\u202e')).to.equal(
      '\\x1b[31mred\\x9bm\\r\\n\\t\\u202e',
    );
    const plain = 'Grüße 日本 👩‍🚀 a\\x1b "quoted" ~';
    expect(escapeField(plain)).to.equal(plain);
  });

  it('leaves tabs and line feeds of a layout', () => {
    expect(escapeLayout('a\tb\n\x1b]0;title\x07\r')).to.equal('a\tb\n\\x1b]0;title\\x07\\r');
    for (const c of UNSAFE.filter((one) => one !== '\t' && one !== '\n'))
      expect(escapeLayout(c), JSON.stringify(c)).to.match(/^\\/);
  });

  it('keeps JSON valid: the same data comes back from it', () => {
    const data = { [UNSAFE.join('')]: [UNSAFE.join('x'), { a: '\x9b\u2028' }] };
    const line = jsonText(data);
    expect(JSON.parse(line)).to.deep.equal(data);
    for (const c of UNSAFE) expect(line.includes(c), JSON.stringify(c)).to.equal(false);
    expect(escapeJson('{"msg":"\x7f\x85"}\n')).to.equal('{"msg":"\\u007f\\u0085"}\n');
  });

  it('escapes names and values of data', () => {
    expect(escapeData({ 'a\x1b': ['\x07', 1, null, { b: true }] }, escapeField)).to.deep.equal({
      'a\\x1b': ['\\x07', 1, null, { b: true }],
    });
  });

  it('is on the way of the log, whatever a path of a request contains', () => {
    const write = process.stderr.write.bind(process.stderr);
    let got = '';
    process.stderr.write = ((text: string) => (got += text)) as unknown as typeof write;
    const fields = { url: '/\x1b[31m\n\x9b\u202e', code: 'EIO' };
    try {
      makeLog(false, 'info').log.warn(fields, 'cannot open \x1b]0;x\x07');
      makeLog(true, 'info').log.warn(fields, 'cannot open');
    } finally {
      process.stderr.write = write;
    }
    const [human, json] = got.split('\n');
    expect(human).to.equal(
      'tapnic: warning: cannot open \\x1b]0;x\\x07 (url=/\\x1b[31m\\n\\x9b\\u202e code=EIO)',
    );
    expect(JSON.parse(json!)).to.include(fields);
    for (const c of UNSAFE.filter((one) => one !== '\n'))
      expect(got.includes(c), JSON.stringify(c)).to.equal(false);
  });

  it('is on the way of everything that src/cli writes', () => {
    const dir = join(packageRoot(), 'src/cli');
    const writes = readdirSync(dir)
      .filter((name) => name.endsWith('.ts'))
      .flatMap((name) =>
        readFileSync(join(dir, name), 'utf8')
          .split('\n')
          .filter((line) => /process\.std(out|err)\.write|console\./.test(line))
          .map((line) => `${name}: ${line.trim()}`),
      )
      // Writes of nothing, which wait for what was written before.
      .filter((line) => !line.includes("write('',"));
    expect(writes).to.have.members([
      'command.ts: process.stdout.write(escapeLayout(text));',
      'command.ts: process.stdout.write(`${jsonText(value)}\\n`);',
      'command.ts: process.stderr.write(escapeLayout(text));',
      // The body of a response, as it is.
      'capture.ts: if (gone || process.stdout.write(chunk)) return done();',
      'fetch.ts: process.stdout.write(chunk, written);',
      // A fixed text and a number, before the modules that escape are loaded.
      'main.ts: process.stderr.write(`tapnic: ${text}\\n`);',
      'log.ts: void process.stderr.write(json ? escapeJson(line) : humanLine(line));',
    ]);
  });
});
