'use strict';
// How long a listening socket lives: not longer than its workers want it, unless the last of them
// has crashed.

const { once } = require('node:events');
const net = require('node:net');
const {
  WORKERS,
  ask,
  connect,
  quietPort,
  startCluster,
  stopClusters,
  whoServes,
} = require('../helpers/cluster');
const { ROOT, runNode } = require('../helpers/run');

afterEach(stopClusters);

const refused = (port) => expect(whoServes({ port })).rejects.toThrow('ECONNREFUSED');

/** A cluster with one worker that listens; resolves with { cluster, fork, worker, port }. */
async function serve(settings) {
  const started = startCluster(settings);
  const worker = await started.fork();
  const port = quietPort();
  await ask(worker, 'listen', { at: { port } });
  return { ...started, worker, port };
}

async function crash(worker) {
  worker.process.kill('SIGKILL');
  await once(worker, 'exit');
  if (worker.isConnected()) await once(worker, 'disconnect');
}

describe.each(WORKERS)('%s workers:', (_, execArgv) => {
  test('clients wait for the replacement of a last worker that has crashed', async () => {
    const { cluster, fork, worker, port } = await serve({ execArgv });
    await crash(worker);
    expect(cluster.listeningSockets()).toMatchObject([{ port, workers: 0 }]);
    const waiting = Array.from({ length: 20 }, () => connect({ port }));
    const replacement = await fork();
    await ask(replacement, 'listen', { at: { port } });
    for (const { pid, socket } of await Promise.all(waiting)) {
      expect(pid).toBe(replacement.process.pid);
      socket.destroy();
    }
  });

  test('a worker that leaves takes the last socket with it, however it leaves', async () => {
    const ways = [
      (worker) => worker.disconnect(),
      (worker) => worker.send({ id: 0, what: 'leave' }),
      (worker) => ask(worker, 'close'),
      (worker) => worker.send({ id: 0, what: 'exit', with: { code: 0 } }),
    ];
    for (const leave of ways) {
      const { cluster, worker, port } = await serve({ execArgv });
      const gone = leave === ways[2] ? undefined : once(worker, 'exit');
      await leave(worker);
      await gone;
      expect(cluster.listeningSockets()).toEqual([]);
      await refused(port);
    }
  });

  test('the port of a last worker that is sent away is free at once, however busy it is', async () => {
    const { cluster, fork, worker, port } = await serve({ execArgv });
    const replacement = await fork();
    // Whoever has accepted for itself has the socket.
    await whoServes({ port });
    const blocking = once(worker, 'message');
    worker.send({ id: 0, what: 'block', with: { ms: 2000 } });
    await blocking;
    worker.disconnect();
    await refused(port);
    expect(cluster.listeningSockets()).toEqual([]);
    await ask(replacement, 'listen', { at: { port } });
    expect(await whoServes({ port })).toBe(replacement.process.pid);
  });

  test('a worker that ends with an error has crashed', async () => {
    const { cluster, worker, port } = await serve({ execArgv });
    const exited = once(worker, 'exit');
    worker.send({ id: 0, what: 'exit', with: { code: 3 } });
    await exited;
    expect(cluster.listeningSockets()).toMatchObject([{ port }]);
  });
});

test('listenerGrace: 0 closes at once, as Node does', async () => {
  const { cluster, worker, port } = await serve({ listenerGrace: 0 });
  await crash(worker);
  expect(cluster.listeningSockets()).toEqual([]);
  await refused(port);
});

test('the grace ends', async () => {
  const { cluster, worker, port } = await serve({ listenerGrace: 50 });
  await crash(worker);
  expect(cluster.listeningSockets()).toMatchObject([{ port, workers: 0 }]);
  const client = net.connect({ port });
  client.on('error', () => {});
  // Nobody can serve it: its end is the end of the grace.
  await new Promise((resolve) => client.once('close', resolve));
  expect(cluster.listeningSockets()).toEqual([]);
  await refused(port);
});

test('cluster.disconnect() ends it', async () => {
  const { cluster, worker, port } = await serve({ listenerGrace: Infinity });
  await crash(worker);
  const disconnected = new Promise((resolve) => cluster.disconnect(resolve));
  expect(cluster.listeningSockets()).toEqual([]);
  await refused(port);
  await disconnected;
});

test('a kept socket gives way to another that wants its port', async () => {
  const { worker, port, fork } = await serve({ listenerGrace: Infinity });
  await crash(worker);
  const next = await fork();
  await ask(next, 'listen', { at: { port, host: '127.0.0.1' } });
  expect(await whoServes({ port, host: '127.0.0.1' })).toBe(next.process.pid);
});

test.each([
  [-1, 'ERR_OUT_OF_RANGE'],
  [NaN, 'ERR_OUT_OF_RANGE'],
  ['5', 'ERR_INVALID_ARG_TYPE'],
])('listenerGrace: %p is %s', (listenerGrace, code) => {
  expect(() => startCluster({ listenerGrace })).toThrow(expect.objectContaining({ code }));
});

describe('the primary', () => {
  const primary = (body) => `
    const cluster = require(${JSON.stringify(ROOT)}).cluster;
    if (cluster.isPrimary) { ${body} }
    else require('node:net').createServer(() => {}).listen(0);`;

  test('ends although a socket is kept for a worker that has crashed', async () => {
    const source = primary(`
      cluster.setupPrimary({ exec: __filename, listenerGrace: Infinity });
      const worker = cluster.fork();
      worker.once('listening', () => worker.process.kill('SIGKILL'));
      process.once('exit', () => console.log(cluster.listeningSockets().length));`);
    const { stdout, code } = await runProgram(source);
    expect([stdout, code]).toEqual(['1\n', 0]);
  });

  test('does not end while a worker listens, even with everything else unreferenced', async () => {
    const source = primary(`
      cluster.setupPrimary({ exec: __filename });
      const worker = cluster.fork();
      worker.once('listening', () => {
        worker.process.unref();
        worker.process.channel.unref();
        setTimeout(() => console.log('still here'), 300).unref();
        setTimeout(() => worker.disconnect(), 400).unref();
      });`);
    const { stdout, code } = await runProgram(source);
    expect([stdout, code]).toEqual(['still here\n', 0]);
  });
});

/** Runs a program that forks itself. */
async function runProgram(source) {
  const fs = require('node:fs');
  const path = require('node:path');
  const folder = fs.mkdtempSync(path.join(require('node:os').tmpdir(), 'brood-lifetime-'));
  const file = path.join(folder, 'program.cjs');
  fs.writeFileSync(file, source);
  try {
    return await runNode([file]);
  } finally {
    fs.rmSync(folder, { recursive: true, force: true });
  }
}
