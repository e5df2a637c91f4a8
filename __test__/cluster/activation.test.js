'use strict';
// Sockets passed by a service manager: which process may use them, which request gets which, and
// that nobody else inherits them. The children are started as systemd starts a service: sockets from
// descriptor 3 on, and their own process id in the environment.

const dgram = require('node:dgram');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { spawn } = require('node:child_process');
const { once } = require('node:events');
const { text } = require('node:stream/consumers');
const { datagramHandle } = require('../../lib/ipc/native_handle');
const { nameActivated, takeActivated } = require('../../lib/cluster/activation');
const { fixture, waitForOutput } = require('../helpers/run');

let directory;
const opened = [];

beforeAll(() => {
  directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-activation-'));
});

afterEach(() => {
  for (const socket of opened.splice(0)) socket.close();
});

afterAll(() => {
  fs.rmSync(directory, { recursive: true });
});

/** A listening socket: `{ fd, port }`. */
async function listening(options) {
  const server = net.createServer();
  opened.push(server);
  server.listen(options.path === undefined ? { port: 0, ...options } : options);
  await once(server, 'listening');
  return { fd: server._handle.fd, port: server.address().port };
}

async function datagram(type, address) {
  const socket = dgram.createSocket(type);
  opened.push(socket);
  socket.bind(0, address);
  await once(socket, 'listening');
  return { fd: datagramHandle(socket).fd, port: socket.address().port };
}

/** Starts the fixture with these sockets; `pid` is a word of the shell. */
function start(sockets, input, { names, pid = '$$', env } = {}) {
  const script = `LISTEN_PID=${pid} exec "$0" "$@"`;
  const passed = { LISTEN_FDS: String(sockets.length) };
  if (names) passed.LISTEN_FDNAMES = names.join(':');
  const child = spawn('sh', ['-c', script, process.execPath, fixture('activated.js')], {
    stdio: ['pipe', 'pipe', 'inherit', ...sockets.map(({ fd }) => fd)],
    env: { ...process.env, ...passed, ...env },
  });
  child.stdin.end(JSON.stringify(input));
  return child;
}

async function report(sockets, requests, { map, close, ...options } = {}) {
  return JSON.parse(await text(start(sockets, { map, requests, close }, options).stdout));
}

/** For each request the index of the socket that serves it, or null. */
async function answers(sockets, requests, options) {
  const { answers: numbers } = await report(sockets, requests, options);
  return numbers.map((fd) => fd && fd - 3);
}

const tcp = (address, { port }, more) => ({ address, port, addressType: 4, ...more });
const tcp6 = (address, { port }, more) => ({ address, port, addressType: 6, ...more });
const unix = (address) => ({ address, port: -1, addressType: -1 });

