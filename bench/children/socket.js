'use strict';

// The child that talks over a plain Unix socket in lines of JSON: `socket.js PATH count|flood COUNT`.

const net = require('node:net');
const { onMessages, writeAll } = require('./json_lines');

const [path, task, count] = process.argv.slice(2);
const socket = net.connect(path, () => socket.write('"ready"\n'));
let left = Number(count);

onMessages(socket, () => {
  if (task === 'flood') writeAll(socket, Number(count));
  else if (--left === 0) socket.write('"done"\n');
});
