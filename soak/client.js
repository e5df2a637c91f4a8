'use strict';
// The clients of the soak, in a process of their own: half of them open a connection for each
// request, half send many on one. Started with the port; told to stop, it says what failed.

const net = require('node:net');

const CLIENTS_OF_EACH_KIND = 8;
const REQUESTS_OF_A_CONNECTION = 20;

const port = Number(process.argv[2]);
const report = { served: 0, refused: 0, failures: [] };
let lastId = 0;
let stopping = false;

/** Opens a connection; resolves when it can be written to. */
function open() {
  const socket = net.connect(port, '127.0.0.1');
  socket.setEncoding('utf8');
  return new Promise((resolve, reject) => {
    socket.once('connect', () => resolve(socket));
    socket.once('error', reject);
  });
}

/** Sends one request and waits for its answer. */
function request(socket) {
  const id = ++lastId;
  const start = Date.now();
  let text = '';
  return new Promise((resolve) => {
    const finish = (isServed) => {
      socket.off('data', onData).off('close', onEnd).off('end', onEnd).off('error', onEnd);
      if (isServed) report.served++;
      else report.failures.push({ id, start, end: Date.now() });
      resolve(isServed);
    };
    const onEnd = () => finish(false);
    const onData = (chunk) => {
      text += chunk;
      if (text.endsWith(` ${id}\n`)) finish(true);
    };
    socket.on('data', onData).on('close', onEnd).on('end', onEnd).on('error', onEnd);
    socket.write(`${id}\n`);
  });
}

async function client(requests) {
  while (!stopping) {
    let socket;
    try {
      socket = await open();
    } catch (error) {
      if (error.code === 'ECONNREFUSED') report.refused++;
      else report.failures.push({ id: 0, start: Date.now(), end: Date.now(), code: error.code });
      continue;
    }
    socket.on('error', () => {});
    for (let i = 0; i < requests && !stopping && socket.writable; i++) {
      if (!(await request(socket))) break;
    }
    socket.destroy();
  }
}

const clients = [];
for (let i = 0; i < CLIENTS_OF_EACH_KIND; i++) {
  clients.push(client(1), client(REQUESTS_OF_A_CONNECTION));
}

process.on('message', async () => {
  stopping = true;
  await Promise.all(clients);
  process.send(report);
});
