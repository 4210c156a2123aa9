/** A node:http server that answers with 1 KB and closes no idle connection: http_idle.mjs PORT. */

import { createServer } from 'node:http';

const body = Buffer.alloc(1024, 1);
const server = createServer((request, response) => {
  response.setHeader('Content-Length', body.length);
  response.end(body);
});
server.keepAliveTimeout = 0;
server.headersTimeout = 0;
server.requestTimeout = 0;
server.listen({ port: Number(process.argv[2]), backlog: 4096 });
