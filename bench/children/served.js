'use strict';

// A worker of a cluster that tells every client which worker it is and then waits for it to leave.

const cluster = require('node:cluster');
const net = require('node:net');

const server = net.createServer((socket) => {
  socket.on('error', () => {});
  socket.write(`${cluster.worker.id}\n`);
});
server.listen(0, '127.0.0.1');
