'use strict';
// What a worker may not do to its primary: make it throw, bind what it should not, or take what is
// not the worker's.

const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { LANE_VERSION } = require('../../lib/cluster/lane_version');
const { ask, startCluster, stopClusters } = require('../helpers/cluster');
const { expectNoLeaks } = require('../helpers/leaks');
const { fixture } = require('../helpers/run');

const { EADDRINUSE } = os.constants.errno;

afterEach(stopClusters);

const query = (fields) => ({
  cmd: 'NODE_CLUSTER',
  act: 'queryServer',
  seq: 1,
  index: 0,
  port: 0,
  addressType: 4,
  address: null,
  ...fields,
});

const LANE_PLEASE = { cmd: 'NODE_BROOD', act: 'lane', version: LANE_VERSION };

/** A worker that says what it is told to. */
async function hostile(settings) {
  const started = startCluster({ exec: fixture('hostile-cluster-worker.js'), ...settings });
  return { ...started, worker: await started.fork() };
}

/** Has the worker say it; resolves when the primary has heard it. */
function say(worker, message) {
  const heard = once(worker, 'message');
  worker.send({ say: message });
  return heard;
}

test.each([
  ['a port that is none', query({ port: 1e6 })],
  ['a port of another type', query({ port: { toString: 1 } })],
  ['a path that is a number', query({ port: -1, addressType: -1, address: 5 })],
  ['no path', query({ port: -1, addressType: -1 })],
  ['a path with a port', query({ addressType: -1, address: 'x' })],
  ['an address that is an object', query({ address: {} })],
  ['an unknown type of address', query({ addressType: 'tcp' })],
  ['a descriptor that is a string', query({ fd: '3', port: null })],
  ['a descriptor and a port', query({ fd: 0, port: 80 })],
  ['flags that are none', query({ flags: -1 })],
  ['no sequence number', query({ seq: undefined })],
  ['an index that is an object', query({ index: {} })],
  ['a server without a key', { cmd: 'NODE_CLUSTER', act: 'close', seq: 1 }],
  ['a wrong listening', { cmd: 'NODE_CLUSTER', act: 'listening', addressType: [], seq: 1 }],
  ['a goodbye without number', { cmd: 'NODE_CLUSTER', act: 'exitedAfterDisconnect', seq: {} }],
])('%s cuts the worker off', async (_, say) => {
  const { worker } = await hostile();
  const failed = once(worker, 'error');
  worker.send({ say });
  const [error] = await failed;
  expect(error.code).toBe('ERR_BROOD_IPC_PROTOCOL');
  expect(worker.isConnected()).toBe(false);
});

test.each([
  ['nothing', { cmd: 'NODE_CLUSTER' }],
  ['an act that is none', { cmd: 'NODE_CLUSTER', act: 'constructor' }],
  ['an act that is an object', { cmd: 'NODE_CLUSTER', act: {} }],
  ['an unknown act', { cmd: 'NODE_CLUSTER', act: 'fly', seq: 1 }],
  ['an answer to nothing', { cmd: 'NODE_CLUSTER', ack: 1, accepted: true }],
  ['an answer about a connection', { cmd: 'NODE_CLUSTER', ack: -5, accepted: false }],
  ['a server that does not exist', { cmd: 'NODE_CLUSTER', act: 'close', key: 'x', seq: 1 }],
  ['a lane of another version', { cmd: 'NODE_BROOD', act: 'lane', version: 77 }],
  ['a lane without version', { cmd: 'NODE_BROOD', act: 'lane' }],
  ['a listener that does not exist', { cmd: 'NODE_BROOD', act: 'ready', listener: 99 }],
  ['a listener that is none', { cmd: 'NODE_BROOD', act: 'ready', listener: {} }],
  ['the loss of a lane it never had', { cmd: 'NODE_BROOD', act: 'no-lane' }],
  ['what only a parent may', { cmd: 'NODE_DEBUG_ENABLED' }],
])('%s is heard and ignored', async (_, message) => {
  const { worker } = await hostile();
  expect(await say(worker, message)).toEqual([{ said: true }, undefined]);
  expect(worker.isConnected()).toBe(true);
});

test('the primary lives on when nobody listens for the error', async () => {
  const { cluster, worker } = await hostile();
  // once() would listen for the error, too.
  const disconnected = new Promise((resolve) => cluster.on('disconnect', resolve));
  worker.send({ say: query({ port: 1e6 }) });
  expect(await disconnected).toBe(worker);
});

