import type { RemoteInfo, Socket as DgramSocket } from 'node:dgram';
import { expect } from 'chai';
import { chargenPattern, ctime, Inetd, services } from '../../src/apps/inetd/inetd.ts';
import type { DirectOptions } from '../../src/api/direct.ts';
import type { Server } from '../../src/api/server.ts';

describe('inetd', () => {
  it('has the services of the RFCs on their ports', () => {
    const ports = Object.fromEntries(services.map(({ name, port }) => [name, port]));
    expect(ports).to.deep.equal({ echo: 7, discard: 9, daytime: 13, chargen: 19 });
  });

  it('generates characters as the example of RFC 864 does', () => {
    const lines = chargenPattern().toString('ascii').split('\r\n');
    expect(lines.pop()).to.equal('');
    expect(lines).to.have.lengthOf(95);
    for (const line of lines) expect(line).to.match(/^[ -~]{72}$/);
    // The RFC's own lines, which start with the exclamation mark.
    expect(lines[1]).to.equal(
      '!"#$%&\'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefgh',
    );
    expect(lines[2]).to.equal(
      '"#$%&\'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghi',
    );
    expect(lines[94]!.startsWith('~ !"#$')).to.equal(true);
  });

  it('formats the time as ctime(3) does', () => {
    expect(ctime(new Date(2026, 10, 2, 9, 5, 7))).to.equal('Mon Nov  2 09:05:07 2026');
    expect(ctime(new Date(2027, 0, 31, 23, 59, 59))).to.equal('Sun Jan 31 23:59:59 2027');
  });

  it('closes the sockets it has opened when one port is in use', () => {
    const open: number[] = [];
    const server = (): Server => {
      const fake = {
        on: () => fake,
        listen(port: number): void {
          if (port === 13) throw new Error('EADDRINUSE');
          open.push(port);
        },
        close: () => void open.shift(),
      };
      return fake as unknown as Server;
    };
    const bound: number[] = [];
    const dgram = (): DgramSocket => {
      const fake = {
        on: () => fake,
        once: () => fake,
        bind: (port: number) => bound.push(port),
        close: () => bound.pop(),
      };
      return fake as unknown as DgramSocket;
    };
    const direct = ({ port }: DirectOptions) => {
      open.push(port);
      bound.push(port);
      const close = (): void => {
        open.splice(open.indexOf(port), 1);
        bound.splice(bound.indexOf(port), 1);
      };
      return { close, destroy: close };
    };
    const log = { info: () => undefined };
    expect(() => new Inetd({ server, dgram, direct }, { services, log })).to.throw('EADDRINUSE');
    expect(open).to.deep.equal([]);
    expect(bound).to.deep.equal([]);
  });

  it('answers datagrams, except from port 0 and from ports of such services', () => {
    const sockets: { port: number; listener: (data: Buffer, from: RemoteInfo) => void }[] = [];
    const sent: { from: number; to: number; data: string }[] = [];
    let waiting = 0;
    const server = (): Server => {
      const fake = { on: () => fake, listen: () => fake, close: () => fake };
      return fake as unknown as Server;
    };
    const dgram = (): DgramSocket => {
      const me = { port: 0, listener: (): void => undefined };
      sockets.push(me);
      const fake = {
        on: (_event: string, listener: () => void) => void (me.listener = listener),
        once: () => fake,
        bind: (port: number) => void (me.port = port),
        getSendQueueCount: () => waiting,
        send(data: Buffer, to: number, _host: string, done: (e: Error | null) => void): void {
          if (to === 666) done(Object.assign(new Error('no'), { code: 'EHOSTUNREACH' }));
          else sent.push({ from: me.port, to, data: data.toString() });
        },
        close: () => undefined,
      };
      return fake as unknown as DgramSocket;
    };
    const directs: DirectOptions[] = [];
    const direct = (options: DirectOptions) => {
      directs.push(options);
      return { close: () => undefined, destroy: () => undefined };
    };
    const logged: object[] = [];
    const log = { info: (fields: object) => void logged.push(fields) };
    const inetd = new Inetd({ server, dgram, direct }, { services, log });
    const arrives = (from: number): void => {
      const data = Buffer.from('who is there');
      for (const { listener } of sockets)
        listener(data, { address: '192.0.2.1', family: 'IPv4', port: from, size: data.length });
    };
    for (const from of [7, 9, 13, 19, 0]) arrives(from);
    expect(sent).to.deep.equal([]);
    arrives(5000);
    arrives(5000);
    expect(sent.map(({ from, to }) => [from, to])).to.deep.equal(
      [13, 19, 13, 19].map((from) => [from, 5000]),
    );
    // Echo and discard answer inside the stack, with the same exceptions.
    expect(directs.map(({ kind, port }) => [kind, port])).to.deep.equal([
      ['echo', 7],
      ['discard', 9],
    ]);
    const [{ ignores, failed }] = directs as [DirectOptions];
    expect([7, 9, 13, 19, 20, 5000].filter((from) => ignores(from))).to.deep.equal([7, 9, 13, 19]);
    expect(sent[0]!.data).to.match(/^\w{3} \w{3} [ \d]\d \d\d:\d\d:\d\d \d{4}\r\n$/);
    const [one, two] = [sent[1]!.data, sent[3]!.data];
    expect(one).to.have.lengthOf(74);
    expect(two.slice(0, 70)).to.equal(one.slice(1, 71));
    arrives(666);
    failed('datagram', '::ffff:192.0.2.1', 666, 'EHOSTUNREACH');
    for (const [i, service] of ['daytime', 'chargen', 'echo'].entries())
      expect(logged[i]).to.deep.equal({ service, peer: '192.0.2.1:666', code: 'EHOSTUNREACH' });
    // While an answer waits for room, further ones are dropped.
    waiting = 1;
    const before = sent.length;
    arrives(5000);
    expect(sent).to.have.lengthOf(before);
    expect(logged.at(-1)).to.include({ peer: '192.0.2.1:5000', code: 'ENOBUFS' });
    inetd.close();
  });
});
