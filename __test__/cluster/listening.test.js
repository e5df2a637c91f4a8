'use strict';
// Every kind of socket a worker can listen on, with stock workers and with brood's, under a policy
// of the dispatcher's and under the operating system's.

const { once } = require('node:events');
const dgram = require('node:dgram');
const fs = require('node:fs');
const http = require('node:http');
const http2 = require('node:http2');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const {
  WORKERS,
  ask,
  connect,
  quietPort,
  startCluster,
  stopClusters,
  whoServes,
} = require('../helpers/cluster');
const { fixture, runNode, waitForOutput } = require('../helpers/run');
const { hasDropMaxConnection } = require('../../lib/node_version');

let folder;
beforeAll(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-listening-'));
});
afterAll(() => fs.rmSync(folder, { recursive: true, force: true }));
afterEach(stopClusters);

const CASES = WORKERS.flatMap(([name, execArgv]) =>
  ['rr', 'none'].map((policy) => [name, policy, execArgv]),
);

describe.each(CASES)('%s workers, policy %s:', (_, policy, execArgv) => {
  const start = (settings) => startCluster({ policy, execArgv, ...settings });

  test('two workers share a port that the system has chosen', async () => {
    const { cluster, fork } = start();
    const workers = [await fork(), await fork()];
    const listening = [];
    cluster.on('listening', (worker, info) => listening.push([worker.id, info]));
    const addresses = [];
    for (const worker of workers) addresses.push(await ask(worker, 'listen', { at: { port: 0 } }));
    expect(addresses[0].port).toBeGreaterThan(0);
    expect(addresses[1]).toEqual(addresses[0]);
    const { port } = addresses[0];
    expect(listening).toEqual(
      workers.map(({ id }) => [id, { addressType: 4, address: null, port, fd: undefined }]),
    );
    const pids = workers.map((worker) => worker.process.pid);
    for (let i = 0; i < 4; i++) expect(pids).toContain(await whoServes({ port }));
    expect(cluster.listeningSockets()).toMatchObject([{ address: '::', port, policy, workers: 2 }]);
  });

  test.each([
    ['IPv4', { port: 0, host: '127.0.0.1' }, { family: 'IPv4', address: '127.0.0.1' }],
    ['IPv6', { port: 0, host: '::1' }, { family: 'IPv6', address: '::1' }],
    [
      'IPv6 only',
      { port: quietPort(), host: '::', ipv6Only: true },
      { family: 'IPv6', address: '::' },
    ],
  ])('%s', async (name, at, expected) => {
    const { fork } = start();
    const worker = await fork();
    const address = await ask(worker, 'listen', { at });
    expect(address).toMatchObject(expected);
    const { port } = address;
    const host = at.host === '::' ? '::1' : at.host;
    expect(await whoServes({ port, host })).toBe(worker.process.pid);
    if (at.ipv6Only) {
      await expect(whoServes({ port, host: '127.0.0.1' })).rejects.toThrow('ECONNREFUSED');
    }
  });

  test('a Unix socket, with the permissions asked for, which goes with its last server', async () => {
    const { cluster, fork } = start();
    const workers = [await fork(), await fork()];
    const file = path.join(folder, `${policy}-${execArgv.length}.sock`);
    for (const worker of workers) {
      await ask(worker, 'listen', { at: { path: file, readableAll: true, writableAll: true } });
    }
    expect(fs.statSync(file).mode & 0o666).toBe(0o666);
    const pids = workers.map((worker) => worker.process.pid);
    for (let i = 0; i < 4; i++) expect(pids).toContain(await whoServes({ path: file }));
    expect(cluster.listeningSockets()).toMatchObject([{ port: null, policy, workers: 2 }]);
    await ask(workers[0], 'close');
    expect(await whoServes({ path: file })).toBe(pids[1]);
    workers[1].disconnect();
    await once(workers[1], 'disconnect');
    expect(fs.existsSync(file)).toBe(false);
  });

  test("a descriptor of the primary's", async () => {
    const server = net.createServer().listen(quietPort(), '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address();
    const fd = duplicate(server._handle.fd);
    const closed = once(server, 'close');
    server.close();
    await closed;
    const { fork } = start();
    const worker = await fork();
    await ask(worker, 'listen', { at: { fd } });
    expect(await whoServes({ port })).toBe(worker.process.pid);
    await ask(worker, 'close');
    await expect(whoServes({ port })).rejects.toThrow('ECONNREFUSED');
  });

  test('a descriptor that is no socket is EINVAL', async () => {
    const fd = fs.openSync(__filename);
    const { fork } = start();
    await expect(ask(await fork(), 'listen', { at: { fd } })).rejects.toMatchObject({
      code: 'EINVAL',
    });
    fs.closeSync(fd);
  });

  test('UDP, shared by two workers', async () => {
    const { fork } = start();
    const workers = [await fork(), await fork()];
    const at = { port: 0, address: '127.0.0.1' };
    const [first, second] = [
      await ask(workers[0], 'listen', { kind: 'udp', at }),
      await ask(workers[1], 'listen', { kind: 'udp', at }),
    ];
    expect(second).toEqual(first);
    const client = dgram.createSocket('udp4');
    client.send('who?', first.port, '127.0.0.1');
    const [answer] = await once(client, 'message');
    client.close();
    expect(workers.map(({ process }) => process.pid)).toContain(Number(answer));
  });

  test.each([[{}], [{ port: '0' }], [{ port: 0 }]])(
    'UDP on any port, asked for by %j',
    async (at) => {
      const { fork } = start();
      const workers = [await fork(), await fork()];
      const ports = [];
      for (const worker of workers) {
        for (const name of ['a', 'b']) {
          ports.push((await ask(worker, 'listen', { name, kind: 'udp', at })).port);
        }
      }
      expect(ports[0]).not.toBe(ports[1]);
      expect(ports.slice(2)).toEqual(ports.slice(0, 2));
    },
  );

  test.each([
    ['a string', (port) => ` ${port}`],
    ['a hexadecimal one', (port) => `0x${port.toString(16)}`],
    ['a fraction', (port) => port + 0.5],
    ['more than 16 bits', (port) => port + 65536],
  ])('UDP on what Node makes of %s as its port', async (_, given) => {
    const { fork } = start();
    const worker = await fork();
    const port = quietPort();
    const at = { port: given(port), address: '127.0.0.1' };
    expect(await ask(worker, 'listen', { kind: 'udp', at })).toMatchObject({ port });
  });

  test('more sockets in one go than are answered in one go', async () => {
    const { fork } = start();
    const worker = await fork();
    expect(await ask(worker, 'bindMany', { count: 1500 })).toBe(1500);
  });

  test('several servers in one worker, each on a port of its own', async () => {
    const { fork } = start();
    const workers = [await fork(), await fork()];
    const ports = [];
    for (const worker of workers) {
      for (const name of ['a', 'b']) {
        ports.push((await ask(worker, 'listen', { name, at: { port: 0 } })).port);
      }
    }
    expect(ports[0]).not.toBe(ports[1]);
    expect(ports.slice(2)).toEqual(ports.slice(0, 2));
  });

  test('a taken port is EADDRINUSE in the worker, and free again once it is given up', async () => {
    const taken = net.createServer().listen(0);
    await once(taken, 'listening');
    const { port } = taken.address();
    const { fork } = start();
    const workers = [await fork(), await fork()];
    for (const worker of workers) {
      const failure = await ask(worker, 'listen', { at: { port } }).catch((error) => error);
      expect(failure.code).toBe('EADDRINUSE');
    }
    const closed = once(taken, 'close');
    taken.close();
    await closed;
    for (const worker of workers) await ask(worker, 'listen', { at: { port } });
  });

  test('a port that a worker has closed can be listened on again', async () => {
    const { fork } = start();
    const worker = await fork();
    const { port } = await ask(worker, 'listen', { at: { port: quietPort() } });
    for (let i = 0; i < 3; i++) {
      await ask(worker, 'close');
      await expect(whoServes({ port })).rejects.toThrow('ECONNREFUSED');
      await ask(worker, 'listen', { at: { port } });
      expect(await whoServes({ port })).toBe(worker.process.pid);
    }
  });

  test('exclusive: the worker binds by itself', async () => {
    const { cluster, fork } = start();
    const worker = await fork();
    const { port } = await ask(worker, 'listen', { at: { port: 0, exclusive: true } });
    expect(await whoServes({ port })).toBe(worker.process.pid);
    expect(cluster.listeningSockets()).toEqual([]);
  });

  test("TLS: the servers of one port share the keys of their clients' tickets", async () => {
    const { fork } = start();
    const keys = [];
    for (let i = 0; i < 3; i++) {
      const worker = await fork();
      await ask(worker, 'listen', { kind: 'tls', at: { port: 0 } });
      keys.push(await ask(worker, 'ticketKeys'));
    }
    expect(keys[0]).toMatch(/^[0-9a-f]{96}$/);
    expect(keys).toEqual(Array(3).fill(keys[0]));
  });

  test('HTTP and HTTP/2', async () => {
    const { fork } = start();
    const worker = await fork();
    const { pid } = worker.process;
    const { port } = await ask(worker, 'listen', { name: 'one', kind: 'http', at: { port: 0 } });
    const [response] = await once(http.get({ port, agent: false }), 'response');
    expect(await textOf(response)).toBe(`${pid}\n`);

    const second = await ask(worker, 'listen', { name: 'two', kind: 'http2', at: { port: 0 } });
    const session = http2.connect(`http://localhost:${second.port}`);
    expect(await textOf(session.request({ ':path': '/' }))).toBe(`${pid}\n`);
    session.close();
  });
});

/** A duplicate of a descriptor, which is the caller's to close. */
function duplicate(fd) {
  return require('../../lib/binding').duplicateDescriptor(fd);
}

async function textOf(stream) {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text;
}

describe.each(WORKERS)('%s workers:', (name, execArgv) => {
  test('maxConnections sends what is too much to another worker', async () => {
    const { fork } = startCluster({ policy: 'rr', execArgv });
    const [full, other] = [await fork(), await fork()];
    const { port } = await ask(full, 'listen', { at: { port: 0 } });
    await ask(other, 'listen', { at: { port: 0 } });
    await ask(full, 'set', { maxConnections: 1 });
    const connections = [];
    for (let i = 0; i < 6; i++) connections.push(await connect({ port }));
    const inFull = connections.filter(({ pid }) => pid === full.process.pid);
    expect(inFull.length).toBe(1);
    for (const { socket } of connections) socket.destroy();
  });

  test('dropMaxConnection drops what is too much, where Node knows it', async () => {
    const { fork } = startCluster({ policy: 'rr', execArgv });
    const worker = await fork();
    const { port } = await ask(worker, 'listen', { at: { port: 0 } });
    await ask(worker, 'set', { maxConnections: 1, dropMaxConnection: true });
    const { socket: first } = await connect({ port });
    const second = net.connect({ port });
    second.on('error', () => {});
    const served = once(second, 'data').then(() => 'served');
    const dropped = new Promise((resolve) => second.once('close', () => resolve('dropped')));
    await once(second, 'connect');
    if (!hasDropMaxConnection) first.destroy();
    const expected = hasDropMaxConnection ? 'dropped' : 'served';
    expect(await Promise.race([served, dropped])).toBe(expected);
    first.destroy();
    second.destroy();
  });

  test('no connection is lost that is made while the socket is being bound', async () => {
    const { fork } = startCluster({ execArgv });
    const worker = await fork();
    // A port that is free.
    const { port } = await ask(worker, 'listen', { at: { port: 0, host: '127.0.0.1' } });
    await ask(worker, 'close');
    let found;
    const hammering = runNode([fixture('hammer.js'), port, 100], {
      onStart: (child) => (found = waitForOutput(child.stdout, /hammering/)),
    });
    await found;
    await ask(worker, 'listen', { at: { port, host: '127.0.0.1' } });
    const { stdout } = await hammering;
    const counts = JSON.parse(stdout.slice(stdout.indexOf('{')));
    expect(counts.silent).toBe(0);
    expect(counts.answered).toBe(counts.connected);
  });

  test('two primaries may not have one port', async () => {
    const first = startCluster({ execArgv });
    const { port } = await ask(await first.fork(), 'listen', { at: { port: 0 } });
    const second = startCluster({ execArgv });
    await expect(ask(await second.fork(), 'listen', { at: { port } })).rejects.toMatchObject({
      code: 'EADDRINUSE',
    });
  });

  test.each(['json', 'advanced'])('serialization %s', async (serialization) => {
    const { fork } = startCluster({ execArgv, serialization });
    const workers = [await fork(), await fork()];
    const ports = [];
    for (const worker of workers) ports.push((await ask(worker, 'listen', { at: 0 })).port);
    const pids = workers.map((worker) => worker.process.pid);
    for (let i = 0; i < 10; i++) expect(pids).toContain(await whoServes({ port: ports[0] }));
  });
});
