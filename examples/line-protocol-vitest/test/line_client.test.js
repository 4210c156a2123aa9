import { expectFrames, matchers, withFault, withLink } from 'tapnic/testing';
import { describe, expect, test } from 'vitest';
import { LineClient } from '../line_client.js';

expect.extend(matchers);

/** A store that answers in pieces of two bytes. */
function serve(stack) {
  const values = new Map();
  stack
    .createServer({ noDelay: true }, async (socket) => {
      for await (const chunk of socket.setEncoding('utf8'))
        for (const [, verb, key, value] of chunk.matchAll(/(\w+) (\S+) ?(.*)\n/g)) {
          if (verb === 'SET') values.set(key, value);
          for (const piece of `${values.get(key) ?? '?'}\n`.match(/[^]{1,2}/g)) socket.write(piece);
        }
    })
    .listen(4001);
}

async function connected(client) {
  return new LineClient(await client.connect(4001, '192.0.2.2'));
}

describe('LineClient', () => {
  test(
    'puts answers together that arrive in pieces',
    withLink(async ({ client, server }) => {
      serve(server);
      const lines = await connected(client);
      expect(await lines.set('cake', 'cherry')).toBe('cherry');
      expect(await Promise.all([lines.get('cake'), lines.get('tea')])).toEqual(['cherry', '?']);
      await lines.close();
      expect(client).toHaveSentFrame({ flags: 'P.', payload: 'SET cake cherry\n' });
    }),
  );

  test(
    'sends one segment for a question',
    withLink(async ({ client, server }) => {
      serve(server);
      const lines = await connected(client);
      await expectFrames(client, ['> S 0:0(0)', '< S. 0:0(0) ack 1', '> . 1:1(0) ack 1']);
      await lines.get('x');
      await expectFrames(client, ['> P. 1:7(6) ack 1 "GET x\\n"', '> . 7:7(0) ack 3']);
    }),
  );

  test(
    'survives lost segments',
    withLink({ seed: 5 }, async ({ client, server, link }) => {
      serve(server);
      const lines = await connected(client);
      await withFault(client, 'drop', { point: 'tx', nth: 1 }, () => lines.set('a', 'b'));
      expect(client).toHaveDropped('fault.drop', 1);
      // TCP sent it again after its timer, in virtual time.
      expect(link.now).toBeGreaterThan(200);
    }),
  );

  test(
    'reports a connection that is lost',
    withLink(async ({ client, server, link, advance }) => {
      serve(server);
      const lines = await connected(client);
      link.up = false;
      const asked = expect(lines.get('x')).rejects.toMatchObject({ code: 'ETIMEDOUT' });
      await advance(20 * 60_000);
      await asked;
      await expect(link).toBeLeakFree();
    }),
  );
});
