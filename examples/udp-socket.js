'use strict';
// Binds a UDP socket and gives it to a child, which receives on it from then on.
// Run it: node examples/udp-socket.js

const dgram = require('node:dgram');
const { once } = require('node:events');
const { fork } = require('..');

const QUESTIONS = ['one', 'two', 'three'];

if (process.send) child();
else parent();

async function parent() {
  const socket = dgram.createSocket('udp4');
  socket.bind(0, '127.0.0.1');
  await once(socket, 'listening');
  const { port } = socket.address();

  const worker = fork(__filename);
  worker.send('serve', socket);
  await once(worker, 'message'); // ready
  // Both processes hold the socket. Closing it here leaves all datagrams to the child.
  socket.close();

  const client = dgram.createSocket('udp4');
  for (const question of QUESTIONS) {
    client.send(question, port, '127.0.0.1');
    const [answer] = await once(client, 'message');
    console.log(answer.toString());
  }
  client.close();
  worker.disconnect();
}

function child() {
  process.on('message', (message, socket) => {
    socket.on('message', (text, { address, port }) => {
      socket.send(`child ${process.pid} heard ${text}`, port, address);
    });
    process.on('disconnect', () => socket.close());
    process.send('ready');
  });
}
