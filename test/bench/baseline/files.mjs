/**
 * A file server as a user of node:http writes one: files.mjs ROOT PORT. Small files are read at once,
 * larger ones are streamed. It caches nothing, as most such programs.
 */

import { createReadStream } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { join, normalize } from 'node:path';

const [root, port] = process.argv.slice(2);
const SMALL = 16384;

async function answer(req, res) {
  const { pathname } = new URL(req.url, 'http://localhost');
  const file = join(root, normalize(decodeURIComponent(pathname)));
  const { size, mtime } = await stat(file);
  res.setHeader('Content-Type', 'application/octet-stream');
  res.setHeader('Content-Length', size);
  res.setHeader('Last-Modified', mtime.toUTCString());
  if (size <= SMALL) res.end(await readFile(file));
  else createReadStream(file).pipe(res);
}

const server = createServer((req, res) => {
  answer(req, res).catch(() => res.writeHead(404).end());
});
server.keepAliveTimeout = 600_000;
server.listen(Number(port), '0.0.0.0');
