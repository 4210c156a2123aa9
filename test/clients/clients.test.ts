/** Libraries for clients and servers work over the emulated NIC, as client and as server, unchanged. */

import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { expect } from 'chai';
import { missing, needs, needsHere } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';

const REDIS = 'redis-server';
const [LINUX, US] = ['192.0.2.1', '192.0.2.2'];

/** The results of two requests, whose second one reuses the connection of the first one. */
const requests = (from: string): string[] => [
  `GET /GET ${from} 0 false`,
  `POST /POST ${from} 100000 true`,
];
const streams = (from: string): string[] => [`/one ${from} 2.0`, `/two ${from} 2.0`];
const SOCKETS = [US, LINUX].flatMap((from) => [`hello of ${from}`, '70000', '1000']);

const EXPECTED: Readonly<Record<string, readonly string[]>> = {
  http: [...requests(US), ...requests(LINUX), 'ECONNREFUSED'],
  https: [...requests(US), ...requests('unknown')],
  http2: [...streams(US), ...streams('unknown')],
  undici: [
    `200 POST /fetch ${US} 100000`,
    `200 POST /fetch ${US} 100000`,
    `GET /request ${US} 0`,
    'ECONNREFUSED',
    `GET /linux ${LINUX} 0`,
  ],
  ws: SOCKETS,
  redis: ['OK', 'true', '[[null,1],[null,42],[null,"42"]]', US, 'OK'],
};

describe('client and server libraries', function () {
  needs('root', 'tap', 'netns', 'openssl');
  this.timeout(120_000);
  let results: Record<string, unknown> = {};
  let stderr = '';

  before(async () => {
    using ns = new Netns('libs');
    using site = new Site();
    const [cert, key] = [site.path('cert.pem'), site.path('key.pem')];
    const subject = ['-subj', '/CN=test', '-addext', `subjectAltName=IP:${LINUX},IP:${US}`];
    const algorithm = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'];
    const files = ['-keyout', key, '-out', cert, '-days', '2'];
    execFileSync('openssl', ['req', '-x509', ...algorithm, ...subject, ...files], {
      stdio: 'ignore',
    });
    const program = join(distRoot, 'test/clients/programs.js');
    const redis = missing(REDIS) === null ? REDIS : '';
    const run = await ns.run(process.execPath, [program, cert, key, redis], {
      timeoutMs: 100_000,
      // The clients on Linux trust the certificate.
      env: { ...process.env, NODE_EXTRA_CA_CERTS: cert },
    });
    ({ stderr } = run);
    results = JSON.parse(run.stdout || '{}') as Record<string, unknown>;
  });

  for (const [name, expected] of Object.entries(EXPECTED))
    it(`${name}: from the stack to Linux, and from Linux to the stack`, function () {
      if (name === 'redis') needsHere(this, REDIS);
      expect(results[name], stderr).to.eql(expected);
    });

  it('wrong arguments, and a stack that is closed, are errors with a code', () => {
    expect(results['wrong']).to.eql(['EINVAL', 'EINVAL', 'EINVAL']);
    expect(results['closed']).to.eql(['EBADF', 'EBADF', 'EBADF']);
  });

  it('leak nothing, and print no warning', () => {
    expect(results['leaked']).to.eql({});
    expect(stderr).to.equal('');
  });
});
