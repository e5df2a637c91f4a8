'use strict';
// The channel of a worker without brood, which the dispatcher and JavaScript share: neither may lose
// or reorder what is the other's.

const { once } = require('node:events');
const {
  ask,
  connect,
  startCluster,
  startServing,
  stopClusters,
  until,
  whoServes,
} = require('../helpers/cluster');
const { isRunning } = require('../helpers/system');

afterEach(stopClusters);

const SERIALIZATIONS = ['json', 'advanced'];

async function listening(settings) {
  const { workers, ...serving } = await startServing(1, settings);
  return { ...serving, worker: workers[0] };
}

describe.each(SERIALIZATIONS)('serialization %s:', (serialization) => {
  test('messages both ways keep their order while connections come and go', async () => {
    const { worker, port } = await listening({ serialization });
    const got = [];
    worker.on('message', ({ n }) => n !== undefined && got.push(n));
    const clients = [];
    for (let n = 0; n < 300; n++) {
      worker.send({ id: -1, what: 'send', with: { message: { n, text: 'é'.repeat(n) } } });
      if (n % 3 === 0) clients.push(whoServes({ port }));
    }
    expect(new Set(await Promise.all(clients))).toEqual(new Set([worker.process.pid]));
    await until(() => got.length === 300);
    expect(got).toEqual(Array.from({ length: 300 }, (_, n) => n));
  });

  test('a connection that is declined is served by another worker', async () => {
    const { cluster, fork, worker, port } = await listening({ serialization });
    await ask(worker, 'set', { maxConnections: 1 });
    const { socket } = await connect({ port });
    const other = await fork();
    await ask(other, 'listen', { at: { port: 0 } });
    const pids = await Promise.all(Array.from({ length: 10 }, () => whoServes({ port })));
    expect(new Set(pids)).toEqual(new Set([other.process.pid]));
    expect(cluster.stats()[0]).toMatchObject({ lane: false, accepted: 1 });
    socket.destroy();
  });

  test('what a worker has written comes before the end of its process', async () => {
    const { worker } = await listening({ serialization });
    const COUNT = 128;
    let got = 0;
    let before;
    worker.process.on('message', ({ text }) => text !== undefined && got++);
    worker.process.once('exit', () => (before = got));
    const text = 'x'.repeat(1 << 16);
    worker.send({ id: -1, what: 'sendMany', with: { count: COUNT, text } });
    // The dispatcher reads all of it while this thread is busy, and the end is there by then, too.
    while (isRunning(worker.process.pid));
    await once(worker, 'exit');
    expect(before).toBe(COUNT);
  });

  test('what is sent behind a connection calls back when it has left', async () => {
    const { cluster, worker, port } = await listening({ serialization });
    // Answers nothing from here on, for an answer would wake the primary, too.
    worker.process.kill('SIGSTOP');
    const client = connect({ port });
    await until(() => cluster.stats()[0].waiting === 1);
    const called = new Promise((resolve) => worker.send({ quiet: true }, resolve));
    worker.process.kill('SIGCONT');
    expect(await called).toBe(null);
    (await client).socket.destroy();
  });
});

test('messages keep their order when the dispatcher begins to read the channel', async () => {
  const { fork } = startCluster();
  for (let round = 0; round < 5; round++) {
    const worker = await fork();
    const got = [];
    worker.on('message', ({ n }) => n !== undefined && got.push(n));
    const send = (n) => worker.send({ id: -1, what: 'send', with: { message: { n } } });
    for (let n = 0; n < 500; n++) send(n);
    const listens = ask(worker, 'listen', { at: { port: 0 } });
    for (let n = 500; n < 1000; n++) send(n);
    const { port } = await listens;
    expect(await Promise.all([whoServes({ port }), whoServes({ port })])).toHaveLength(2);
    await until(() => got.length === 1000);
    expect(got).toEqual(Array.from({ length: 1000 }, (_, n) => n));
    const exited = once(worker, 'exit');
    worker.process.kill('SIGKILL');
    await exited;
  }
});
