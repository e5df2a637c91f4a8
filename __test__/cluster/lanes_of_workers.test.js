'use strict';
// The worker's half of a lane: who gets one, what becomes of connections a worker cannot serve, and
// what the dispatcher hears of the worker's load.

const { once } = require('node:events');
const net = require('node:net');
const {
  REGISTER,
  ask,
  connect,
  startCluster,
  stopClusters,
  until,
  whoServes,
} = require('../helpers/cluster');
const { ROOT, fixture } = require('../helpers/run');

afterEach(stopClusters);

const lanes = (cluster) => cluster.stats().map(({ lane }) => lane);

test('a lane is for workers with brood, by register or by require', async () => {
  const { cluster, fork } = startCluster();
  await ask(await fork(), 'listen', { at: 0 });
  cluster.setupPrimary({ execArgv: REGISTER });
  await ask(await fork(), 'listen', { name: 'b', at: 0 });
  cluster.setupPrimary({ execArgv: ['-r', ROOT] });
  await ask(await fork(), 'listen', { name: 'b', at: 0 });
  expect(lanes(cluster)).toEqual([false, true, true]);
});

test('stock and brood workers share a port', async () => {
  const { cluster, fork } = startCluster({ policy: 'rr-strict' });
  const pids = [];
  let port;
  for (const execArgv of [[], REGISTER]) {
    cluster.setupPrimary({ execArgv });
    const worker = await fork();
    ({ port } = await ask(worker, 'listen', { at: { port: 0 } }));
    pids.push(worker.process.pid);
  }
  const served = [];
  for (let i = 0; i < 6; i++) served.push(await whoServes({ port }));
  expect(served.filter((pid) => pid === pids[0]).length).toBe(3);
  expect(served.filter((pid) => pid === pids[1]).length).toBe(3);
});

test('a worker that loads brood after its server listens stays as stock', async () => {
  const { cluster, fork } = startCluster();
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  await ask(worker, 'load', { module: ROOT });
  await ask(worker, 'listen', { name: 'second', at: { port: 0 } });
  expect(lanes(cluster)).toEqual([false]);
  expect(await whoServes({ port })).toBe(worker.process.pid);
});

test('an exception in one connection listener costs no other connection', async () => {
  const { fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { kind: 'throws', at: { port: 0 } });
  // While the worker is blocked, all of them gather for one batch.
  const blocking = once(worker, 'message');
  const unblocked = ask(worker, 'block', { ms: 300 });
  await blocking;
  const clients = Array.from({ length: 30 }, () => connect({ port }));
  for (const { pid, socket } of await Promise.all(clients)) {
    expect(pid).toBe(worker.process.pid);
    socket.destroy();
  }
  await unblocked;
});

test('what is sent to a server that has closed meanwhile goes to another worker', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const [leaver, stayer] = [await fork(), await fork()];
  const { port } = await ask(stayer, 'listen', { at: { port: 0 } });
  for (let round = 0; round < 10; round++) {
    await ask(leaver, 'listen', { at: { port: 0 } });
    const clients = Array.from({ length: 20 }, () => connect({ port }));
    // The connections are on their way while the server closes.
    const closed = ask(leaver, 'close');
    for (const { socket } of await Promise.all(clients)) socket.destroy();
    await closed;
  }
  await until(() => cluster.stats().every(({ waiting }) => waiting === 0));
});

test('the dispatcher hears of connections that open and close, and of a busy loop', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  const held = [];
  for (let i = 1; i <= 3; i++) {
    held.push(await connect({ port }));
    expect(cluster.stats()[0].inFlight).toBe(i);
  }
  for (const { socket } of held) socket.destroy();
  while ((await ask(worker, 'connections')) > 0);
  expect(cluster.stats()[0].inFlight).toBe(0);

  await ask(worker, 'block', { ms: 500 });
  const { socket } = await connect({ port });
  // Half a second of at most one and a half: that is how old a measurement may be.
  await until(() => cluster.stats()[0].eventLoopUtilization > 0.2);
  socket.destroy();
});

test('a connection that leaves for another process after its server was closed is not counted', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  await ask(worker, 'sendNextAway');
  const { socket } = await connect({ port });
  await until(() => cluster.stats()[0].inFlight === 0);
  expect(socket.closed).toBe(false);
  socket.destroy();
});

test('a Unix socket comes on the lane, too', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const path = `${require('node:os').tmpdir()}/brood-lane-${process.pid}.sock`;
  await ask(worker, 'listen', { at: { path } });
  expect(await whoServes({ path })).toBe(worker.process.pid);
  await until(() => cluster.stats()[0].accepted === 1);
});

test('a worker that loses its lane is served as a stock one', async () => {
  const { cluster, fork } = startCluster({ execArgv: ['-r', fixture('loses-lane.js')] });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  for (let i = 0; i < 3; i++) expect(await whoServes({ port })).toBe(worker.process.pid);
  expect(lanes(cluster)).toEqual([false]);
});

test.each([
  ['is sent away', (worker) => worker.disconnect()],
  ['leaves by itself', (worker) => worker.send('leave')],
])('a worker that %s while its lane is on the way ends as it would without', async (_, act) => {
  const { cluster } = startCluster({ exec: fixture('leaves.js') });
  const worker = cluster.fork();
  act(worker);
  expect(await once(worker, 'exit')).toEqual([0, null]);
});

test('so is one that its lane has never reached', async () => {
  const { cluster, fork } = startCluster({
    execArgv: ['-r', fixture('misses-lane.js')],
    limits: { openFiles: 100 },
  });
  let refusals = 0;
  cluster.once('fork', ({ process }) => {
    process.on('internalMessage', ({ cmd }) => (refusals += cmd === 'NODE_HANDLE_NACK'));
  });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  expect(refusals).toBe(4);
  for (let i = 0; i < 3; i++) expect(await whoServes({ port })).toBe(worker.process.pid);
  expect(lanes(cluster)).toEqual([false]);
});

test('a lane does not keep a worker alive that has hung up', async () => {
  const { fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  await ask(worker, 'listen', { at: { port: 0 } });
  const exited = once(worker, 'exit');
  worker.disconnect();
  expect(await exited).toEqual([0, null]);
});

test('an open connection keeps a worker that is sent away until it ends', async () => {
  const { fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0 } });
  const { socket } = await connect({ port });
  const exited = once(worker, 'exit');
  worker.disconnect();
  socket.write('still there?\n');
  const [echo] = await once(socket, 'data');
  expect(String(echo)).toBe('still there?\n');
  socket.end();
  expect(await exited).toEqual([0, null]);
});

test('servers that listen by themselves are no business of the lane', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const { port } = await ask(worker, 'listen', { at: { port: 0, exclusive: true } });
  const socket = net.connect({ port });
  await once(socket, 'data');
  expect(cluster.stats()[0].accepted ?? 0).toBe(0);
  socket.destroy();
});
