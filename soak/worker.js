'use strict';
// A worker of the soak: answers each line with its pid, after it has written the line's number to a
// log that outlives it. A number that stands there twice was served twice.

const fs = require('node:fs');
const net = require('node:net');

const log = fs.openSync(process.env.SOAK_LOG, 'a');

const server = net.createServer((socket) => {
  let text = '';
  socket.on('error', () => {});
  socket.setEncoding('utf8').on('data', (chunk) => {
    text += chunk;
    const lines = text.split('\n');
    text = lines.pop();
    for (const id of lines) {
      fs.writeSync(log, `${id}\n`);
      socket.write(`${process.pid} ${id}\n`);
    }
  });
});

server.listen(0, '127.0.0.1');
