'use strict';
// Gives one TCP server to two children, which then serve it together: the kernel hands each
// connection to whoever accepts first. The parent closes its own listener, or keeps serving too:
//   node examples/tcp-server-two-children.js
//   node examples/tcp-server-two-children.js --keep-open

const { once } = require('node:events');
const net = require('node:net');
const { fork } = require('..');

const CONNECTIONS = 20;

if (process.send) child();
else parent(process.argv.includes('--keep-open'));

async function parent(keepOpen) {
  const server = net.createServer((socket) => socket.end('the parent'));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();

  const children = [fork(__filename, ['first']), fork(__filename, ['second'])];
  for (const worker of children) {
    worker.send('serve', server);
    await once(worker, 'message'); // ready
  }
  // Closing concerns this process only: the port stays open as long as anybody listens.
  if (!keepOpen) server.close();

  const served = new Map();
  for (let i = 0; i < CONNECTIONS; i++) {
    const by = await connect(port);
    served.set(by, (served.get(by) ?? 0) + 1);
  }
  for (const [by, count] of served) console.log(`${by} served ${count}`);
  console.log(`the parent's listener was ${keepOpen ? 'open' : 'closed'}: ${CONNECTIONS} served`);

  if (keepOpen) server.close();
  for (const worker of children) worker.disconnect();
}

/** Connects, and resolves to what the server says. */
async function connect(port) {
  const socket = net.connect(port, '127.0.0.1').setEncoding('utf8');
  let text = '';
  for await (const chunk of socket) text += chunk;
  return text;
}

function child() {
  process.on('message', (message, server) => {
    server.on('connection', (socket) => socket.end(`the ${process.argv[2]} child`));
    // The listener would keep this process running for ever; the parent's goodbye ends it.
    process.on('disconnect', () => server.close());
    process.send('ready');
  });
}
