/** IP options on the wire: `IP_OPTIONS` of a TCP socket against Linux, and packets made with Scapy. */

import { expect } from 'chai';
import { createStack, type StackOptions } from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site, withServed } from '../support/served.ts';

/** Prints the IP options of the SYN as Linux stored them, then the digest of what it received. */
const server = `
import hashlib, socket
l = socket.create_server(('192.0.2.1', 7))
print('ready', flush=True)
c, _ = l.accept()
print(c.getsockopt(socket.IPPROTO_IP, socket.IP_OPTIONS, 64).hex(), flush=True)
h = hashlib.sha256(); n = 0
while True:
    b = c.recv(65536)
    if not b: break
    h.update(b); n += len(b)
print(n)
`;

describe('netns: IP options of sockets', function () {
  needs('root', 'tap', 'netns', 'python3');
  this.timeout(60_000);

  const modes: StackOptions[] = [{ mode: 'wire' }, { mode: 'vnet' }, { nic: 'tb' }];
  for (const options of modes)
    it(`Linux receives a TCP stream whose segments record the route, ${JSON.stringify(options)}`, async () => {
      using ns = new Netns('opts');
      const stack = await createStack({ netns: ns.name, memory: '64M', ...options });
      try {
        const python = ns.run('python3', ['-c', server]);
        const b = stack.bsd();
        const { AF_INET, SOCK_STREAM, IPPROTO_IP, IP_OPTIONS } = b.constants;
        const s = b.socket(AF_INET, SOCK_STREAM);
        const rr = Buffer.from([7, 11, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
        expect(b.setsockopt(s, IPPROTO_IP, IP_OPTIONS, rr)).to.equal(0);
        for (let i = 0; !ns.exec('ss', ['-Htln']).includes(':7 ') && i < 100; i++)
          await new Promise((resolve) => setTimeout(resolve, 50));
        await b.connectAsync(s, { address: '192.0.2.1', port: 7 });
        const data = Buffer.alloc(300_000, 'x');
        for (let at = 0; at < data.length;)
          at += await b.sendAsync(s, data.subarray(at, at + 50_000));
        await b.closeAsync(s);
        const { stdout, stderr } = await python;
        const [, opts, n] = stdout.trim().split('\n');
        expect(stderr).to.equal('');
        // Linux stores the option of the SYN with its own address added.
        expect(opts).to.match(/^070b08c0000201/);
        expect(n).to.equal('300000');
        b.closeAll();
      } finally {
        await stack.close();
      }
    });
});

const scapy = `
import logging; logging.getLogger('scapy').setLevel(logging.ERROR)
from scapy.all import *
conf.verb = 0
A = '192.0.2.2'
def ask(name, p):
    r = sr1(p, timeout=1)
    if r is None: print(name, 'silence'); return
    i = r[ICMP] if ICMP in r else None
    what = '%d/%d' % (i.type, i.code) if i else r.summary()
    if i and i.type == 12: what += ' at %d' % i.ptr
    print(name, what, bytes(r)[20:r[IP].ihl * 4].hex())
R = lambda b: IPOption(b)
ask('rr', IP(dst=A, options=[R(bytes([7, 7, 4, 0, 0, 0, 0])), R(b'\\0')])/ICMP())
ask('lsrr-end', IP(dst=A, options=[R(bytes([131, 7, 8, 192, 0, 2, 9])), R(b'\\0')])/ICMP())
ask('lsrr-hop', IP(dst=A, options=[R(bytes([131, 7, 4, 192, 0, 2, 9])), R(b'\\0')])/ICMP())
ask('bad-length', IP(dst=A, options=[R(bytes([148, 5, 0, 0]))])/ICMP())
ask('router-alert', IP(dst=A, options=[R(bytes([148, 4, 0, 0]))])/ICMP())
ask('no-protocol', IP(dst=A, proto=253)/Raw(b'12345678'))
ask('udp-0', IP(dst=A)/UDP(sport=9, dport=0)/Raw(b'x'))
ask('mask', IP(dst=A)/ICMP(type=17))
`;

describe('netns: IP options made with Scapy', function () {
  needs('root', 'tap', 'netns', '/usr/lib/python3/dist-packages/scapy');
  this.timeout(60_000);

  it('each is answered as by FreeBSD', async () => {
    using site = new Site();
    await withServed(site, ['--sysctl', 'net.inet.icmp.maskrepl=1'], async (tapnic) => {
      const { stdout } = await tapnic.ns.run('/usr/bin/python3', ['-c', scapy]);
      expect(stdout.trim().split(/ *\n/)).to.deep.equal([
        'rr 0/0 070708c000020200',
        'lsrr-end 3/5',
        'lsrr-hop silence',
        'bad-length 12/0 at 21',
        'router-alert 0/0',
        'no-protocol 3/2',
        'udp-0 silence',
        'mask 18/0',
      ]);
    });
  });
});
