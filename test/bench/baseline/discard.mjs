/** A node:net server that discards what it receives: discard.mjs PORT. */

import { createServer } from 'node:net';

const server = createServer({ allowHalfOpen: true }, (socket) => {
  socket.on('error', () => socket.destroy());
  socket.once('end', () => socket.end());
  socket.resume();
});
server.listen(Number(process.argv[2]));
