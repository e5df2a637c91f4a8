'use strict';
// Workers that accept for themselves: what permits cost when there is nothing to accept, or nobody
// to accept it, and that what is accepted is served.

const fs = require('node:fs');
const net = require('node:net');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
const {
  REGISTER,
  ask,
  connect,
  startServing,
  stopClusters,
  until,
  whoServes,
} = require('../helpers/cluster');

afterEach(stopClusters);

const serve = (count) => startServing(count, { execArgv: REGISTER });

/** How often the dispatcher's thread has gone to sleep. */
function sleepsOfDispatcher() {
  const tasks = fs.readdirSync('/proc/self/task').map((id) => `/proc/self/task/${id}`);
  const isDispatcher = (task) => fs.readFileSync(`${task}/comm`, 'utf8') === 'brood-dispatch\n';
  const sleeps = tasks.filter(isDispatcher).map((task) => sleepsOf(task));
  return sleeps.reduce((a, b) => a + b, 0);
}

function sleepsOf(task) {
  const status = fs.readFileSync(`${task}/status`, 'utf8');
  return Number(/^voluntary_ctxt_switches:\s+(\d+)$/m.exec(status)[1]);
}

/** Clients that come and go, thirty-two at a time. */
async function flood(port, count) {
  const one = async () => {
    while (count-- > 0) await whoServes({ port });
  };
  await Promise.all(Array.from({ length: 32 }, one));
}

test('when a flood is over nobody holds permits or wakes for them', async () => {
  const { cluster, workers, port } = await serve(2);
  await flood(port, 3000);
  const waiting = () => cluster.stats().map((entry) => entry.waiting);
  await until(() => waiting().every((count) => count === 0));
  // What they did not know was taken back they learn from the next client.
  await whoServes({ port });
  const tasks = workers.map(({ process: { pid } }) => `/proc/${pid}`);
  const counts = () => [sleepsOfDispatcher(), ...tasks.map(sleepsOf)];
  // It has to come to rest; how soon depends on what else the machine does.
  let sleeps;
  do {
    const before = counts();
    await sleep(500);
    sleeps = counts().map((count, index) => count - before[index]);
  } while (sleeps[0] !== 0);
  // A worker measures how busy it is.
  expect(Math.max(...sleeps)).toBeLessThan(20);
  expect(waiting()).toEqual([0, 0]);
  const [first, second] = cluster.stats().map(({ accepted }) => accepted);
  expect(Math.abs(first - second)).toBeLessThan(300);
});

test('a full worker whose clients wait costs next to nothing, and serves when it has room', async () => {
  const { workers, port } = await serve(1);
  const [worker] = workers;
  await ask(worker, 'set', { maxConnections: 1 });
  const { socket } = await connect({ port });
  // In whichever order they come.
  const waiting = Array.from({ length: 3 }, () => whoServes({ port }));
  const before = sleepsOfDispatcher();
  await sleep(500);
  // A hundred looks, and ten questions.
  expect(sleepsOfDispatcher() - before).toBeLessThan(200);
  socket.destroy();
  await Promise.all(waiting);
});

test('a connection is served whose number libuv believes to be another’s', async () => {
  const { workers, port } = await serve(1);
  const [worker] = workers;
  await whoServes({ port });
  while ((await ask(worker, 'connections')) > 0);
  const descriptors = () => fs.readdirSync(`/proc/${worker.process.pid}/fd`).length;
  await ask(worker, 'closeBehindItsBack');
  const before = descriptors();
  for (let i = 0; i < 3; i++) {
    const held = await connect({ port });
    expect(held.pid).toBe(worker.process.pid);
    expect(descriptors()).toBe(before + 1);
    held.socket.destroy();
    await until(() => descriptors() === before);
  }
});

test('a client that has gone before it was accepted keeps no other waiting', async () => {
  const { port } = await serve(2);
  for (let i = 0; i < 50; i++) {
    const socket = net.connect({ port });
    await once(socket, 'connect');
    socket.resetAndDestroy();
  }
  await whoServes({ port });
});
