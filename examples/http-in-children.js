'use strict';
// Serves HTTP from two children on one port. A net.Server can be sent, an http.Server can not: so
// the children get the listening socket and build their HTTP server on it.
// Run it: node examples/http-in-children.js

const { once } = require('node:events');
const http = require('node:http');
const net = require('node:net');
const { fork } = require('..');

const REQUESTS = 10;

if (process.send) child();
else parent();

async function parent() {
  const server = net.createServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();

  const children = [fork(__filename), fork(__filename)];
  for (const worker of children) {
    worker.send('serve', server);
    await once(worker, 'message'); // ready
  }
  server.close();

  for (let i = 1; i <= REQUESTS; i++) {
    const { status, body } = await get(`http://127.0.0.1:${port}/${i}`);
    console.log(status, body);
  }
  for (const worker of children) worker.disconnect();
}

async function get(url) {
  // Without an agent each request has a connection of its own, which may reach either child.
  const [response] = await once(http.get(url, { agent: false }), 'response');
  let body = '';
  for await (const chunk of response.setEncoding('utf8')) body += chunk;
  return { status: response.statusCode, body };
}

function child() {
  process.on('message', (message, listener) => {
    const server = http.createServer((request, response) => {
      response.end(`child ${process.pid} answers ${request.url}`);
    });
    // listen() takes anything that holds a listening socket.
    server.listen(listener, () => process.send('ready'));
    process.on('disconnect', () => server.close());
  });
}
