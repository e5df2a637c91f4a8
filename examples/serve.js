'use strict';
// The main job, `npm start`: one port, served over HTTP by one worker process for each core, with a
// live table of the workers. A worker that dies is replaced, and its clients are not refused
// meanwhile; Ctrl-C ends everything cleanly.
//   node examples/serve.js [port]      PORT and WORKERS may also stand in the environment

const { once } = require('node:events');
const http = require('node:http');
const { availableParallelism } = require('node:os');
const path = require('node:path');
const cluster = require('../cluster.js');

const PORT = 8000;
const WORKERS = Number(process.env.WORKERS) || availableParallelism();
const REPORT_AFTER_MS = 100;
const REPORT_EVERY_MS = 1000;
const QUIET_LINE_EVERY_MS = 10_000;
const STOP_WITHIN_MS = 5000;
// A worker that died younger than this is replaced only after a pause of as long.
const TOO_YOUNG_MS = 1000;

if (cluster.isPrimary) primary();
else worker();

// ---- The primary: keeps as many workers as it is told to, and shows how they do.

async function primary() {
  const asked = process.argv[2] ?? process.env.PORT;
  // Where nobody asked for a port by its number, any free one will do.
  const ports = asked ? [asked] : [PORT, 0];
  // Preloaded, brood hands connections to the workers on a lane of its own.
  const preload = ['--require', path.join(__dirname, '..', 'register.js')];
  cluster.setupPrimary({ args: ports.map(String), execArgv: preload });

  const requests = new Map(); // worker's id -> how many it has answered
  const born = new Map(); // worker's id -> when it was started
  const state = { requests, served: 0, replaced: 0, stopping: false };

  function startWorker() {
    if (state.stopping) return;
    const { id } = cluster.fork();
    born.set(id, Date.now());
  }

  cluster.on('message', (worker, message) => {
    if (message.error) return fatal(new Error(message.error));
    state.served += message.requests - (requests.get(worker.id) ?? 0);
    requests.set(worker.id, message.requests);
    screen.draw();
  });
  cluster.on('online', ({ process }) => screen.say(`worker ${process.pid} started`));
  cluster.on('exit', ({ id, process }, code, signal) => {
    const age = Date.now() - born.get(id);
    requests.delete(id);
    born.delete(id);
    if (state.stopping) return;
    state.replaced++;
    screen.say(`worker ${process.pid} ended (${signal ?? code}) and is replaced`);
    setTimeout(startWorker, age < TOO_YOUNG_MS ? TOO_YOUNG_MS : 0);
  });

  async function stop() {
    if (state.stopping) return killAll(); // asked twice: at once
    state.stopping = true;
    screen.close();
    console.log('stopping');
    const timer = setTimeout(killAll, STOP_WITHIN_MS);
    const workers = Object.values(cluster.workers);
    for (const worker of workers) worker.send('stop', () => {});
    await Promise.all(workers.map(({ process }) => once(process, 'exit')));
    clearTimeout(timer);
    console.log(`served ${state.served} requests, replaced ${state.replaced} workers`);
    process.exit(0);
  }

  const screen = process.stdout.isTTY ? liveTable(state) : quietLines(state);
  const listening = once(cluster, 'listening');
  for (let i = 0; i < WORKERS; i++) startWorker();
  const [, { port }] = await listening;
  screen.say(`brood serves http://localhost:${port}/ with ${WORKERS} workers; Ctrl-C ends it`);
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
}

function killAll() {
  for (const { process } of Object.values(cluster.workers)) process.kill('SIGKILL');
}

function fatal(error) {
  console.error(error.message);
  killAll();
  process.exit(1);
}

// ---- What the primary shows: a table that is drawn over, or lines where the output is no terminal.

function liveTable(state) {
  let lines = 0;
  let timer = setInterval(draw, REPORT_EVERY_MS);

  function draw() {
    if (!timer) return;
    const rows = table(state);
    erase();
    process.stdout.write(`${rows.join('\n')}\n`);
    lines = rows.length;
  }

  function erase() {
    if (lines > 0) process.stdout.write(`\x1b[${lines}A\x1b[0J`);
    lines = 0;
  }

  function close() {
    draw();
    clearInterval(timer);
    timer = null;
  }

  function say(text) {
    if (!timer) return;
    erase();
    console.log(text);
    draw();
  }

  return { draw, say, close };
}

function quietLines(state) {
  let shown = 0;
  const timer = setInterval(() => {
    if (state.served === shown) return;
    shown = state.served;
    console.log(table(state).join('\n'));
  }, QUIET_LINE_EVERY_MS);
  return { draw: () => {}, say: (text) => console.log(text), close: () => clearInterval(timer) };
}

function table({ requests, served }) {
  const cell = (text, width) => String(text).padStart(width);
  const row = (...cells) => cells.map((text, column) => cell(text, column ? 12 : 10)).join('');
  const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
  const workers = cluster.stats();
  const sum = (field) => workers.reduce((total, worker) => total + (worker[field] ?? 0), 0);
  return [
    row('worker', 'memory', 'connections', 'requests'),
    ...workers.map(({ id, pid, memory, inFlight }) =>
      row(pid, megabytes(memory), inFlight ?? '', requests.get(id) ?? 0),
    ),
    row('all', megabytes(sum('memory')), sum('inFlight'), served),
  ];
}

// ---- A worker: an HTTP server. That others listen on the same port is the cluster's affair.

function worker() {
  const [port, ...others] = process.argv.slice(2);
  let requests = 0;
  let soon = null;
  const server = http.createServer((request, response) => {
    requests++;
    soon ??= setTimeout(report, REPORT_AFTER_MS).unref();
    response.end(`worker ${process.pid} answers its request number ${requests}\n`);
  });

  server.on('error', (error) => {
    if (error.code === 'EADDRINUSE' && others.length > 0) server.listen(Number(others.shift()));
    else process.send({ error: `cannot serve port ${port}: ${error.message}` });
  });
  server.listen(Number(port));
  process.on('message', () => {
    // Takes no new connections, and calls back when the open requests are answered.
    server.close(() => report(() => process.disconnect()));
    server.closeIdleConnections();
  });

  function report(done = () => {}) {
    clearTimeout(soon);
    soon = null;
    if (process.connected) process.send({ requests }, done);
  }

  // Ctrl-C reaches the whole group of processes: the primary alone decides what it means.
  process.on('SIGINT', () => {});
}
