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
const LOOK_AGAIN_MS = 10;

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
  // Those of an earlier soak of this process may be told of late.
  const own = new Set();
  const start = () => own.add(cluster.fork({ SOAK_LOG: log }));
  const replace = (worker) => {
    if (own.delete(worker) && !isOver) start();
  };
  cluster.on('exit', replace);
  const listening = once(cluster, 'listening');
  for (let i = 0; i < workers; i++) start();
  const [, { port }] = await listening;
  await settled(workers);
  const client = fork(path.join(__dirname, 'client.js'), [String(port)], { execArgv: [] });
  const before = { descriptors: descriptors(), bytes: residentBytes() };

  const until = Date.now() + seconds * 1000;
  let halfway;
  while (Date.now() < until) {
    if (Date.now() > until - seconds * 500) halfway ??= { bytes: residentBytes() };
    await sleep(Math.random() * LONGEST_PAUSE_MS);
    const alive = Object.values(cluster.workers).filter((worker) => worker.state === 'listening');
    const victim = alive[Math.floor(Math.random() * alive.length)];
    if (victim === undefined) continue;
    const kill = { at: Date.now(), seen: Infinity };
    kills.push(kill);
    // Under load a process may take its time to die.
    victim.process.once('exit', () => (kill.seen = Date.now()));
    victim.process.kill('SIGKILL');
  }
  // Before the client's report, which grows with the run.
  const bytes = residentBytes();
  client.send('stop');
  const [report] = await once(client, 'message');
  await settled(workers);
  const after = { descriptors: descriptors(), bytes };
  client.disconnect();
  isOver = true;
  await stop();
  cluster.off('exit', replace);
  return { ...report, kills, before, halfway, after };
}

/** Waits until every worker listens and no connection is on its way to one. */
async function settled(count) {
  const isSettled = () => {
    const workers = cluster.stats();
    const isQuiet = ({ state, waiting }) => state === 'listening' && waiting === 0;
    return workers.length === count && workers.every(isQuiet);
  };
  while (!isSettled()) await sleep(LOOK_AGAIN_MS);
}

/** Ends every worker, also one that has only just been started. */
async function stop() {
  const processes = Object.values(cluster.workers).map(({ process }) => process);
  const ended = processes.map((process) => once(process, 'exit'));
  for (const process of processes) process.kill('SIGKILL');
  await Promise.all(ended);
  await new Promise((resolve) => cluster.disconnect(resolve));
}

module.exports = { soak };

if (parentPort !== null) soak(workerData).then((result) => parentPort.postMessage(result));