describe('the protocol', () => {
  test('the sockets are used, kept from other programs, and the variables removed', async () => {
    const sockets = [await listening({ host: '127.0.0.1' }), await listening({ host: '::1' })];
    const requests = [tcp6('::1', sockets[1]), tcp('127.0.0.1', sockets[0])];
    expect(await report(sockets, requests, { names: ['a', 'b'] })).toEqual({
      answers: [4, 3],
      passed: [3, 4],
      variables: [],
      areClosedOnExec: true,
    });
  });

  test('a passed socket serves connections', async () => {
    const socket = await listening({ host: '127.0.0.1' });
    const requests = [tcp('127.0.0.1', socket)];
    const child = start([socket], { requests, serve: true });
    await waitForOutput(child.stdout, /"answers":\[3\]/);
    // This process does not accept any more; the socket lives on in the child.
    opened.pop().close();
    const client = net.connect(socket.port, '127.0.0.1');
    expect(await text(client)).toBe('served');
    expect(await once(child, 'close')).toEqual([0, null]);
  });

  test('sockets meant for another process are left alone, and so are the variables', async () => {
    const socket = await listening({ host: '127.0.0.1' });
    const result = await report([socket], [tcp('127.0.0.1', socket)], { pid: '$PPID' });
    expect(result.answers).toEqual([null]);
    expect(result.variables.sort()).toEqual(['LISTEN_FDS', 'LISTEN_PID']);
  });

  test.each([
    ['no number', 'three'],
    ['none', '0'],
    ['nothing', ''],
    ['a negative number', '-1'],
  ])('a count that is %s means no socket', async (_, count) => {
    const socket = await listening({ host: '127.0.0.1' });
    const result = await report([socket], [tcp('127.0.0.1', socket)], {
      env: { LISTEN_FDS: count },
    });
    expect(result).toEqual({ answers: [null], passed: [], variables: [], areClosedOnExec: true });
  });

  test('a count larger than the descriptors there are ends with them', async () => {
    const socket = await listening({ host: '127.0.0.1' });
    const env = { LISTEN_FDS: '4000000000' };
    expect(await answers([socket], [tcp('127.0.0.1', socket)], { env })).toEqual([0]);
  });

  test('what is no listening socket is passed over', async () => {
    const file = { fd: fs.openSync('/dev/null', 'r') };
    const socket = await listening({ host: '127.0.0.1' });
    const client = net.connect(socket.port, '127.0.0.1');
    await once(client, 'connect');
    const connected = { fd: client._handle.fd };
    const result = await report([file, connected, socket], [tcp('127.0.0.1', socket)]);
    expect(result).toMatchObject({ answers: [5], passed: [5], areClosedOnExec: true });
    fs.closeSync(file.fd);
    client.destroy();
  });

  test('a process without passed sockets gets none', () => {
    expect(takeActivated({ address: '127.0.0.1', port: 80, addressType: 4 })).toBe(undefined);
  });
});

describe('by address', () => {
  test('an address is served by the socket bound to it and by no other', async () => {
    const socket = await listening({ host: '127.0.0.1' });
    const requests = [
      tcp('127.0.0.2', socket),
      tcp('127.0.0.1', { port: socket.port + 1 }),
      tcp('0.0.0.0', socket),
      tcp(null, socket),
      tcp6('::ffff:127.0.0.1', socket),
      { ...tcp('127.0.0.1', socket), addressType: 'udp4' },
      unix('127.0.0.1'),
      tcp('127.0.0.1', socket),
    ];
    const expected = [...Array(7).fill(null), 0];
    expect(await answers([socket], requests)).toEqual(expected);
  });

  test('an address is the same however it is written', async () => {
    const socket = await listening({ host: '::1' });
    expect(await answers([socket], [tcp6('0:0:0:0:0:0:0:1', socket)])).toEqual([0]);
  });

  test.each([undefined, null, ''])('no address (%p) means either wildcard', async (address) => {
    const any4 = await listening({ host: '0.0.0.0' });
    const any6 = await listening({ host: '::' });
    const requests = [tcp(address, any6), tcp(address, any4)];
    expect(await answers([any4, any6], requests)).toEqual([1, 0]);
  });

  test('no address prefers the IPv6 wildcard, which stands for both families', async () => {
    const any4 = await listening({ host: '0.0.0.0' });
    const any6 = await listening({ host: '::', port: any4.port, ipv6Only: true });
    expect(await answers([any4, any6], [tcp(null, any4)])).toEqual([1]);
  });

  test('a wildcard is served by the one of its family only', async () => {
    const any4 = await listening({ host: '0.0.0.0' });
    const any6 = await listening({ host: '::' });
    const requests = [
      tcp('0.0.0.0', any6),
      tcp6('::', any4),
      tcp('0.0.0.0', any4),
      tcp6('::', any6),
    ];
    expect(await answers([any4, any6], requests)).toEqual([null, null, 0, 1]);
  });

  test('IPv6 only is not served by a socket for both families', async () => {
    const both = await listening({ host: '::' });
    const alone = await listening({ host: '::', ipv6Only: true });
    const only = { flags: 1 };
    const requests = [tcp6('::', both, only), tcp6('::', alone, only)];
    expect(await answers([both, alone], requests)).toEqual([null, 1]);
  });

  test('any free port is never a passed one', async () => {
    const socket = await listening({ host: '127.0.0.1' });
    expect(await answers([socket], [tcp('127.0.0.1', { port: 0 })])).toEqual([null]);
  });

  test('an existing descriptor is no address', async () => {
    const socket = await listening({ host: '0.0.0.0' });
    const requests = [
      { ...tcp(null, socket), fd: 5 },
      { ...tcp(null, socket), fd: null },
    ];
    expect(await answers([socket], requests)).toEqual([null, 0]);
  });

  test('Unix sockets are told by their path, absolute or relative', async () => {
    const sockets = [
      await listening({ path: path.join(directory, 'a') }),
      await listening({ path: path.join(directory, 'b') }),
    ];
    const requests = [
      unix(path.join(directory, 'c')),
      unix(path.relative(process.cwd(), path.join(directory, 'b'))),
      { path: path.join(directory, 'a') },
    ];
    expect(await answers(sockets, requests)).toEqual([null, 1, 0]);
  });

  test('datagram sockets serve datagram requests', async () => {
    const sockets = [await datagram('udp4', '127.0.0.1'), await datagram('udp6', '::')];
    const requests = [
      tcp('127.0.0.1', sockets[0]),
      { address: '127.0.0.1', port: String(sockets[0].port), addressType: 'udp4' },
      { address: null, port: sockets[1].port, addressType: 'udp4' },
      { address: null, port: sockets[1].port, addressType: 'udp6' },
    ];
    expect(await answers(sockets, requests)).toEqual([null, 0, null, 1]);
  });
});

