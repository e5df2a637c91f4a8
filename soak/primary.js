'use strict';
// The primary of the soak: workers that are killed at random and replaced at once, under the load
// of soak/client.js. Runs in the main thread or in a worker thread, and says what it has seen.

const { once } = require('node:events');
const fs = require('node:fs');
const path = require('node:path');
const { setTimeout: sleep } = require('node:timers/promises');
const { parentPort, workerData } = require('node:worker_threads');
const { cluster, fork } = require('..');

const REGISTER = path.join(__dirname, '..', 'register.js');
const LONGEST_PAUSE_MS = 150;

function descriptors() {
  return fs.readdirSync('/proc/self/fd').length;
}

function residentBytes() {
  global.gc?.();
  return process.memoryUsage.rss();
}

/** `{ seconds, workers, isBrood, policy, log }` -> what happened. */
async function soak({ seconds, workers, isBrood, policy, log }) {
  cluster.schedulingPolicy = policy;
  cluster.setupPrimary({
    exec: path.join(__dirname, 'worker.js'),
    execArgv: isBrood ? ['-r', REGISTER] : [],
    args: [],
  });
  const kills = [];
  let isOver = false;
  const start = () => cluster.fork({ SOAK_LOG: log });
  cluster.on('exit', () => isOver || start());
  const listening = once(cluster, 'listening');
  for (let i = 0; i < workers; i++) start();
  const [, { port }] = await listening;
  await allListening(workers);
  const client = fork(path.join(__dirname, 'client.js'), [String(port)], { execArgv: [] });
  const before = { descriptors: descriptors(), bytes: residentBytes() };

  const until = Date.now() + seconds * 1000;
  while (Date.now() < until) {
    await sleep(Math.random() * LONGEST_PAUSE_MS);
    const alive = Object.values(cluster.workers).filter((worker) => worker.state === 'listening');
    const victim = alive[Math.floor(Math.random() * alive.length)];
    if (victim === undefined) continue;
    kills.push(Date.now());
    victim.process.kill('SIGKILL');
  }
  client.send('stop');
  const [report] = await once(client, 'message');
  await allListening(workers);
  const after = { descriptors: descriptors(), bytes: residentBytes() };
  client.disconnect();
  isOver = true;
  await new Promise((resolve) => cluster.disconnect(resolve));
  return { ...report, kills, before, after };
}

async function allListening(count) {
  const listening = () =>
    Object.values(cluster.workers).filter((worker) => worker.state === 'listening').length;
  while (listening() < count) await once(cluster, 'listening');
}

module.exports = { soak };

if (parentPort !== null) soak(workerData).then((result) => parentPort.postMessage(result));
