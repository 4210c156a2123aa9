import { expect } from 'chai';
import { runIfconfig } from '../../src/ctl/ifconfig_verbs.ts';
import { runNdp } from '../../src/ctl/ndp.ts';
import { formatNdp } from '../../src/ctl/ndp_text.ts';
import { ControlFailure } from '../../src/ctl/protocol.ts';
import { inPass } from '../../src/sys/pass.ts';
import { FakeNic } from '../net/fake_nic.ts';
import { Rig } from '../netinet/rig.ts';

const HEAD = 'Neighbor                             Linklayer Address  Netif Expire    S Flags\n';

describe('ctl: ndp changes', () => {
  let rig: Rig;
  let nic: FakeNic;
  beforeEach(() => {
    rig = new Rig();
    nic = new FakeNic(rig.vnet, 'em0', '02:00:00:00:00:03', 0);
    runIfconfig(rig.vnet, 'em0', ['inet6', '2001:db8::2/64', 'no_dad']);
  });
  afterEach(() => {
    nic.detach();
    rig.close();
  });

  const ndp = (line: string): string => formatNdp(inPass(runNdp, rig.vnet, line.split(' ')));
  const error = (line: string): string => {
    try {
      ndp(line);
    } catch (e) {
      if (e instanceof ControlFailure) return `${e.code}: ${e.message}`;
      throw e;
    }
    return 'done';
  };

  it('sets, shows and deletes neighbours in the columns of FreeBSD', () => {
    expect(ndp('-s 2001:db8::9 2:0:0:0:0:9')).to.equal('');
    const line = '2001:db8::9                          02:00:00:00:00:09    em0 permanent R \n';
    expect(ndp('-n 2001:db8::9')).to.equal(HEAD + line);
    expect(ndp('-an')).to.include(line);
    expect(ndp('-s 2001:db8::9 02:00:00:00:00:0a temp')).to.equal('');
    expect(ndp('2001:db8::9')).to.match(/02:00:00:00:00:0a {4}em0 (1d0h0m0s|23h59m\d+s) +S \n$/);
    expect(ndp('-d 2001:db8::9')).to.equal('2001:db8::9 (2001:db8::9) deleted\n');
    expect(error('2001:db8::9')).to.equal('ENOENT: 2001:db8::9 (2001:db8::9) -- no entry');
    ndp('-s fe80::9%em0 02:00:00:00:00:09');
    expect(ndp('-c')).to.equal('fe80::9%em0 (fe80::9%em0) deleted\n');
  });

  it('shows and changes neighbour discovery on an interface', () => {
    expect(ndp('-i em0 -nud retrans=2500 curhlim=9')).to.match(
      /^linkmtu=1500, maxmtu=1500, curhlim=9, basereachable=30s0ms, reachable=\d+s, retrans=2s500ms\nFlags: auto_linklocal \n/,
    );
    expect(ndp('-i em0 nud')).to.match(/^Flags: nud auto_linklocal $/m);
    expect(ndp('-I')).to.equal('No default interface.\n');
    expect(ndp('-I em0')).to.equal('ND default interface = em0\n');
    expect(ndp('-I delete')).to.equal('No default interface.\n');
  });

  it('refuses wrong words, and changes nothing', () => {
    const before = ndp('-a');
    expect(error('-s 2001:db8::9')).to.match(/^EINVAL: -s: an address and an Ethernet address/);
    expect(error('-s 2001:db8::2 02:00:00:00:00:09')).to.match(
      /^EEXIST: 2001:db8::2 is an address/,
    );
    expect(error('-s 2001:db8:9::9 02:00:00:00:00:09')).to.match(
      /^EINVAL: cannot intuit interface/,
    );
    expect(error('-s 2001:db8::9 02:00')).to.match(/^EINVAL: invalid Ethernet address: 02:00/);
    expect(error('-s 2001:db8::9 02:00:00:00:00:09 blackhole')).to.match(
      /^EINVAL: blackhole: only temp and proxy are known/,
    );
    expect(error('-d 192.0.2.1')).to.equal('EINVAL: 192.0.2.1: not an IPv6 address');
    expect(error('-d 2001:db8::9')).to.equal('ENOENT: cannot locate 2001:db8::9');
    expect(error('-i em9')).to.equal('ENXIO: interface em9 does not exist');
    expect(error('-i em0 bogus')).to.match(/^EINVAL: bogus: one of disabled, nud/);
    expect(error('-i em0 curhlim=256')).to.equal('EINVAL: curhlim=256: curhlim=N, up to 255');
    expect(error('-z')).to.match(/^EINVAL: -z: use -a, -c/);
    expect(ndp('-a')).to.equal(before);
  });
});