describe('by name', () => {
  test('a name says which socket serves a port or a path', async () => {
    const sockets = [
      await listening({ host: '127.0.0.1' }),
      await listening({ path: path.join(directory, 'web') }),
    ];
    const options = { map: { web: 8080, admin: '/run/admin.sock' }, names: ['web', 'admin'] };
    const requests = [tcp(null, { port: 8080 }), unix('/run/admin.sock')];
    expect(await answers(sockets, requests, options)).toEqual([0, 1]);
  });

  test('a port alone is for requests of any address only', async () => {
    const sockets = [await listening({ host: '127.0.0.1' })];
    const options = { map: { web: 8080 }, names: ['web'] };
    const at = (address) => answers(sockets, [tcp(address, { port: 8080 })], options);
    expect(await at('127.0.0.1')).toEqual([null]);
    expect(await at('0.0.0.0')).toEqual([0]);
  });

  test('a port with an address is for requests of that address only', async () => {
    const sockets = [await listening({ host: '0.0.0.0' })];
    const options = { map: { web: { port: 8080, address: '10.0.0.1' } }, names: ['web'] };
    const requests = [tcp(null, { port: 8080 }), tcp('10.0.0.1', { port: 8080 })];
    expect(await answers(sockets, requests, options)).toEqual([null, 0]);
  });

  test('a name goes before an address', async () => {
    const sockets = [await listening({ host: '0.0.0.0' }), await listening({ host: '0.0.0.0' })];
    const options = { map: { second: sockets[0].port }, names: ['first', 'second'] };
    expect(await answers(sockets, [tcp(null, sockets[0])], options)).toEqual([1]);
  });

  test('a name never turns one kind of socket into another', async () => {
    const sockets = [await listening({ path: path.join(directory, 'other') })];
    const options = { map: { web: 8080 }, names: ['web'] };
    expect(await answers(sockets, [tcp(null, { port: 8080 })], options)).toEqual([null]);
  });

  test('names that were not passed change nothing', async () => {
    const sockets = [await listening({ host: '127.0.0.1' })];
    const requests = [tcp(null, { port: 8080 }), tcp('127.0.0.1', sockets[0])];
    expect(await answers(sockets, requests, { map: { web: 8080 } })).toEqual([null, 0]);
  });

  test.each([
    [null, 'ERR_INVALID_ARG_TYPE'],
    [8080, 'ERR_INVALID_ARG_TYPE'],
    [{ web: true }, 'ERR_INVALID_ARG_TYPE'],
    [{ web: null }, 'ERR_INVALID_ARG_TYPE'],
    [{ web: {} }, 'ERR_INVALID_ARG_TYPE'],
    [{ web: 65536 }, 'ERR_OUT_OF_RANGE'],
    [{ web: { port: 1, address: 2 } }, 'ERR_INVALID_ARG_TYPE'],
  ])('%j is refused', (map, code) => {
    expect(() => nameActivated(map)).toThrow(expect.objectContaining({ code }));
  });
});

