import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { test } from 'node:test';
import { createStack } from 'tapnic';

test('Linux fetches a page from the emulated host', async (t) => {
  const stack = await createStack();
  t.after(async () => assert.deepEqual(await stack.close(), {}));
  stack.listen(
    createServer((_request, response) => response.end('hello')),
    { port: 80 },
  );
  const response = await fetch('http://192.0.2.2/');
  assert.equal(await response.text(), 'hello');
});
