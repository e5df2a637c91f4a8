'use strict';
// The main job, `npm start`: one port, served over HTTP by one worker process for each core, with a
// live table of the workers. A worker that dies is replaced; Ctrl-C ends everything cleanly.
//   node examples/serve.js [port]      PORT and WORKERS may also stand in the environment

const { once } = require('node:events');
const http = require('node:http');
const net = require('node:net');
const { availableParallelism } = require('node:os');
const { fork } = require('..');

const PORT = 8000;
const WORKERS = Number(process.env.WORKERS) || availableParallelism();
const REPORT_AFTER_MS = 100;
const REPORT_EVERY_MS = 1000;
const QUIET_LINE_EVERY_MS = 10_000;
const STOP_WITHIN_MS = 5000;
// A worker that died younger than this is replaced only after a pause of as long.
const TOO_YOUNG_MS = 1000;

const role = { opener, worker }[process.argv[2]] ?? primary;
role();

// ---- The primary: holds the port, and as many workers as it is told to.

async function primary() {
  const { listener, address } = await openPort();
  const workers = new Map(); // pid -> { child, born, memory, requests }
  const state = { workers, address, served: 0, replaced: 0, stopping: false };
  const screen = process.stdout.isTTY ? liveTable(state) : quietLines(state);

  function startWorker() {
    if (state.stopping) return;
    const child = fork(__filename, ['worker']);
    if (child.pid === undefined) return child.once('error', fatal);
    const entry = { child, born: Date.now(), memory: 0, requests: 0 };
    workers.set(child.pid, entry);
    child.send('serve', listener, noteFailure);
    child.on('error', noteFailure);
    child.on('message', ({ memory, requests }) => {
      state.served += requests - entry.requests;
      Object.assign(entry, { memory, requests });
      screen.draw();
    });
    child.once('exit', (code, signal) => workerEnded(child.pid, entry, signal ?? code));
    screen.say(`worker ${child.pid} started`);
  }

  function workerEnded(pid, { born }, how) {
    workers.delete(pid);
    if (state.stopping) return;
    state.replaced++;
    screen.say(`worker ${pid} ended (${how}) and is replaced`);
    const pause = Date.now() - born < TOO_YOUNG_MS ? TOO_YOUNG_MS : 0;
    setTimeout(startWorker, pause);
  }

  async function stop() {
    if (state.stopping) return killAll(workers); // asked twice: at once
    state.stopping = true;
    screen.close();
    console.log('stopping');
    const ends = [...workers.values()].map(({ child }) => once(child, 'exit'));
    for (const { child } of workers.values()) child.send('stop', noteFailure);
    const timer = setTimeout(killAll, STOP_WITHIN_MS, workers);
    await Promise.all(ends);
    clearTimeout(timer);
    listener.close();
    console.log(`served ${state.served} requests, replaced ${state.replaced} workers`);
    process.exit(0);
  }

  console.log(`brood serves ${address} with ${WORKERS} workers; Ctrl-C ends it`);
  process.on('SIGINT', stop);
  process.on('SIGTERM', stop);
  for (let i = 0; i < WORKERS; i++) startWorker();
}

/**
 * Opens the port in a short-lived child, which sends the listening handle back. A server of the
 * primary's own would accept connections too; a bare handle only keeps the port, so that what
 * arrives while no worker is up waits in the kernel's queue.
 */
async function openPort() {
  const asked = process.argv[2] ?? process.env.PORT;
  // Where nobody asked for a port by its number, any free one will do.
  const ports = asked ? [asked] : [PORT, 0];
  const child = fork(__filename, ['opener', ...ports.map(String)]);
  child.once('exit', (code) => code === 0 || fatal(new Error('the port could not be opened')));
  const [message, listener] = await once(child, 'message');
  if (message.error) fatal(new Error(message.error));
  return { listener, address: `http://localhost:${message.port}/` };
}

function killAll(workers) {
  for (const { child } of workers.values()) child.kill('SIGKILL');
}

function noteFailure(error) {
  // A worker that dies while it is spoken to says so by its exit too, which is where it is replaced.
  if (error && error.code !== 'EPIPE' && error.code !== 'ERR_IPC_CHANNEL_CLOSED') throw error;
}

function fatal(error) {
  console.error(error.message);
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

function table({ workers, served }) {
  const cell = (text, width) => String(text).padStart(width);
  const row = (pid, memory, requests) => `${cell(pid, 10)}${cell(memory, 10)}${cell(requests, 12)}`;
  const megabytes = (bytes) => `${Math.round(bytes / 1e6)} MB`;
  const list = [...workers];
  const memory = list.reduce((sum, [, entry]) => sum + entry.memory, 0);
  return [
    row('worker', 'memory', 'requests'),
    ...list.map(([pid, entry]) => row(pid, megabytes(entry.memory), entry.requests)),
    row('all', megabytes(memory), served),
  ];
}

// ---- The opener: binds the port, gives it away and ends.

function opener() {
  const [port, ...others] = process.argv.slice(3);
  const server = net.createServer();
  server.on('error', (error) => {
    if (error.code === 'EADDRINUSE' && others.length > 0) server.listen(Number(others.shift()));
    else process.send({ error: `cannot serve port ${port}: ${error.message}` });
  });
  server.listen(Number(port), () => {
    // The handle alone, not the server: what the primary gets is not listened to there.
    process.send({ port: server.address().port }, server._handle, () => {
      server.close();
      process.disconnect();
    });
  });
}

// ---- A worker: an HTTP server on the handle it is sent.

function worker() {
  let requests = 0;
  let soon = null;
  const server = http.createServer((request, response) => {
    requests++;
    soon ??= setTimeout(report, REPORT_AFTER_MS).unref();
    response.end(`worker ${process.pid} answers its request number ${requests}\n`);
  });

  process.on('message', (message, listener) => {
    // close() takes no new connections and calls back when the open requests are answered.
    if (message === 'stop') return server.close(() => report(() => process.disconnect()));
    server.listen(listener, () => report());
    setInterval(report, REPORT_EVERY_MS).unref();
  });

  function report(done = () => {}) {
    clearTimeout(soon);
    soon = null;
    if (process.connected) process.send({ memory: process.memoryUsage.rss(), requests }, done);
  }

  // Ctrl-C reaches the whole group of processes: the primary alone decides what it means.
  process.on('SIGINT', () => {});
  // The primary is gone, or this worker has said goodbye.
  process.on('disconnect', () => server.close(() => process.exit()));
}
