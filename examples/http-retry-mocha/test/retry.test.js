import { deepEqual, equal } from 'node:assert/strict';
import { createServer } from 'node:http';
import { withLink } from 'tapnic/testing';
import { getWithRetry } from '../get_with_retry.js';

describe('getWithRetry', () => {
  const test = withLink(async ({ client, server, link }) => {
    const http = createServer((request, response) => response.end('hello'));
    server.listen(http, { port: 80 });
    const { createConnection } = client.net;
    const errors = [];
    // All frames are lost until two tries have failed, each after 75 seconds of virtual time.
    link.set({ lossRate: 1 });
    const onRetry = ({ code }) => link.set({ lossRate: errors.push(code) < 2 ? 1 : 0.1 });
    const text = await getWithRetry('http://192.0.2.2/', { createConnection, onRetry });
    equal(text, 'hello');
    deepEqual(errors, ['ETIMEDOUT', 'ETIMEDOUT']);
  });
  it('asks again when the network has lost the request', test);
});
