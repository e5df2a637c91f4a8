'use strict';
// Workers that do nothing for a while, or are not there at all: their clients are served by others,
// or wait.

const { once } = require('node:events');
const net = require('node:net');
const { setTimeout: sleep } = require('node:timers/promises');
const { WORKERS, ask, connect, startServing, stopClusters } = require('../helpers/cluster');

afterEach(stopClusters);

const CLIENTS = 40;
const BLOCKED_MS = 3000;

/** Blocks a worker's event loop; resolves once it is, with a promise of its end. */
async function block(worker, ms) {
  const isBlocked = new Promise((resolve) => {
    worker.on('message', ({ blocking }) => blocking && resolve());
  });
  const unblocked = ask(worker, 'block', { ms });
  await isBlocked;
  return { unblocked };
}

/** Connects; resolves with who has answered and how long that took. */
async function serve(port) {
  const start = performance.now();
  const { pid, socket } = await connect({ port });
  socket.destroy();
  return { pid, ms: performance.now() - start };
}

const accepted = (cluster, { id }) => cluster.stats().find((entry) => entry.id === id).accepted;

test('brood workers: what a blocked one has been offered goes elsewhere, and it gets no more', async () => {
  const { cluster, port, workers } = await startServing(2, { execArgv: WORKERS[1][1] });
  const [blocked, idle] = workers;
  const { unblocked } = await block(blocked, BLOCKED_MS);
  const before = accepted(cluster, blocked);
  const results = [];
  // In four waves, for the first ones cannot know.
  for (let wave = 0; wave < 4; wave++) {
    const clients = Array.from({ length: CLIENTS / 4 }, () => serve(port));
    results.push(...(await Promise.all(clients)));
    if (wave > 0) expect(cluster.stats()[0].waiting).toBe(0);
  }
  expect(results.map(({ pid }) => pid)).toEqual(Array(CLIENTS).fill(idle.process.pid));
  expect(Math.max(...results.map(({ ms }) => ms))).toBeLessThan(1000);
  expect(accepted(cluster, blocked)).toBe(before);
  await unblocked;
  // It is back.
  const pids = new Set();
  while (pids.size < 2) pids.add((await serve(port)).pid);
});

test('stock workers: all but the one that is on its way go elsewhere', async () => {
  const { cluster, port, workers } = await startServing(2, { execArgv: WORKERS[0][1] });
  const [blocked, idle] = workers;
  const { unblocked } = await block(blocked, BLOCKED_MS);
  const results = await Promise.all(Array.from({ length: CLIENTS }, () => serve(port)));
  await unblocked;
  const quick = results.filter(({ pid }) => pid === idle.process.pid);
  const slow = results.filter(({ pid }) => pid === blocked.process.pid);
  expect([quick.length, slow.length]).toEqual([CLIENTS - 1, 1]);
  expect(Math.max(...quick.map(({ ms }) => ms))).toBeLessThan(1000);
  expect(cluster.stats().map(({ waiting }) => waiting)).toEqual([0, 0]);
});

test.each(WORKERS)(
  '%s workers: no client is refused while all of them are gone',
  async (_, execArgv) => {
    const { cluster, fork, workers, port } = await startServing(2, { execArgv });
    for (const worker of workers) worker.process.kill('SIGKILL');
    await Promise.all(workers.map((worker) => once(worker, 'exit')));
    // A second of nobody, in which clients go on coming.
    const clients = [];
    const end = performance.now() + 1000;
    while (performance.now() < end) {
      const socket = net.connect({ port });
      await once(socket, 'connect');
      clients.push(once(socket, 'data').then(([data]) => [socket, Number.parseInt(data, 10)]));
      await sleep(20);
    }
    expect(cluster.listeningSockets()).toMatchObject([{ port, workers: 0 }]);
    const replacements = await Promise.all([fork(), fork()]);
    await Promise.all(replacements.map((worker) => ask(worker, 'listen', { at: { port: 0 } })));
    const pids = replacements.map((worker) => worker.process.pid);
    for (const [socket, pid] of await Promise.all(clients)) {
      expect(pids).toContain(pid);
      socket.destroy();
    }
  },
);
