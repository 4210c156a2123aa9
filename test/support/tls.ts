/** TLS for tests of captures: a certificate, and what tshark decrypts. */

import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

/** Makes a key and a self-signed certificate in `dir`: the files `key` and `cert`. */
export function selfSigned(dir: string): { key: Buffer; cert: Buffer } {
  const [key, cert] = [join(dir, 'key'), join(dir, 'cert')];
  const make = ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'];
  execFileSync(
    'openssl',
    [...make, '-nodes', '-days', '1', '-subj', '/CN=x', '-keyout', key, '-out', cert],
    { stdio: 'ignore' },
  );
  return { key: readFileSync(key), cert: readFileSync(cert) };
}

/** The paths of the HTTP requests that tshark decrypts with the keys in `file` alone. */
export function decryptedRequests(file: string): string[] {
  const out = execFileSync(
    'tshark',
    ['-n', '-r', file, '-Y', 'tls && http.request', '-T', 'fields', '-e', 'http.request.uri'],
    { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] },
  );
  return out.split('\n').filter((line) => line !== '');
}
