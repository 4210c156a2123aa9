/** createStack, createServer and connect, with Linux's curl, socat and ping as peers. */

import { createHash } from 'node:crypto';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
} from 'node:fs';
import { createServer as createHttpServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { once } from 'node:events';
import { expect } from 'chai';
import {
  connect,
  createServer,
  createStack,
  openFile,
  type Stack,
  type StackOptions,
  TapnicError,
  type Socket,
} from '../../src/index.ts';
import { needs } from '../support/needs.ts';
import { Netns } from '../support/netns.ts';
import { distRoot } from '../support/root.ts';
import { Site } from '../support/served.ts';
import { pinged } from '../support/ping.ts';

/** Resolves with the TapnicError that `promise` rejects with; rejects otherwise. */
async function rejection(promise: Promise<unknown>): Promise<TapnicError> {
  try {
    await promise;
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not reject');
}

/** The code of what `fn` throws or rejects with; wrong arguments have errors of Node's classes. */
async function codeOf(fn: () => unknown): Promise<unknown> {
  try {
    await fn();
  } catch (e) {
    return (e as NodeJS.ErrnoException).code;
  }
  return 'no error';
}

function thrown(fn: () => unknown): TapnicError {
  try {
    fn();
  } catch (e) {
    if (e instanceof TapnicError) return e;
    throw e;
  }
  throw new Error('did not throw');
}

describe('api: createStack', () => {
  needs('root', 'tap', 'netns', 'curl', 'socat');
  let ns: Netns;
  let stack: Stack | null = null;
  const site = new Site();
  after(() => site[Symbol.dispose]());

  const open = async (options: StackOptions = {}): Promise<Stack> =>
    (stack = await createStack({
      netns: ns.name,
      memory: '64M',
      // Addresses are ready at once.
      sysctl: { 'net.inet6.ip6.dad_count': 0 },
      ...options,
    }));
  const close = async (): Promise<void> => {
    const leaked = await stack?.close();
    stack = null;
    expect(leaked ?? {}, 'leaked').to.deep.equal({});
  };

  beforeEach(() => (ns = new Netns('api')));
  afterEach(async () => {
    try {
      await close();
      expect(ns.exec('ip', ['-br', 'link'])).to.not.include('nic0');
    } finally {
      ns[Symbol.dispose]();
    }
  });

  it('answers pings of Linux, and describes itself in info', async () => {
    const s = await open({ mac: '02:00:5e:00:53:42', mtu: 1400, seed: 7, hostAddr6: null });
    expect(s.info).to.deep.include({
      tap: 'nic0',
      created: true,
      if: 'tn0',
      addr: '192.0.2.2',
      mac: '02:00:5e:00:53:42',
      mode: 'wire',
      seed: 7,
      netns: ns.name,
    });
    expect(await pinged(ns, '192.0.2.2', 3)).to.equal(3);
    expect(ns.exec('ip', ['neigh'])).to.include('192.0.2.2 dev nic0 lladdr 02:00:5e:00:53:42');
    expect(s.ifconfig('tn0')).to.deep.include({ name: 'tn0', mtu: 1400, ether: s.info.mac });
    expect(s.ifconfig().map(({ name }) => name)).to.include('tn0');
  });

  it('serves connections from Linux', async () => {
    const s = await open();
    const server = createServer(s, (socket) => socket.pipe(socket)).listen(7);
    expect(server.address()).to.deep.include({ port: 7 });
    const input = site.file('in', 300_000);
    const script = 'socat -T 20 STDIO TCP:192.0.2.2:7 > "$0"; cmp "$0" "$1"';
    const { status, stderr } = await ns.run(
      'bash',
      ['-c', script, site.path('out'), site.path('in')],
      { input },
    );
    expect([status, stderr]).to.deep.equal([0, '']);
  });

  it('connects to Linux', async () => {
    const s = await open();
    const listener = ns.spawn('socat', ['TCP-LISTEN:4000,reuseaddr', 'EXEC:rev'], {
      stdio: 'ignore',
    });
    let socket: Socket | undefined;
    for (let i = 0; i < 200 && socket === undefined; i++)
      socket = await connect(s, 4000, '192.0.2.1').catch(async (e: TapnicError) => {
        expect(e.code).to.equal('ECONNREFUSED');
        await new Promise((resolve) => setTimeout(resolve, 10));
        return undefined;
      });
    expect(socket!.remoteAddress).to.equal('192.0.2.1');
    socket!.end('hello\n');
    const chunks: Buffer[] = [];
    for await (const chunk of socket!) chunks.push(chunk as Buffer);
    expect(Buffer.concat(chunks).toString()).to.equal('olleh\n');
    listener.kill();
    const e = await rejection(connect(s, 4001, '192.0.2.1'));
    expect(e).to.include({ code: 'ECONNREFUSED', syscall: 'connect', port: 4001 });
    expect(await codeOf(() => connect(s, '/tmp/socket'))).to.equal('ERR_INVALID_ARG_VALUE');
  });

  it('carries node:http, and files by sendfile without a copy', async () => {
    const s = await open();
    const bytes = site.file('big.bin', 3_000_000);
    const http = createHttpServer((req, res) => {
      if (req.url === '/text') {
        res.end('over http\n');
        return;
      }
      res.writeHead(200, { 'content-length': statSync(site.path('big.bin')).size });
      res.flushHeaders();
      const file = openFile(openSync(site.path('big.bin'), 'r'), closeSync);
      const socket = req.socket as unknown as Socket;
      void socket.sendfile(file).finally(() => {
        file.drop();
        res.end();
      });
    });
    s.listen(http, { port: 80 });
    expect(await ns.execAsync('curl', ['-sS', 'http://192.0.2.2/text'])).to.equal('over http\n');
    const out = site.path('fetched');
    await ns.execAsync('curl', ['-sS', '-o', out, 'http://192.0.2.2/file']);
    const sha = await ns.execAsync('sha256sum', [out]);
    expect(sha.split(' ')[0]).to.equal(createHash('sha256').update(bytes).digest('hex'));
    const { emulator, sendfile } = s.netstat('m');
    expect(emulator.payload_bytes_read.copy + emulator.payload_bytes_read.checksum).to.equal(0);
    expect(sendfile.sf_pages_read + sendfile.sf_rhpages_read).to.be.greaterThan(300);
  });

  it('reads and sets sysctls, switches capabilities and reports as netstat does', async () => {
    const s = await open({
      cap: ['-txcsum'],
      sysctl: { 'kern.ipc.mb_use_ext_pgs': 0, 'net.inet.tcp.always_keepalive': 0 },
    });
    expect(s.sysctl('kern.ipc.mb_use_ext_pgs')).to.equal(0);
    expect(s.sysctl('net.inet.tcp.always_keepalive')).to.equal(0);
    expect(s.sysctl('kern.ipc.mb_use_ext_pgs', 1)).to.equal(0);
    expect(s.sysctl('kern.ipc.mb_use_ext_pgs')).to.equal(1);
    expect(thrown(() => s.sysctl('kern.ipc.nonesuch')).code).to.equal('ENOENT');
    expect(thrown(() => s.sysctl('kern.ipc')).code).to.equal('EISDIR');
    expect(thrown(() => s.sysctl('kern.ipc.mb_use_ext_pgs', 'x')).code).to.equal('EINVAL');

    expect(s.ifconfig('tn0').options_names).to.not.include('TXCSUM');
    expect(s.ifconfig('tn0', 'txcsum', '-nomap').options_names)
      .to.include('TXCSUM')
      .and.not.include('NOMAP');
    expect(thrown(() => s.ifconfig('tn9')).code).to.equal('ENXIO');

    createServer(s).listen(8080);
    expect(s.netstat('an').map(({ local, state }) => `${local} ${state}`)).to.include(
      '*.8080 LISTEN',
    );
    expect(s.netstat('s').protocols['tcp']).to.be.an('object');
    expect(s.netstat('i').map(({ name }) => name)).to.include('tn0');
  });

  it('allows one stack at a time, and another after close', async () => {
    for (let i = 0; i < 3; i++) {
      const s = await open();
      const e = await rejection(createStack({ tap: 'nic1', netns: ns.name }));
      expect(e).to.include({ code: 'EBUSY', syscall: 'createStack' });
      expect(e.message).to.include('close it first');
      await ns.execAsync('ping', ['-c', '1', '-W', '2', '192.0.2.2']);
      const first = s.close();
      expect(s.close(), 'the same close').to.equal(first);
      await close();
      expect(thrown(() => s.createServer()).code).to.equal('EBADF');
      expect((await rejection(s.connect(80, '192.0.2.1'))).code).to.equal('EBADF');
      expect(thrown(() => s.netstat('m')).code).to.equal('EBADF');
    }
  });

  it('close ends every connection, with FIN and then with RST', async () => {
    const s = await open();
    const accepted: Socket[] = [];
    createServer(s, (socket) => {
      accepted.push(socket);
      socket.on('error', () => undefined);
      socket.write('hello\n');
    }).listen(7);
    // One closes when it receives our FIN; the other keeps its half open.
    const polite = ns.run('socat', ['-u', 'TCP:192.0.2.2:7', 'STDOUT']);
    const deaf = ns.run('bash', [
      '-c',
      'exec 3<>/dev/tcp/192.0.2.2/7; cat <&3; for i in $(seq 50); do echo x >&3 || exit 9; sleep 0.1; done',
    ]);
    const established = (): number =>
      s.netstat('an').filter(({ state }) => state === 'ESTABLISHED').length;
    for (let i = 0; i < 500 && accepted.length < 2; i++)
      await new Promise((r) => setTimeout(r, 10));
    expect(established()).to.equal(2);
    const start = performance.now();
    await close();
    expect(performance.now() - start).to.be.within(900, 2500);
    expect(await polite).to.deep.include({ status: 0, stdout: 'hello\n', stderr: '' });
    const { status, signal, stdout } = await deaf;
    expect(stdout).to.equal('hello\n');
    // A write after the reset: ECONNRESET first, SIGPIPE from then on.
    expect(signal ?? status, 'a reset').to.be.oneOf([9, 'SIGPIPE']);
  });

  it('rejects a wrong option and creates no interface', async () => {
    const bad: [object, RegExp][] = [
      [{ addr: '192.0.2.2' }, /^createStack: EINVAL: addr: 192\.0\.2\.2: not an IPv4 address with/],
      [{ hostAddr: 'x' }, /: hostAddr: x: /],
      [{ mtu: 5 }, /: mtu: 5: /],
      [{ memory: '1M' }, /: memory: /],
      [{ cap: ['-nonesuch'] }, /: cap: -nonesuch: /],
      [{ capture: { nowhere: 'a.pcap' } }, /: capture: nowhere: /],
      [{ nic: 'nonesuch' }, /: nic: nonesuch: /],
      [{ nonesuch: 1 }, /: nonesuch: not an option: /],
      [{ control: 'x' }, /: control: not an option: /],
      [{ mtu: true }, /: mtu: not a text/],
      [{ mtu: '1500' }, /: mtu: "1500": a whole number from 72 to 9000 is needed$/],
      [{ memory: 'lots' }, /: memory: "lots": not a size, such as 256M$/],
      [{ fault: ['drop,x=1'] }, /: fault: x: no option of a fault: /],
      [{ fault: [{ kind: 'drop', rate: 2 }] }, /: fault: rate: 2: not a number from 0 to 1$/],
      [{ cap: 'nomap' }, /: cap: a list is needed/],
      [{ fault: 'drop' }, /: fault: a list is needed/],
      [{ ports: 'nic1' }, /: ports: a list is needed/],
      [{ ports: [{}] }, /: ports: tap: the name of an interface is needed/],
      [{ ports: [null] }, /: ports: a list of objects is needed/],
      [{ capture: ['wire=a.pcap'] }, /: capture: an object is needed/],
      [{ iommu: 'yes' }, /: iommu: true or false/],
      [
        { sysctl: { 'kern.ipc.nonesuch': 1 } },
        /^createStack: ENOENT: sysctl: unknown oid 'kern\.ipc\.nonesuch'$/,
      ],
      [
        { driver: 'tuntap2', tap: 'x' },
        /: driver: conflicts with netns|: driver: conflicts with tap/,
      ],
    ];
    for (const [options, message] of bad)
      expect((await rejection(open(options))).message, JSON.stringify(options)).to.match(message);
    for (const options of [null, 5, 'nic1', []])
      expect((await rejection(createStack(options as unknown as StackOptions))).message).to.equal(
        'createStack: EINVAL: an object of options is needed',
      );
    expect((await rejection(open({ sysctl: { 'kern.ipc.nonesuch': 1 } }))).code).to.equal('ENOENT');
    const missing = await rejection(createStack({ driver: 'tuntap2' }));
    expect(missing.message).to.include('not installed: npm install tuntap2');
    const busy = await open({ tap: 'nic1' });
    await busy.close();
    expect(ns.exec('ip', ['-br', 'link']).trim().split('\n')).to.have.lengthOf(1);
  });

  it('adds faults to a wire and removes them', async () => {
    const s = await open({ engine: 'ts', fault: ['drop,nth=1000000'] });
    const { id, ready } = s.addFault('drop', { point: 'rx', match: 'icmp', rate: 1 });
    await ready;
    expect((await ns.run('ping', ['-c1', '-W1', '192.0.2.2'])).status).to.equal(1);
    expect(s.faults().map(({ kind, nth }) => [kind, nth])).to.deep.equal([
      ['drop', 1_000_000],
      ['drop', null],
    ]);
    expect(s.faults()[1]!.hits).to.be.above(0);
    s.removeFault(id);
    expect(await pinged(ns, '192.0.2.2', 1)).to.equal(1);
    for (const [kind, options, why] of [
      ['drop', { rate: 7 }, /^fault: EINVAL: rate: 7/],
      ['drop', { colour: 'red' }, /^fault: EINVAL: colour: none of point, /],
      ['drop', { match: 7 }, /^fault: EINVAL: match: not a text/],
      ['drop', { if: 'tn7' }, /^fault: ENXIO: tn7/],
      ['melt', {}, /^fault: EINVAL: melt: no kind/],
    ] as const)
      expect(thrown(() => s.addFault(kind as 'drop', options as object)).message).to.match(why);
    expect(thrown(() => s.removeFault(99)).code).to.equal('ENOENT');
    s.removeFault('all');
    expect(s.faults()).to.deep.equal([]);
  });

  it('rejects a wrong address, port, buffer or file with an errno', async () => {
    // No default route of IPv6, for EHOSTUNREACH below.
    const s = await open({ gateway6: null });
    const wrong = undefined as never;
    for (const port of [65_536, -1, 1.5]) {
      const codes = [
        await codeOf(() => connect(s, port, '192.0.2.1')),
        await codeOf(() => createServer(s).listen(port, '192.0.2.2')),
      ];
      expect(codes, `${port}`).to.eql(['ERR_SOCKET_BAD_PORT', 'ERR_SOCKET_BAD_PORT']);
      const dgram = s.createSocket('udp4');
      const connects = (): unknown => dgram.connect(port, '192.0.2.1');
      expect(await codeOf(connects)).to.equal('ERR_SOCKET_BAD_PORT');
      dgram.close();
    }
    expect(await codeOf(() => connect(s, wrong, '192.0.2.1'))).to.equal('ERR_MISSING_ARGS');
    expect(await codeOf(() => connect(s, 80))).to.equal('ECONNREFUSED');
    // A loopback address that no interface has, and no route: the errors of the first packet.
    expect((await rejection(connect(s, 80, '127.0.0.2'))).code).to.equal('EADDRNOTAVAIL');
    expect((await rejection(connect(s, 80, '2001:db8:9::1'))).code).to.equal('EHOSTUNREACH');
    const server = createServer(s).listen(80, '192.0.2.2');
    await once(server, 'listening');
    expect(server.address()).to.deep.equal({ address: '192.0.2.2', family: 'IPv4', port: 80 });
    expect(await codeOf(() => server.listen(81))).to.equal('ERR_SERVER_ALREADY_LISTEN');

    for (const fd of [-1, 1.5, 'x', wrong])
      expect(thrown(() => openFile(fd as number, closeSync)).code).to.equal('EBADF');
    expect(thrown(() => openFile(0, wrong)).code).to.equal('EINVAL');
    const client = connect(s, 80, '127.0.0.1').catch(() => connect(s, 80, '192.0.2.2'));
    const socket = await client;
    const file = openFile(openSync(site.path('big.bin'), 'r'), closeSync);
    for (const options of [
      { offset: 1.5 },
      { offset: -1 },
      { nbytes: -1 },
      { flags: 'x' as never },
    ])
      expect((await rejection(socket.sendfile(file, options))).code).to.equal('EINVAL');
    const hdtr = { headers: ['text'], trailers: [] } as never;
    expect((await rejection(socket.sendfile(file, { hdtr }))).code).to.equal('EFAULT');
    expect((await rejection(socket.sendfile({} as never))).code).to.equal('EINVAL');
    socket.destroy();
    expect((await rejection(socket.sendfile(file))).code).to.equal('EPIPE');
    file.drop();
  });

  it('has several NICs, and creates and destroys interfaces on them', async () => {
    const s = await open({ hostAddr: null, ports: [{ tap: 'nic1', nic: 'tl', cap: ['-txcsum'] }] });
    expect(s.info.ports).to.have.lengthOf(1);
    expect(s.info.ports[0]).to.include({ tap: 'nic1', if: 'tl0', nic: 'tl' });
    expect(s.ifconfig('tl0').options_names).not.to.include('TXCSUM');
    expect(s.ifconfig('vlan5', 'create', 'vlan', '5', 'vlandev', 'tl0').vlan).to.include({
      vlan: 5,
      parent: 'tl0',
    });
    const lagg = s.ifconfig('lagg0', 'create', 'laggport', 'tn0', 'laggport', 'tl0');
    expect(lagg.lagg!.ports.map(({ name }) => name)).to.deep.equal(['tn0', 'tl0']);
    expect(s.ifconfig('vlan5', 'destroy')).to.equal(null);
    expect(() => s.ifconfig('vlan5')).to.throw(TapnicError, /vlan5 does not exist/);
    await close();
    for (const [ports, message] of [
      [[{ tap: 'lo' }], /TUNSETIFF lo/],
      [[{ tap: 'nic0' }], /: ports: nic0: two NICs on one interface/],
      [[{ tap: 'nic1', nic: 'x' }], /: ports: x: no such model/],
    ] as const)
      expect((await rejection(open({ ports }))).message).to.match(message);
    expect(ns.exec('ip', ['-br', 'link']).trim().split('\n')).to.have.lengthOf(1);
  });

  it('writes a capture that is complete after close', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-api-'));
    try {
      const file = join(dir, 'wire.pcap');
      const several = join(dir, 'several.pcapng');
      const capture = { wire: file, 'ip,if@nic0,wire@tn1': several };
      const s = await open({ ports: [{ tap: 'nic1' }], capture });
      expect(await pinged(ns, '192.0.2.2', 2)).to.equal(2);
      await close();
      expect(s.captureProblem()).to.equal(null);
      for (const [name, points] of [
        [file, 1],
        [several, 2],
      ] as const) {
        const { stdout } = await ns.run('tcpdump', ['-n', '-r', name, 'icmp']);
        expect(stdout.match(/ICMP echo reply/g)).to.have.lengthOf(2 * points);
      }
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('reports a capture that cannot be written when it happens', async () => {
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    const s = await open({ capture: { wire: '/dev/full' } });
    expect((await warned).message).to.match(/^capture: write \/dev\/full: ENOSPC: /);
    expect(s.captureProblem()).to.match(/ENOSPC/);
    await close();
    const failed = await rejection(open({ capture: { wire: '/no/a.pcap' } }));
    expect(failed.message).to.match(/open \/no\/a\.pcap: ENOENT/);
    await open({});
    await close();
  });

  it('loads no module of the command line', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'tapnic-api-'));
    try {
      // A hook writes the URL of every module to a file, because hooks run in another thread.
      const list = join(dir, 'modules');
      const hooks = `import { appendFileSync } from 'node:fs';
        export async function resolve(specifier, context, next) {
          const found = await next(specifier, context);
          appendFileSync(${JSON.stringify(list)}, found.url + '\\n');
          return found;
        }`;
      const dataUrl = (code: string): string => `data:text/javascript,${encodeURIComponent(code)}`;
      const register = `import { register } from 'node:module';
        register(${JSON.stringify(dataUrl(hooks))});`;
      const url = JSON.stringify(pathToFileURL(join(distRoot, 'src/index.js')));
      const { status, stderr } = await ns.run(process.execPath, [
        '--import',
        dataUrl(register),
        '--input-type=module',
        '-e',
        `import { createStack } from ${url};
         const stack = await createStack({ memory: '32M', cap: ['-nomap'] });
         stack.ifconfig('tn0', 'nomap');
         await stack.close();`,
      ]);
      expect([status, stderr]).to.deep.equal([0, '']);
      const modules = readFileSync(list, 'utf8').split('\n');
      expect(modules.filter((m) => m.endsWith('/src/machine/stack.js'))).to.have.lengthOf.above(0);
      const front = /\/node_modules\/(commander|yaml|pino)\/|\/src\/(cli|apps|testing)\//;
      expect(modules.filter((m) => front.test(m))).to.deep.equal([]);
    } finally {
      rmSync(dir, { recursive: true });
    }
  });

  it('removes the namespace it made', async () => {
    const name = `${ns.name}-made`;
    await open({ netns: name });
    expect(existsSync(join('/run/netns', name))).to.equal(true);
    await close();
    expect(existsSync(join('/run/netns', name))).to.equal(false);
  });

  it('lets the process end after close', async () => {
    const url = JSON.stringify(pathToFileURL(join(distRoot, 'src/index.js')));
    const { status, stdout, stderr } = await ns.run(process.execPath, [
      '--input-type=module',
      '-e',
      `import { createStack, createServer, connect } from ${url};
       const stack = await createStack({ memory: '32M' });
       const server = createServer(stack, (s) => s.end('bye')).listen(7);
       console.log(stack.info.tap, server.listening);
       // Neighbour entries and connections leave pending timers.
       const { execFile } = await import('node:child_process');
       const fetch = ['-c', 'cat < /dev/tcp/192.0.2.2/7'];
       console.log(await new Promise((r) => execFile('bash', fetch, (_e, out) => r(out))));
       await new Promise((r) => setTimeout(r, 500)); // until only the long ones are left
       console.log(JSON.stringify(await stack.close()));`,
    ]);
    expect([status, stdout, stderr]).to.deep.equal([0, 'nic0 true\nbye\n{}\n', '']);
  });
});
