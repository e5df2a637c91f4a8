'use strict';

// What S7 and S8 are to be seen beside: the same messages to a worker thread, over a plain Unix
// socket, and through the serializer alone.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { once } = require('node:events');
const { messageCount, now, secondsSince } = require('./both');

const SMALL = require('../children/small');
const CHILDREN = path.join(__dirname, '..', 'children');

function startThread(task, count) {
  const { Worker } = require('node:worker_threads');
  return new Worker(path.join(CHILDREN, 'thread.js'), { workerData: { task, count } });
}

async function toThread({ quick }) {
  const count = messageCount(quick);
  const worker = startThread('count', count);
  await once(worker, 'message');
  const start = now();
  const done = once(worker, 'message');
  for (let i = 0; i < count; i++) worker.postMessage(SMALL);
  await done;
  return { rate: count / secondsSince(start) };
}

async function fromThread({ quick }) {
  const count = messageCount(quick);
  const worker = startThread('flood', count);
  await once(worker, 'message');
  const start = now();
  const done = counted(count, (listener) => worker.on('message', listener));
  worker.postMessage('go');
  await done;
  return { rate: count / secondsSince(start) };
}

/** Resolves when the listener that `listen` is given has been called `count` times. */
function counted(count, listen) {
  let left = count;
  return new Promise((resolve) => {
    listen(() => {
      if (--left === 0) resolve();
    });
  });
}

/** Runs `work(socket, next)` with a child at the other end; `next()` resolves with a message. */
async function withSocket(task, count, work) {
  const net = require('node:net');
  const { onMessages } = require('../children/json_lines');
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-bench-'));
  const address = path.join(directory, 'socket');
  const server = net.createServer().listen(address);
  await once(server, 'listening');
  const script = path.join(CHILDREN, 'socket.js');
  const { spawn } = require('node:child_process');
  spawn(process.execPath, [script, address, task, String(count)], { stdio: 'inherit' });
  const [socket] = await once(server, 'connection');
  fs.rmSync(directory, { recursive: true });
  let listener;
  onMessages(socket, (message) => listener(message));
  const listen = (next) => (listener = next);
  await counted(1, listen);
  return work(socket, listen);
}

async function toSocket({ quick }) {
  const { writeAll } = require('../children/json_lines');
  const count = messageCount(quick);
  return withSocket('count', count, async (socket, listen) => {
    const start = now();
    const done = counted(1, listen);
    await writeAll(socket, count);
    await done;
    return { rate: count / secondsSince(start) };
  });
}

async function fromSocket({ quick }) {
  const count = messageCount(quick);
  return withSocket('flood', count, async (socket, listen) => {
    const start = now();
    const done = counted(count, listen);
    socket.write('"go"\n');
    await done;
    return { rate: count / secondsSince(start) };
  });
}

/** What two processes could do if only making and parsing the text cost anything. */
function jsonAlone({ quick }) {
  return alone(messageCount(quick), JSON.stringify, JSON.parse);
}

function serializerAlone({ quick }) {
  const { deserialize, serialize } = require('node:v8');
  return alone(messageCount(quick), serialize, deserialize);
}

function alone(count, write, read) {
  const written = write(SMALL);
  const slower = Math.max(
    timeOf(count, () => write(SMALL)),
    timeOf(count, () => read(written)),
  );
  return { rate: count / slower };
}

function timeOf(count, work) {
  const start = now();
  for (let i = 0; i < count; i++) work();
  return secondsSince(start);
}

module.exports = { fromSocket, fromThread, jsonAlone, serializerAlone, toSocket, toThread };
