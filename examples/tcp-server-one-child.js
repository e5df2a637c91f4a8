'use strict';
// Opens a TCP server and gives it to a child, which serves it from then on: the parent picks the
// port, the child does the work. Run it: node examples/tcp-server-one-child.js

const net = require('node:net');
const { fork } = require('..');

if (process.send) child();
else parent();

function parent() {
  const server = net.createServer();
  server.listen(0, '127.0.0.1', () => {
    const { port } = server.address();
    const worker = fork(__filename);

    // What is sent is the listening socket itself. Both processes hold it afterwards, so the parent
    // closes its own: else the two would share the connections.
    worker.send('serve', server, () => server.close());

    worker.on('message', () => {
      net
        .connect(port, '127.0.0.1')
        .setEncoding('utf8')
        .on('data', (text) => console.log(`parent ${process.pid} was told: ${text}`))
        .on('end', () => worker.send('stop'));
    });
    worker.on('exit', (code) => {
      console.log(`the child ended with ${code}`);
      process.exitCode = code;
    });
  });
}

function child() {
  process.on('message', (message, server) => {
    if (message === 'stop') return process.disconnect();

    // The second argument is a net.Server, listening already.
    server.on('connection', (socket) => {
      socket.end(`child ${process.pid} serves you`);
      server.close();
    });
    process.send('ready');
  });
}
