'use strict';
// What brood's cluster has beside Node's: broadcast, weights, draining, statistics, and schedulers
// that change while connections come.

const { once } = require('node:events');
const net = require('node:net');
const path = require('node:path');
const {
  REGISTER,
  WORKERS,
  ask,
  connect,
  startCluster,
  startServing,
  stopClusters,
  until,
  whoServes,
} = require('../helpers/cluster');

afterEach(stopClusters);

describe.each(WORKERS)('%s workers:', (name, execArgv) => {
  test('stats() says what the primary can know', async () => {
    const { cluster, workers, port } = await startServing(2, { execArgv });
    const held = [await connect({ port }), await connect({ port }), await connect({ port })];
    const isBrood = name === 'brood';
    const accepted = () => cluster.stats().reduce((sum, entry) => sum + entry.accepted, 0);
    await until(() => accepted() === 3);
    const stats = cluster.stats();
    stats.forEach((entry, index) => {
      const { id, process } = workers[index];
      const mine = held.filter(({ pid }) => pid === process.pid).length;
      expect(entry).toEqual({
        id,
        pid: process.pid,
        state: 'listening',
        weight: 1,
        draining: false,
        lane: isBrood,
        accepted: mine,
        inFlight: isBrood ? mine : null,
        waiting: 0,
        handedBack: 0,
        eventLoopUtilization: isBrood ? expect.any(Number) : null,
        memory: expect.any(Number),
      });
      expect(entry.memory).toBeGreaterThan(1e7);
    });
    for (const { socket } of held) socket.destroy();
    for (const worker of workers) {
      while ((await ask(worker, 'connections')) > 0);
    }
    if (isBrood) expect(cluster.stats().map(({ inFlight }) => inFlight)).toEqual([0, 0]);
  });

  test('a draining worker gets no new connections, and gets them again', async () => {
    const { workers, port } = await startServing(2, { execArgv });
    const [first, second] = workers.map((worker) => worker.process.pid);
    workers[0].draining = true;
    expect(workers[0].draining).toBe(true);
    for (let i = 0; i < 6; i++) expect(await whoServes({ port })).toBe(second);
    workers[0].draining = false;
    workers[1].draining = true;
    for (let i = 0; i < 6; i++) expect(await whoServes({ port })).toBe(first);
  });

  test('weights share connections out', async () => {
    const { workers, port } = await startServing(2, { execArgv, policy: 'rr-strict' });
    workers[0].weight = 3;
    expect(workers.map(({ weight }) => weight)).toEqual([3, 1]);
    let heavy = 0;
    for (let i = 0; i < 40; i++) {
      if ((await whoServes({ port })) === workers[0].process.pid) heavy++;
    }
    expect(heavy).toBe(30);
  });

  test('a broadcast reaches every connected worker, in order with what else is sent', async () => {
    const { cluster, workers } = await startServing(3, { execArgv });
    const received = workers.map((worker) => {
      const messages = [];
      worker.on('message', ({ result }) => messages.push(result));
      return messages;
    });
    const names = ['HOME', 'NOT_THERE'];
    const question = (id) => ({ id, what: 'environment', with: { names } });
    for (const worker of workers) worker.send(question(1));
    expect(cluster.broadcast(question(2))).toBe(3);
    for (const worker of workers) worker.send({ id: 3, what: 'connections' });
    await Promise.all(
      workers.map(async (worker, index) => {
        while (received[index].length < 3) await once(worker, 'message');
      }),
    );
    const expected = [process.env.HOME ?? null, null];
    expect(received).toEqual(Array(3).fill([expected, expected, 0]));
    const gone = once(workers[0], 'disconnect');
    workers[0].disconnect();
    await gone;
    expect(cluster.broadcast(question(4))).toBe(2);
  });
});

test('a connection is in flight before its listener is called', async () => {
  const { cluster, fork } = startCluster({ execArgv: REGISTER });
  const worker = await fork();
  const how = { kind: 'blocks', options: { ms: 5000 }, at: { port: 0 } };
  const socket = net.connect((await ask(worker, 'listen', how)).port).on('error', () => {});
  const inFlight = () => cluster.stats()[0].inFlight;
  const begin = Date.now();
  await until(() => inFlight() === 1);
  expect(Date.now() - begin).toBeLessThan(4000);
  socket.destroy();
});

test('the server of a worker whose connections are counted stays an object that V8 is fast with', async () => {
  const execArgv = [...REGISTER, '--allow-natives-syntax'];
  const { workers, port } = await startServing(1, { execArgv });
  await whoServes({ port });
  expect(await ask(workers[0], 'isFast')).toBe(true);
});

test('a broadcast to workers of both serializations', async () => {
  const { cluster, fork } = startCluster({ serialization: 'json' });
  const workers = [await fork()];
  cluster.setupPrimary({ serialization: 'advanced' });
  workers.push(await fork());
  const answers = workers.map((worker) => once(worker, 'message'));
  expect(cluster.broadcast({ id: 7, what: 'environment', with: { names: [] } })).toBe(2);
  for (const answer of answers) expect(await answer).toEqual([{ id: 7, result: [] }, undefined]);
});

