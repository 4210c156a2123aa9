import { expect } from 'chai';
import { chargenPattern, ctime, Inetd, services } from '../../src/apps/inetd/inetd.ts';
import type { TcpServer } from '../../src/api/server.ts';

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

  it('tells the time as ctime(3) does', () => {
    expect(ctime(new Date(2026, 10, 2, 9, 5, 7))).to.equal('Mon Nov  2 09:05:07 2026');
    expect(ctime(new Date(2027, 0, 31, 23, 59, 59))).to.equal('Sun Jan 31 23:59:59 2027');
  });

  it('takes down what it has brought up when one port cannot be had', () => {
    const open: number[] = [];
    const server = (): TcpServer => {
      const fake = {
        on: () => fake,
        listen(port: number): void {
          if (port === 13) throw new Error('EADDRINUSE');
          open.push(port);
        },
        close: () => void open.shift(),
      };
      return fake as unknown as TcpServer;
    };
    const log = { info: () => undefined };
    expect(() => new Inetd(server, { services, log })).to.throw('EADDRINUSE');
    expect(open).to.deep.equal([]);
  });
});
