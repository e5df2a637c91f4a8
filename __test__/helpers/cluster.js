'use strict';
// A cluster whose primary is the test's own process: each has settings, policy and workers of its
// own. Workers run fixtures/cluster-worker.js and are spoken to with `ask`.

const { randomInt } = require('node:crypto');
const EventEmitter = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const { setImmediate } = require('node:timers/promises');
const { setUpPrimary } = require('../../lib/cluster/face');
const { ROOT, fixture } = require('./run');

const { once } = EventEmitter;
const REGISTER = ['-r', `${ROOT}/register.js`];

// What runs in the workers: stock Node, or brood.
const WORKERS = [
  ['stock', []],
  ['brood', REGISTER],
];

// Each primary listens to this process once, for its whole life.
process.setMaxListeners(0);

const open = new Set();
let lastId = 0;

/** Sends a worker a command; resolves with the result, rejects with { code, syscall }. */
function ask(worker, what, given) {
  const id = ++lastId;
  worker.send({ id, what, with: given });
  return new Promise((resolve, reject) => {
    const onMessage = (message) => {
      if (message?.id !== id) return;
      worker.off('message', onMessage);
      if (message.error) reject(message.error);
      else resolve(message.result);
    };
    worker.on('message', onMessage);
  });
}

/** A cluster. `fork()` resolves with a worker that is ready for commands. */
function startCluster({ policy, execArgv = [], ...settings } = {}) {
  const cluster = setUpPrimary(new EventEmitter());
  open.add(cluster);
  if (policy !== undefined) cluster.schedulingPolicy = policy;
  cluster.setupPrimary({ exec: fixture('cluster-worker.js'), args: [], execArgv, ...settings });
  const fork = async (env) => {
    const worker = cluster.fork(env);
    await once(worker, 'message');
    return worker;
  };
  return { cluster, fork };
}

/** As startCluster, with `count` workers that listen on one port. */
async function startServing(count, settings) {
  const started = startCluster(settings);
  const workers = [];
  let port;
  for (let i = 0; i < count; i++) {
    const worker = await started.fork();
    ({ port } = await ask(worker, 'listen', { at: { port: 0 } }));
    workers.push(worker);
  }
  return { ...started, workers, port };
}

/** For afterEach: ends every worker of every cluster, whatever state it is in. */
async function stopClusters() {
  for (const cluster of open) {
    const workers = Object.values(cluster.workers);
    const ended = workers.map((worker) => worker.isDead() || once(worker.process, 'exit'));
    for (const worker of workers) worker.process.kill('SIGKILL');
    await Promise.all(ended);
    cluster.disconnect();
  }
  open.clear();
}

/** Connects and resolves with { pid, socket } once a worker has said who it is. */
function connect(to) {
  const socket = net.connect(to);
  return new Promise((resolve, reject) => {
    let text = '';
    socket.setEncoding('utf8').on('data', (chunk) => {
      text += chunk;
      if (text.includes('\n')) resolve({ pid: Number.parseInt(text, 10), socket });
    });
    socket.once('error', reject);
    socket.once('close', () => reject(new Error(`closed after "${text}"`)));
  });
}

/**
 * A port below those that the kernel gives to whoever asks for any: what has given it up may be seen
 * to be gone, for no other process of the machine listens on it a moment later.
 */
function quietPort() {
  const range = fs.readFileSync('/proc/sys/net/ipv4/ip_local_port_range', 'utf8');
  const lowest = Number.parseInt(range, 10);
  return randomInt(Math.floor(lowest / 2), lowest);
}

/** Resolves once `condition()` holds: what the dispatcher knows of a lane is milliseconds old. */
async function until(condition) {
  while (!condition()) await setImmediate();
}

/** The pid of who serves one connection, which is closed again. */
async function whoServes(to) {
  const { pid, socket } = await connect(to);
  const closed = once(socket, 'close');
  socket.destroy();
  await closed;
  return pid;
}

module.exports = {
  REGISTER,
  WORKERS,
  ask,
  connect,
  quietPort,
  startCluster,
  startServing,
  stopClusters,
  until,
  whoServes,
};
