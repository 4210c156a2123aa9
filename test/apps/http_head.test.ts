/** The parser of request heads: what it takes, and what it refuses because others may read it differently. */

import { expect } from 'chai';
import {
  type Head,
  headEnd,
  hostProblem,
  parseHead,
  skipEmptyLines,
} from '../../src/apps/http/head.ts';

/** Parses a head that is all of `text`. */
function parsed(text: string): Head | string {
  const end = headEnd(text, 0, { line: 0 });
  expect(end, 'the head ends with the text').to.equal(text.length);
  return parseHead(text, 0, end);
}

const head = (...lines: string[]): Head | string =>
  parsed(['GET /f HTTP/1.1', 'Host: x', ...lines, '', ''].join('\r\n'));

describe('serve: heads of requests', () => {
  it('have a method, a target, a version and fields', () => {
    expect(head('Range: bytes=0-1', 'X: y', 'If-Match: "a"', 'if-match:\t"b" ')).to.deep.equal({
      method: 'GET',
      target: '/f',
      version: '1.1',
      fields: { host: 'x', range: 'bytes=0-1', 'if-match': '"a", "b"' },
      hosts: 1,
      conditional: true,
      length: 0,
      encoded: false,
      keepAlive: true,
    });
    expect(head()).to.include({ conditional: false });
  });

  it('may end their lines with LF alone', () => {
    expect(parsed('GET /f HTTP/1.0\nHost: x\r\nConnection: keep-alive\n\n')).to.include({
      version: '1.0',
      keepAlive: true,
    });
    expect(parsed('GET /f HTTP/1.0\n\r\n')).to.include({ version: '1.0', keepAlive: false });
  });

  it('say whether the connection stays open', () => {
    const keepAlive = (version: string, field: string): boolean =>
      (parsed(`GET / HTTP/${version}\r\n${field}\r\n\r\n`) as Head).keepAlive;
    expect(keepAlive('1.1', 'Connection: a, CLOSE ,b')).to.equal(false);
    expect(keepAlive('1.1', 'Connection: closed')).to.equal(true);
    expect(keepAlive('1.0', 'Connection: Keep-Alive')).to.equal(true);
    expect(keepAlive('1.0', 'X: y')).to.equal(false);
    expect(keepAlive('2.0', 'Connection: keep-alive')).to.equal(false);
  });

  it('are refused if the request line is malformed', () => {
    for (const line of [
      'GET',
      'get / HTTP/1.1',
      'GET\t/ HTTP/1.1',
      ' GET / HTTP/1.1',
      'GET / HTTP/1.1 ',
      'GET / http/1.1',
      'GET / HTTP/1.10',
      'GET / HTTP/1.2',
      'GET /a b HTTP/1.1',
      'GET /\x00 HTTP/1.1',
      'GET /\x7f HTTP/1.1',
      'GET: / HTTP/1.1',
    ])
      expect(parsed(`${line}\r\nHost: x\r\n\r\n`), line).to.be.a('string');
    expect(parsed('GET /\r\n\r\n')).to.include({ version: '0.9' });
  });

  it('are refused if a field is malformed', () => {
    for (const line of [
      'A',
      ': b',
      'A : b',
      ' A: b',
      'A B: c',
      'A: b\rc',
      'A: b\r',
      'A: b\x00',
      'A: b\x7f',
      'A: b\r\n c',
      'A: b\n\tc',
      '\xff: b',
      'A(: b',
    ])
      expect(head(line), line).to.be.a('string');
    expect(head('A:', "!#$%&'*+-.^_`|~9: b", 'B: \xff\t')).to.be.an('object');
  });

  it('are refused if the length of the body is in doubt', () => {
    const of = (length: string): Head | string => head(`Content-Length:${length}`);
    for (const length of ['+3', '-1', '3,3', '0x3', '3.0', '3 3', '', '\xa03', 'a'])
      expect(of(length), length).to.be.a('string');
    expect(of(' 3\t')).to.include({ length: 3 });
    expect(head('Content-Length: 3', 'content-length: 3')).to.be.a('string');
    const coded = (...lines: string[]): Head | string =>
      head(...lines.map((coding) => `Transfer-Encoding: ${coding}`));
    expect(coded('Chunked')).to.include({ encoded: true, length: 0 });
    expect(coded('gzip', 'chunked')).to.include({ encoded: true });
    for (const codings of [
      ['gzip'],
      [''],
      ['chunked', 'gzip'],
      ['chunked, chunked'],
      ['x chunked'],
      ['\x0bchunked'],
      ['chunked\xa0'],
    ])
      expect(coded(...codings), codings.join()).to.be.a('string');
    expect(head('Content-Length: 3', 'Transfer-Encoding: chunked')).to.be.a('string');
    expect(head('Transfer-Encoding: chunked', 'Content-Length: 3')).to.be.a('string');
  });

  it('are found at any split of the bytes', () => {
    for (const text of [
      'GET / HTTP/1.1\r\nHost: x\r\n\r\nrest\n\n',
      'GET / HTTP/1.1\nHost: x\n\nrest\r\n\r\n',
      'GET / HTTP/1.1\nHost: x\r\n\nrest',
    ]) {
      const end = text.indexOf('rest');
      for (let first = 0; first < end; first++)
        for (let second = first; second < end; second++) {
          const scanned = { line: 0 };
          expect(headEnd(text.slice(0, first), 0, scanned)).to.equal(-1);
          expect(headEnd(text.slice(0, second), 0, scanned)).to.equal(-1);
          expect(headEnd(text, 0, scanned)).to.equal(end);
          expect(scanned.line).to.equal(0);
        }
    }
  });

  it('come behind empty lines', () => {
    expect(skipEmptyLines('\r\n\n\rGET', 0)).to.equal(4);
    expect(skipEmptyLines('a\r\n', 1)).to.equal(3);
    expect(skipEmptyLines(' \r\n', 0)).to.equal(0);
  });

  it('have one valid Host', () => {
    const problem = (...lines: string[]): string | null =>
      hostProblem(parsed(['GET / HTTP/1.1', ...lines, '', ''].join('\r\n')) as Head);
    expect(problem('Host: [2001:db8::1]:80')).to.equal(null);
    expect(problem('Host:')).to.equal(null);
    expect(problem()).to.match(/no Host/);
    expect(problem('Host: a', 'host: a')).to.match(/more than one/);
    expect(problem('Host: a/b')).to.match(/invalid/);
  });
});