describe('in use', () => {
  test('a socket is given once until it is closed', async () => {
    const socket = await listening({ host: '0.0.0.0' });
    const request = tcp('0.0.0.0', socket);
    const once = [request, request, tcp(null, socket)];
    expect(await answers([socket], once)).toEqual([0, null, null]);
    expect(await answers([socket], once, { close: [0] })).toEqual([0, 0, null]);
  });
});

/** Starts a primary with `sockets`; resolves when its worker listens at `place`. */
async function startPrimary(policy, sockets, place, { names = [], activation = {} } = {}) {
  const args = [JSON.stringify(place), policy, JSON.stringify(activation)];
  const command = [process.execPath, fixture('activated-primary.js'), ...args];
  const child = spawn('sh', ['-c', 'LISTEN_PID=$$ exec "$0" "$@"', ...command], {
    stdio: ['pipe', 'pipe', 'inherit', ...sockets.map(({ fd }) => fd)],
    env: {
      ...process.env,
      LISTEN_FDS: String(sockets.length),
      LISTEN_FDNAMES: names.join(':'),
    },
  });
  await waitForOutput(child.stdout, /listening/);
  // Nobody but the primary and its worker accepts from here on.
  for (const server of opened.splice(0)) server.close();
  return child;
}

/** Connects and resolves with what the worker says, and the socket. */
async function ask(to) {
  const socket = net.connect({ host: '127.0.0.1', ...to });
  const [answer] = await once(socket, 'data');
  return { socket, ...JSON.parse(answer) };
}

async function end(child) {
  child.stdin.end();
  await once(child, 'close');
}

describe.each(['SCHED_RR', 'SCHED_NONE'])('in a cluster with %s', (policy) => {
  test('workers are served by the passed socket and see nothing of how it came', async () => {
    const passed = await listening({ host: '127.0.0.1' });
    const { port } = passed;
    const child = await startPrimary(policy, [passed], { host: '127.0.0.1', port });
    const { socket, ...answer } = await ask({ port });
    expect(answer).toEqual({ worker: 1, variables: [] });
    socket.destroy();
    await end(child);
  });

  test('a worker that comes after all have gone is served by it again', async () => {
    const passed = await listening({ host: '127.0.0.1' });
    const { port } = passed;
    const options = { names: ['app'], activation: { app: port } };
    const child = await startPrimary(policy, [passed], { port }, options);
    const first = await ask({ port });
    const again = waitForOutput(child.stdout, /listening/);
    first.socket.on('error', () => {}).end('end');
    await again;
    const second = await ask({ port });
    expect([first.worker, second.worker]).toEqual([1, 2]);
    second.socket.destroy();
    await end(child);
  });
});

test('in a cluster a name may stand for another port than that of the socket', async () => {
  const passed = await listening({ host: '127.0.0.1' });
  const options = { names: ['app'], activation: { app: 8080 } };
  const child = await startPrimary('SCHED_RR', [passed], { port: 8080 }, options);
  const { socket, worker } = await ask({ port: passed.port });
  expect(worker).toBe(1);
  socket.destroy();
  await end(child);
});
