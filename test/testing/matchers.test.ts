/** The matchers, with chai here; vitest and jest run them in examples.test.ts. */

import * as chai from 'chai';
import { TapnicError } from '../../src/index.ts';
import { matchers, tapnicChai, type TapnicMatchers, withLink } from '../../src/testing/kit.ts';
import { errorOf } from './rejected.ts';

const { expect } = chai;

type Assertion = TapnicMatchers & { not: TapnicMatchers };
const that = (value: unknown): Assertion => expect(value) as never;

describe('testing: matchers', () => {
  before(() => {
    chai.use(tapnicChai as never);
  });

  it(
    'find sent frames',
    withLink(async ({ client, link }) => {
      client.createSocket('udp4').send('hello', 9, '192.0.2.2');
      await link.settle();
      that(client).toHaveSentFrame('> udp (5) "hello"');
      that(client).toHaveSentFrame({ protocol: 'udp', dport: 9 });
      that(client).not.toHaveSentFrame('> udp (6)');
      expect(() => that(client).toHaveSentFrame('> S')).to.throw(
        chai.AssertionError,
        /client has not sent: Flags \[S\]\nIt sent:\n(.*\n)*.*UDP, length 5/,
      );
      expect(() => that(client).not.toHaveSentFrame({ dport: 9 })).to.throw('client has sent');
      for (const line of ['< S', '+1 > S', 'S'])
        expect(() => that(client).toHaveSentFrame(line), line).to.throw(TapnicError, 'EINVAL');
      expect(() => that({}).toHaveSentFrame('> S')).to.throw(TapnicError, 'watchFrames(stack)');
    }),
  );

  it(
    'count drops',
    withLink(async ({ client, server, link }) => {
      that(server).not.toHaveDropped('udp.no_socket');
      client.createSocket('udp4').send('hello', 9, '192.0.2.2');
      await link.settle();
      that(server).toHaveDropped('udp.no_socket');
      that(server).toHaveDropped('no_socket', 1);
      expect(() => that(server).toHaveDropped('no_socket', 2)).to.throw(
        chai.AssertionError,
        /server counted udp\.no_socket 1 times, not 2\nIt counted:\n(.*\n)* {2}1 udp\.no_socket/,
      );
      const wrong = ['too_short', 'nonesuch', 5 as never];
      for (const reason of wrong)
        expect(() => that(server).toHaveDropped(reason)).to.throw(TapnicError, 'EINVAL');
      expect(() => that(server).toHaveDropped('no_socket', -1)).to.throw(TapnicError, 'EINVAL');
    }),
  );

  it(
    'find leaks',
    withLink(async ({ client, link }) => {
      expect(() => that(client).toBeLeakFree()).to.throw(TapnicError, 'expect(link)');
      await that(link).toBeLeakFree();
      void that({}).toBeLeakFree();
      void that({ mbufs: 2 }).not.toBeLeakFree();
      expect(() => that({ mbufs: 2 }).toBeLeakFree()).to.throw('leaked: 2 mbufs');
      const leaky = { close: () => Promise.resolve({ mbufs: 3 }) };
      expect((await errorOf(that(leaky).toBeLeakFree())).message).to.include('leaked: 3 mbufs');
      expect(() => that(5).toBeLeakFree()).to.throw(TapnicError, 'EINVAL');
      expect(Object.keys(matchers)).to.have.lengthOf(3);
    }),
  );
});