test('a handle that comes with a request is closed', () =>
  expectNoLeaks(async () => {
    const { worker } = await hostile();
    const online = once(worker, 'online');
    worker.send({ say: { cmd: 'NODE_CLUSTER', act: 'online', seq: 1 }, withSocket: true });
    await online;
    await stopClusters();
  }));

test.each([
  ['that it leaves', { cmd: 'NODE_CLUSTER', act: 'exitedAfterDisconnect', seq: 1 }],
  ['for a socket that it cannot have', query({ fd: 1e6, port: null, data: 'x'.repeat(10_000) })],
])('a worker that says %s again and again, and reads no answer, is cut off', async (_, say) => {
  const { worker } = await hostile();
  const failed = once(worker, 'error');
  const ended = new Promise((resolve) => worker.once('exit', resolve));
  worker.send({ say, endlessly: true });
  expect((await failed)[0].message).toMatch(/peer asks on and reads no answer/);
  expect(worker.isConnected()).toBe(false);
  // It writes until nobody is there any more.
  expect(await ended).toBe(0);
});

test('lanes are not had twice', async () => {
  const { cluster, worker } = await hostile();
  for (let i = 0; i < 3; i++) await say(worker, LANE_PLEASE);
  expect(cluster.stats()).toMatchObject([{ lane: true }]);
});

test('nor by a worker that has given its lane up', async () => {
  const { cluster, worker } = await hostile();
  await say(worker, LANE_PLEASE);
  await say(worker, { cmd: 'NODE_BROOD', act: 'no-lane' });
  await say(worker, LANE_PLEASE);
  expect(cluster.stats()).toMatchObject([{ lane: false }]);
});

test('all who wait for a socket that cannot be bound get the error', async () => {
  const taken = net.createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const { fork, worker } = await hostile();
  const workers = [worker, await fork()];
  const answers = workers.map(
    (one) =>
      new Promise((resolve) => {
        one.on('message', ({ errno }) => errno !== undefined && resolve(errno));
      }),
  );
  // Finding the address of a name takes longer than the second request.
  const { port } = taken.address();
  for (const one of workers) one.send({ say: query({ port, address: 'localhost' }) });
  expect(await Promise.all(answers)).toEqual([-EADDRINUSE, -EADDRINUSE]);
  taken.close();
});

describe('the listen setting', () => {
  const at = { port: 0, host: '127.0.0.1' };

  test('says what may be bound, and by whom', async () => {
    const asked = [];
    const listen = (request, worker) => {
      asked.push([worker.id, request]);
      return request.address === '127.0.0.1';
    };
    const { fork } = startCluster({ listen });
    const worker = await fork();
    await ask(worker, 'listen', { at });
    await expect(ask(worker, 'listen', { at: { port: 0 } })).rejects.toEqual({
      code: 'EACCES',
      syscall: 'bind',
    });
    await expect(
      ask(worker, 'listen', { kind: 'udp', at: { port: 0, address: '0.0.0.0' } }),
    ).rejects.toMatchObject({ code: 'EACCES' });
    expect(asked).toEqual([
      [1, { address: '127.0.0.1', port: 0, addressType: 4, fd: undefined }],
      [1, { address: null, port: 0, addressType: 4, fd: undefined }],
      [1, { address: '0.0.0.0', port: 0, addressType: 'udp4', fd: undefined }],
    ]);
  });

  test.each([undefined, 1, 'yes', Promise.resolve(true)])('%p is no consent', async (answer) => {
    const { fork } = startCluster({ listen: () => answer });
    await expect(ask(await fork(), 'listen', { at })).rejects.toMatchObject({ code: 'EACCES' });
  });

  test('must be a function', () => {
    expect(() => startCluster({ listen: true })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
  });
});

const asRoot = process.getuid() === 0 ? test : test.skip;

asRoot('a worker of another user cannot name a descriptor of the primary', async () => {
  // The checkout may be in a folder that is closed to others.
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-foreign-'));
  fs.chmodSync(folder, 0o755);
  const exec = path.join(folder, 'worker.js');
  fs.copyFileSync(fixture('hostile-cluster-worker.js'), exec);
  const { worker } = await hostile({ exec, cwd: folder, uid: 65534, gid: 65534 });
  const answered = new Promise((resolve) => {
    worker.on('message', (message) => 'ack' in message && resolve(message));
  });
  worker.send({ say: query({ fd: 0, port: null }) });
  expect(await answered).toEqual({ ack: 1, errno: -13 });
  fs.rmSync(folder, { recursive: true });
});
