'use strict';
// A child that does not keep to the protocol is cut off with an error that says what it did; the
// parent goes on, and holds nothing of it afterwards.

const { once } = require('node:events');
const os = require('node:os');
const { spawn, fork } = require('../..');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

const MEBIBYTE = 2 ** 20;

/** Resolves at 'close', whatever else is emitted before. */
function closing(child) {
  return new Promise((resolve) => child.once('close', resolve));
}

/** Runs a child that writes `bytes` into its channel; resolves with the error that cut it off. */
async function errorAfter(bytes, { then = 'stay', ...options } = {}) {
  const argument = Buffer.from(bytes).toString('base64');
  const child = fork(fixture('raw-child.js'), [argument, then], options);
  const closed = closing(child);
  const [error] = await once(child, 'error');
  expect(child.connected).toBe(false);
  expect(child.channel).toBe(null);
  child.kill('SIGKILL');
  await closed;
  return error;
}

/** Runs a Python child that has `sock`, the channel, and `other`, a socket to give away. */
function python(body) {
  const script = `
import socket, os, array, time
sock = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
other = socket.socket()
def send(data, fds):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))])
${body}
sock.recv(1)
`;
  return spawn('python3', ['-c', script], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
}

test.each([
  ['a line that is not JSON', 'this is not JSON\n'],
  ['an empty line', '\n'],
  ['two values in one line', '1,2\n'],
  ['lines that are JSON only together', '[1\n2]\n'],
])('%s cuts the child off', async (_, bytes) => {
  await expectNoLeaks(async () => {
    const error = await errorAfter(bytes);
    expect(error.code).toBe('ERR_BROOD_IPC_PROTOCOL');
    expect(error.message).toMatch(/could not be decoded/);
  });
});

test('messages before a bad line are delivered, those after it are not', async () => {
  const argument = Buffer.from('1\n2\nbad\n3\n').toString('base64');
  const child = fork(fixture('raw-child.js'), [argument]);
  const messages = [];
  child.on('message', (message) => messages.push(message));
  const closed = closing(child);
  await once(child, 'error');
  await closed;
  expect(messages).toEqual([1, 2]);
});

test('a line longer than maxMessageSize cuts the child off before it is all in memory', async () => {
  const before = process.memoryUsage.rss();
  const error = await errorAfter('x'.repeat(65_536), { maxMessageSize: 1024 });
  expect(error.message).toMatch(/65536 bytes or more|bytes or more, the limit is 1024/);
  expect(process.memoryUsage.rss() - before).toBeLessThan(64 * MEBIBYTE);
});

const LONGEST_STRING = 2 ** 29 - 24;
const testWithMemory = os.freemem() > 4 * 2 ** 30 ? test : test.skip;

testWithMemory('messages of which only each by itself fits a string arrive', async () => {
  const script = `
    const { spawn } = require(${JSON.stringify(ROOT)});
    const digits = "head -c ${LONGEST_STRING} /dev/zero | tr '\\\\0' 1; echo; echo 2";
    const child = spawn('sh', ['-c', '{ ' + digits + '; } >&3'], {
      stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    });
    child.on('message', (message) => console.log(message));
  `;
  expect(await runNode(['-e', script])).toMatchObject({ code: 0, stdout: 'Infinity\n2\n' });
});

test('a channel that ends in the middle of a message says so', async () => {
  const error = await errorAfter('{"half":', { then: 'leave' });
  expect(error.message).toMatch(/8 bytes into an unfinished message/);
});

test.each([
  ['a length of zero', [0, 0, 0, 0], /length of zero/],
  ['a length beyond the limit', [0xff, 0xff, 0xff, 0xff], /the limit is/],
])('advanced: %s cuts the child off', async (_, bytes, expected) => {
  await expectNoLeaks(async () => {
    const error = await errorAfter(bytes, { serialization: 'advanced' });
    expect(error.message).toMatch(expected);
  });
});

test('a NODE_HANDLE of an unknown type cuts the child off and closes the descriptor', async () => {
  await expectNoLeaks(async () => {
    const child = python(
      `send(b'{"cmd":"NODE_HANDLE","type":"__proto__","msg":1}\\n', [other.fileno()])`,
    );
    const closed = closing(child);
    const [error] = await once(child, 'error');
    expect(error.message).toMatch(/no known type of handle/);
    await closed;
  });
});

test('a descriptor that is not the socket it is said to be cuts the child off', async () => {
  await expectNoLeaks(async () => {
    const child = python(
      `send(b'{"cmd":"NODE_HANDLE","type":"dgram.Native","msg":1}\\n', [other.fileno()])`,
    );
    const closed = closing(child);
    const [error] = await once(child, 'error');
    expect(error.message).toMatch(/another kind of socket/);
    await closed;
  });
});

test('a connection that is sent as a server cuts the child off', async () => {
  await expectNoLeaks(async () => {
    const child = python(`
server = socket.create_server(('127.0.0.1', 0))
other = socket.create_connection(server.getsockname())
send(b'{"cmd":"NODE_HANDLE","type":"net.Server","msg":1}\\n', [other.fileno()])`);
    const closed = closing(child);
    const [error] = await once(child, 'error');
    expect(error.message).toMatch(/sent as net.Server cannot be one: listen EINVAL/);
    await closed;
  });
});

test('a socket with a key that is no string cuts the child off', async () => {
  await expectNoLeaks(async () => {
    const child = python(`
key = b'[' * 100000 + b']' * 100000
send(b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1,"key":' + key + b'}\\n', [other.fileno()])`);
    const closed = closing(child);
    const [error] = await once(child, 'error');
    expect(error.message).toMatch(/a key that is no string/);
    await closed;
  });
});

test.each([
  ['a key', 1],
  ['a long key', 400_000],
])('a child that asks for its connections by %s again and again is cut off', async (_, length) => {
  const child = python(`
key = b'k' * ${length}
server = socket.create_server(('127.0.0.1', 0))
other = socket.create_connection(server.getsockname())
send(b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1,"key":"' + key + b'"}\\n', [other.fileno()])
try:
    while True: sock.sendall(b'{"cmd":"NODE_SOCKET_GET_COUNT","key":"' + key + b'"}\\n')
except OSError: os._exit(0)`);
  child.on('message', (message, socket) => socket.on('error', () => {}));
  const closed = closing(child);
  const [error] = await once(child, 'error');
  expect(error.message).toMatch(/asks on and reads no answer/);
  await closed;
});

test('a NODE_HANDLE without a descriptor is answered with NODE_HANDLE_NACK', async () => {
  const child = python(`
sock.sendall(b'{"cmd":"NODE_HANDLE","type":"net.Socket","msg":1}\\n')
reply = sock.recv(1000)
sock.sendall(b'{"reply": ' + reply.strip() + b'}\\n')
`);
  const [message] = await once(child, 'message');
  expect(message).toEqual({ reply: { cmd: 'NODE_HANDLE_NACK' } });
  child.disconnect();
  await closing(child);
});

test('descriptors that belong to no message are closed, and too many cut the child off', async () => {
  await expectNoLeaks(async () => {
    const child = python(`
for i in range(10):
    send(b'1\\n', [other.fileno()] * 30)
`);
    const closed = closing(child);
    const [error] = await once(child, 'error');
    expect(error.message).toMatch(/descriptors that belong to no message/);
    await closed;
  });
});

test('without an error listener the parent is warned and lives', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const child = fork(${JSON.stringify(fixture('raw-child.js'))}, [btoa('rubbish\\n')]);
    child.on('close', () => console.log('alive'));
  `;
  const { stdout, stderr, code } = await runNode(['-e', script]);
  expect(stderr).toMatch(/\[ERR_BROOD_IPC_PROTOCOL\] Warning: The IPC channel was cut off/);
  expect(stdout).toBe('alive\n');
  expect(code).toBe(0);
});

test('an acknowledgement nobody waits for is ignored', async () => {
  const bytes = Buffer.from('{"cmd":"NODE_HANDLE_ACK"}\n{"cmd":"NODE_HANDLE_NACK"}\n"fine"\n');
  const child = fork(fixture('raw-child.js'), [bytes.toString('base64')]);
  const [message] = await once(child, 'message');
  expect(message).toBe('fine');
  child.disconnect();
  await closing(child);
});
