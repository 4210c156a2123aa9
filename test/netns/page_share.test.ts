/** Clients that do not read hold file pages; the next client is served all the same. */

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { Instance } from '../support/instance.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { Site } from '../support/served.ts';

const CLIENTS = 64;

/** Opens `CLIENTS` connections, requests a file of its own on each, and reads nothing. */
const HOLD = `
  import socket, sys, time
  held = []
  for i in range(${CLIENTS}):
      s = socket.socket()
      s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
      s.connect((sys.argv[1], 80))
      s.sendall(b'GET /big%d.bin HTTP/1.1\\r\\nHost: x\\r\\n\\r\\n' % i)
      held.append(s)
  print('held', flush=True)
  time.sleep(60)
`.replaceAll(/^ {2}/gm, '');

describe('netns: file pages', function () {
  needs('root', 'tap', 'netns', 'curl', 'python3');
  this.timeout(60_000);

  it(`with --memory 16M, ${CLIENTS} clients that do not read do not starve a small file`, async () => {
    using site = new Site();
    for (let i = 0; i < CLIENTS; i++) site.file(`big${i}.bin`, 1_000_000);
    site.file('tiny.bin', 3);
    using ns = new Netns();
    // A send buffer larger than the share of a client, as autotuning makes it.
    const tapnic = await Instance.start(ns, [
      'serve',
      site.dir,
      '--memory',
      '16M',
      '--sysctl',
      'net.inet.tcp.sendspace=262144',
    ]);
    ns.spawn('python3', ['-c', HOLD, tapnic.ready.addr], { stdio: 'ignore' });
    await sleep(3000);
    const { reasons } = await tapnic.json<{ reasons: { reason: string; count: number }[] }>(
      'netstat',
      '-s',
    );
    expect(reasons.find(({ reason }) => reason === 'wire_share')!.count).to.be.above(0);
    for (let i = 0; i < 10; i++) {
      const url = tapnic.urlOf('tiny.bin');
      const got = await tapnic.curl('-m', '5', '-o', '/dev/null', '-w', '%{size_download}', url);
      expect(got.stdout, got.stderr).to.equal('3');
    }
    const end = await tapnic.stop();
    expect(end, end.stderr).to.deep.include({ code: 0, leaked: {} });
  });
});
