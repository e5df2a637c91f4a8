'use strict';
// Handles sent with messages: each kind, several receivers, counting, and what happens when either
// side goes away in between.

const { spawnSync } = require('node:child_process');
const dgram = require('node:dgram');
const http = require('node:http');
const net = require('node:net');
const tls = require('node:tls');
const { createHook } = require('node:async_hooks');
const { once } = require('node:events');
const { fork } = require('../..');
const { ROOT, fixture } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

const kinds = [
  ['a stock child', []],
  ['a child under register', ['-r', `${ROOT}/register.js`]],
];

function forkHolder(execArgv = []) {
  return fork(fixture('holder.js'), { execArgv });
}

async function end(child) {
  if (child.connected) child.disconnect();
  await once(child, 'close');
}

async function listen(server) {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return server.address().port;
}

/** Connects and resolves with all that the other side says until it ends the connection. */
async function ask(port, text = '') {
  const socket = net.connect(port, '127.0.0.1');
  socket.setEncoding('utf8');
  let answer = '';
  socket.on('data', (chunk) => (answer += chunk));
  socket.write(text);
  await once(socket, 'close');
  return answer;
}

test('a socket is handed on where no other descriptor is left', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const fs = require('node:fs');
    const net = require('node:net');
    const child = fork(${JSON.stringify(fixture('holder.js'))});
    const held = [];
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      child.send('answer', socket, (error) => {
        held.forEach((fd) => fs.closeSync(fd));
        console.log(error?.code ?? 'sent');
      });
    });
    server.listen(0, '127.0.0.1', () => {
      const client = net.connect(server.address().port, '127.0.0.1');
      client.on('error', (error) => console.log(error.code));
      client.setEncoding('utf8').on('data', (text) => console.log(text));
      client.once('close', () => {
        server.close();
        child.disconnect();
      });
      client.write('question');
      // Two are left, for the two ends of the connection.
      try { for (;;) held.push(fs.openSync('/dev/null')); } catch {}
      held.splice(0, 2).forEach((fd) => fs.closeSync(fd));
    });`;
  const limited = ['-c', 'ulimit -n 64; exec "$0" -e "$1"', process.execPath, script];
  const { stdout, stderr } = spawnSync('/bin/sh', limited, { encoding: 'utf8', timeout: 20000 });
  expect([stdout, stderr]).toEqual(['sent\nchild got question\n', '']);
});

test('a TLS connection cannot be sent, and stays what it is', async () => {
  const child = forkHolder();
  const server = net.createServer();
  const client = net.connect(await listen(server), '127.0.0.1');
  const [socket] = await once(server, 'connection');
  const secured = new tls.TLSSocket(socket, { isServer: true });
  const attempt = () => child.send('answer', secured);
  expect(attempt).toThrow(expect.objectContaining({ code: 'ERR_INVALID_HANDLE_TYPE' }));
  expect(secured._handle).not.toBe(null);
  secured.destroy();
  client.destroy();
  server.close();
  await end(child);
});

test('the reply to a handle does not enter JavaScript where nobody listens for it', async () => {
  const server = net.createServer();
  await listen(server);
  const channels = new Set();
  let entered = 0;
  const hook = createHook({
    init: (asyncId, type) => type === 'PIPEWRAP' && channels.add(asyncId),
    before: (asyncId) => (entered += channels.has(asyncId)),
  }).enable();
  const child = fork(fixture('holder.js'), { upgrade: false });
  // The second waits for the reply to the first, which therefore comes alone.
  child.send('nothing', server._handle);
  child.send('native', server._handle);
  await once(child, 'message');
  hook.disable();
  expect(entered).toBe(1);
  server.close();
  await end(child);
});

describe.each(kinds)('with %s', (_, execArgv) => {
  test('a net.Socket is served by the child, byte for byte', async () => {
    await expectNoLeaks(async () => {
      const child = forkHolder(execArgv);
      const server = net.createServer({ pauseOnConnect: true }, (socket) => {
        child.send('answer', socket);
      });
      const port = await listen(server);
      expect(await ask(port, 'question')).toBe('child got question');
      server.close();
      await end(child);
    });
  });

  test('the reply to a handle is an internalMessage for whoever listens', async () => {
    const server = net.createServer();
    await listen(server);
    const child = forkHolder(execArgv);
    const heard = [];
    child.send('native', server._handle);
    child.on('internalMessage', ({ cmd }) => heard.push(cmd));
    await once(child, 'message');
    server.close();
    await end(child);
    expect(heard).toEqual(['NODE_HANDLE_ACK']);
  });

  test('100 sockets at once all arrive, each once', async () => {
    const child = forkHolder(execArgv);
    const server = net.createServer({ pauseOnConnect: true }, (socket) => {
      child.send('answer', socket);
    });
    const port = await listen(server);
    const asked = Array.from({ length: 100 }, (__, i) => ask(port, `q${i}`));
    const answers = await Promise.all(asked);
    expect(answers).toEqual(answers.map((__, i) => `child got q${i}`));
    server.close();
    await end(child);
  });

  test('a net.Server is served by the child when the parent has closed its own', async () => {
    await expectNoLeaks(async () => {
      const child = forkHolder(execArgv);
      const server = net.createServer();
      const port = await listen(server);
      child.send('serve', server, () => server.close());
      await once(child, 'message');
      expect(await ask(port)).toBe(`served by ${child.pid}`);
      await end(child);
    });
  });

  test('a native TCP handle arrives as a native handle', async () => {
    const child = forkHolder(execArgv);
    const server = net.createServer();
    const port = await listen(server);
    child.send('native', server._handle);
    const [message] = await once(child, 'message');
    expect(message).toBe('TCP');
    expect(port).toBeGreaterThan(0);
    server.close();
    await end(child);
  });

  test('a dgram.Socket receives in the child', async () => {
    await expectNoLeaks(async () => {
      const child = forkHolder(execArgv);
      const socket = dgram.createSocket('udp4');
      socket.bind(0, '127.0.0.1');
      await once(socket, 'listening');
      const { port } = socket.address();
      child.send('datagrams', socket);
      await once(child, 'message');
      socket.close();
      const client = dgram.createSocket('udp4');
      client.send('ping', port, '127.0.0.1');
      const [message] = await once(child, 'message');
      expect(message).toBe('datagram ping');
      client.close();
      await end(child);
    });
  });

  test('an HTTP connection is taken over with keepOpen and without', async () => {
    const child = forkHolder(execArgv);
    const server = http.createServer((request, response) => {
      child.send('http', response.socket);
    });
    const port = await listen(server);
    expect(await ask(port, 'GET / HTTP/1.1\r\nHost: x\r\n\r\n')).toMatch(/from the child$/);
    // http's own close() trips over the connection it no longer has (stock Node does too).
    net.Server.prototype.close.call(server);
    await end(child);
  });
});

test('a server given to two children is served by both', async () => {
  const children = [forkHolder(), forkHolder()];
  const server = net.createServer();
  const port = await listen(server);
  for (const child of children) child.send('serve', server);
  await Promise.all(children.map((child) => once(child, 'message')));
  server.close();
  const seen = new Set();
  while (seen.size < 2) seen.add(await ask(port));
  expect(seen).toEqual(new Set(children.map((child) => `served by ${child.pid}`)));
  await Promise.all(children.map(end));
});

test('getConnections() counts what children hold, and close() waits for it', async () => {
  const child = forkHolder();
  const server = net.createServer({ pauseOnConnect: true }, (socket) => child.send('keep', socket));
  const port = await listen(server);
  const clients = [net.connect(port), net.connect(port)];
  for (let i = 0; i < clients.length; i++) await once(child, 'message');
  const count = await new Promise((resolve, reject) => {
    server.getConnections((error, n) => (error ? reject(error) : resolve(n)));
  });
  expect(count).toBe(2);
  const closed = once(server, 'close');
  server.close();
  for (const client of clients) client.destroy();
  await closed;
  await end(child);
});

test('messages behind a handle keep their order', async () => {
  const child = fork(fixture('echo.js'));
  const server = net.createServer();
  await listen(server);
  const received = [];
  child.on('message', (message, handle) => {
    received.push(message);
    handle?.close();
    // The child goes on listening on the servers it was sent.
    if (received.length === 20) child.kill();
  });
  for (let i = 0; i < 20; i++) {
    if (i % 3 === 0) child.send(i, server);
    else child.send(i);
  }
  await once(child, 'close');
  server.close();
  expect(received).toEqual(Array.from({ length: 20 }, (_, i) => i));
});

test('nothing is leaked when the child dies with handles queued', async () => {
  await expectNoLeaks(async () => {
    const child = forkHolder();
    child.kill('SIGSTOP');
    const server = net.createServer();
    await listen(server);
    const failures = [];
    for (let i = 0; i < 5; i++) child.send('serve', server, (error) => failures.push(error));
    child.kill('SIGKILL');
    await once(child, 'close');
    server.close();
    await once(server, 'close');
    expect(failures).toHaveLength(5);
    expect(failures[4]).toMatchObject({ code: 'ERR_IPC_CHANNEL_CLOSED' });
  });
});

test('a socket that has no descriptor yet cannot be sent, as the callback is told', async () => {
  const child = forkHolder();
  const unbound = dgram.createSocket('udp4');
  const error = await new Promise((resolve) => {
    expect(child.send('x', unbound, resolve)).toBe(true);
  });
  expect(error).toMatchObject({ code: 'EBADF', syscall: 'write' });
  unbound.close();
  await end(child);
});

test('what cannot be sent is refused as Node refuses it', async () => {
  const child = fork(fixture('echo.js'));
  expect(() => child.send('x', {})).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_HANDLE_TYPE' }),
  );
  expect(() => child.send()).toThrow(expect.objectContaining({ code: 'ERR_MISSING_ARGS' }));
  expect(() => child.send(Symbol('s'))).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
  );
  await end(child);
});