test('a broadcast that one serialization cannot carry reaches nobody', async () => {
  const { cluster, fork } = startCluster({ serialization: 'advanced' });
  const worker = await fork();
  cluster.setupPrimary({ serialization: 'json' });
  await fork();
  const received = [];
  worker.on('message', (message) => received.push(message));
  expect(() => cluster.broadcast({ id: 7, what: 'environment', with: { names: [1n] } })).toThrow(
    /BigInt/,
  );
  await ask(worker, 'environment', { names: [] });
  expect(received).toHaveLength(1);
});

test.each([
  [undefined, 'ERR_MISSING_ARGS'],
  [() => {}, 'ERR_INVALID_ARG_TYPE'],
  [Symbol('x'), 'ERR_INVALID_ARG_TYPE'],
  [1n, 'ERR_INVALID_ARG_TYPE'],
])('broadcast(%p) throws what send() throws', async (message, code) => {
  const { cluster, fork } = startCluster();
  const worker = await fork();
  expect(() => worker.send(message)).toThrow(expect.objectContaining({ code }));
  expect(() => cluster.broadcast(message)).toThrow(expect.objectContaining({ code }));
});

test('a policy that is set by name is read as a number, as Node has it', () => {
  const { cluster } = startCluster();
  cluster.schedulingPolicy = 'sticky';
  expect(cluster.schedulingPolicy).toBe(cluster.SCHED_STICKY);
});

test('nobody has counted what a worker accepts by itself', async () => {
  const { cluster, fork } = startCluster({ policy: 'none', execArgv: REGISTER });
  const worker = await fork();
  expect(cluster.stats()[0]).toMatchObject({ lane: true, accepted: 0 });
  await ask(worker, 'listen', { at: { port: 0 } });
  const uncounted = { accepted: null, inFlight: null, waiting: null, handedBack: null };
  expect(cluster.stats()[0]).toMatchObject({ lane: true, ...uncounted });
});

test('setScheduler changes one port, or all, now and for those to come', async () => {
  const { cluster, fork } = startCluster({ policy: 'rr' });
  const worker = await fork();
  const ports = [];
  for (const name of ['a', 'b']) {
    ports.push((await ask(worker, 'listen', { name, at: { port: 0 } })).port);
  }
  const policies = () => cluster.listeningSockets().map(({ policy }) => policy);
  cluster.setScheduler('sticky', { port: ports[1] });
  expect(policies()).toEqual(['rr', 'sticky']);
  cluster.setScheduler(cluster.SCHED_LEAST_CONNECTIONS);
  await ask(worker, 'listen', { name: 'c', at: { port: 0 } });
  expect(policies()).toEqual(Array(3).fill('least-connections'));
  for (const port of ports) expect(await whoServes({ port })).toBe(worker.process.pid);
});

test('the scheduling setting gives single ports and paths a policy', async () => {
  const { cluster, fork } = startCluster({
    scheduling: { 0: 'power-of-two', './here.sock': 'rr-strict' },
  });
  const worker = await fork();
  await ask(worker, 'listen', { name: 'a', at: { port: 0 } });
  await ask(worker, 'listen', { name: 'b', at: { path: 'here.sock' } });
  const sockets = cluster.listeningSockets();
  expect(sockets.map(({ policy }) => policy)).toEqual(['power-of-two', 'rr-strict']);
  expect(sockets[1]).toMatchObject({ address: path.resolve('here.sock'), port: null });
  await ask(worker, 'close', { name: 'b' });
});

test.each([
  ['a name that is none', (cluster) => cluster.setScheduler('fair')],
  ['a number that is none', (cluster) => cluster.setScheduler(7)],
  ["the system's choice", (cluster) => cluster.setScheduler('none')],
  ['in the settings', (cluster) => cluster.setupPrimary({ scheduling: { 80: 'fair' } })],
  ['one for two places', (cluster) => cluster.setScheduler('rr', { port: 80, path: '/a' })],
  ['one for an empty path', (cluster) => cluster.setScheduler('rr', { path: '' })],
  ['one for a port in words', (cluster) => cluster.setupPrimary({ activation: { a: '80' } })],
])('%s is no policy', (_, use) => {
  const { cluster } = startCluster();
  expect(() => use(cluster)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' }));
});

test.each([
  ['a number too high', (cluster) => cluster.setScheduler('rr', { port: 65536 })],
  ['nothing', (cluster) => cluster.setScheduler('rr', {})],
  ['a symbol', (cluster) => cluster.setScheduler('rr', { port: Symbol('port') })],
  ['in the settings', (cluster) => cluster.setupPrimary({ scheduling: { 65536: 'rr' } })],
  ['a negative one', (cluster) => cluster.setupPrimary({ scheduling: { '-1': 'rr' } })],
  ['an empty word', (cluster) => cluster.setupPrimary({ scheduling: { '': 'rr' } })],
])('%s is no port', (_, use) => {
  const { cluster } = startCluster();
  expect(() => use(cluster)).toThrow(expect.objectContaining({ code: 'ERR_SOCKET_BAD_PORT' }));
});

test('what was passed cannot stand for any port', () => {
  const { cluster } = startCluster();
  expect(() => cluster.setupPrimary({ activation: { web: 0 } })).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
  );
});

test.each([0, 65536, 1.5])('weight %p is out of range', async (weight) => {
  const worker = await startCluster().fork();
  expect(() => (worker.weight = weight)).toThrow(
    expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }),
  );
});
