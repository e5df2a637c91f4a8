'use strict';
// Both ends brood: the channel's upgrade to brood's own framing, when it takes place, what it must
// not change, and what becomes of a peer that lies about it.

const { once } = require('node:events');
const dgram = require('node:dgram');
const net = require('node:net');
const stock = require('node:child_process');
const { ChildProcess, diagnostics, fork, spawn } = require('../..');
const { REGISTER, ask } = require('../helpers/conversation');
const { ROOT, fixture } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

const CHILD = fixture('upgraded.js');
const ALL = 7;

async function end(child) {
  // Stock Node emits no 'close' after disconnect().
  const ended = once(child, child.constructor === ChildProcess ? 'close' : 'exit');
  if (child.connected) child.disconnect();
  await ended;
}

/** What the child's end uses: a number once upgraded, null by Node's protocol. */
async function featuresOf(child) {
  await ask(child, 'first');
  const { features, offer } = await ask(child, 'features');
  expect(offer).toBe(null);
  return features;
}

function forkBrood(options) {
  return fork(CHILD, { execArgv: REGISTER, ...options });
}

describe('the upgrade takes place', () => {
  test.each(['json', 'advanced'])('under register, %s', async (serialization) => {
    const child = forkBrood({ serialization });
    expect(await featuresOf(child)).toBe(ALL);
    await end(child);
  });

  test('and is counted at both ends', async () => {
    const counted = () => diagnostics().counters.upgradedChannels;
    const source = `
      const counted = () => require(${JSON.stringify(ROOT)}).diagnostics().counters.upgradedChannels;
      process.on('message', () => process.send(counted()));
    `;
    const before = counted();
    for (const [upgrade, ours, theirs] of [
      [true, 1, 1],
      [false, 1, 0],
      [true, 2, 1],
    ]) {
      const child = fork('-e', [source], {
        execPath: process.execPath,
        execArgv: REGISTER,
        upgrade,
      });
      await ask(child, 'first');
      expect(await ask(child, 'how many')).toBe(theirs);
      expect(counted() - before).toBe(ours);
      await end(child);
    }
  });

  test('when the child requires brood, before or after its first messages', async () => {
    const source = `
      process.send('before');
      require(${JSON.stringify(ROOT)});
      require(${JSON.stringify(CHILD)});
    `;
    const child = fork('-e', [source], { execPath: process.execPath });
    expect((await once(child, 'message'))[0]).toBe('before');
    expect(await featuresOf(child)).toBe(ALL);
    await end(child);
  });

  test('with an environment of its own', async () => {
    const child = forkBrood({ env: { ...process.env, BROOD_CHANNEL: 'stale' } });
    expect(await featuresOf(child)).toBe(ALL);
    await end(child);
  });
});

describe("Node's protocol stays", () => {
  test.each([
    ['with upgrade: false', { upgrade: false }],
    ['with BROOD_UPGRADE=0 in the child', { env: { ...process.env, BROOD_UPGRADE: '0' } }],
    ['with a parent that is not brood', { by: stock.fork }],
    ['for an offer that was made to another process', { by: stock.fork, offer: 'inherited' }],
    ['for an offer that is none', { by: stock.fork, offer: 'nonsense' }],
  ])('%s', async (_, { by = fork, offer, ...options }) => {
    const offers = { inherited: `2:1-3-${'0'.repeat(32)}`, nonsense: '2:2:2' };
    const env = { ...(options.env ?? process.env) };
    if (offer) env.BROOD_CHANNEL = offers[offer];
    const child = by(CHILD, { execArgv: REGISTER, ...options, env });
    expect(await featuresOf(child)).toBe(null);
    await end(child);
  });

  test('for a stock child, which keeps the variable and answers nothing', async () => {
    const child = fork('-e', [`process.send(process.env.BROOD_CHANNEL)`], {
      execPath: process.execPath,
    });
    const [offer] = await once(child, 'message');
    expect(offer).toMatch(new RegExp(`^3:${process.pid}-${ALL}-[0-9a-f]{32}$`));
    await end(child);
  });

  test('for a grandchild whose parent is stock and has inherited the offer', async () => {
    const source = `
      const child = require('node:child_process').fork(${JSON.stringify(CHILD)}, {
        execArgv: ${JSON.stringify(REGISTER)},
      });
      child.once('message', () => {
        child.once('message', (answer) => (process.send(answer), child.disconnect()));
        child.send('features');
      });
      child.send('first');
    `;
    const child = fork('-e', [source], { execPath: process.execPath });
    const [answer] = await once(child, 'message');
    expect(answer).toEqual({ features: null, offer: null });
    await end(child);
  });
});

test.each([
  ['a parent of the first version', { upgrade: 1 }],
  ['a child of the first version', { env: { ...process.env, BROOD_UPGRADE: '1' } }],
  ['a parent of the version before', { upgrade: 2 }, 3],
  ['a child of the version before', { env: { ...process.env, BROOD_UPGRADE: '2' } }, 3],
  ['a child from the future', { env: { ...process.env, BROOD_UPGRADE: '7' } }, ALL],
])('%s agrees on what both know', async (_, options, expected = 0) => {
  const child = forkBrood({ serialization: 'advanced', ...options });
  expect(await featuresOf(child)).toBe(expected);
  const large = Buffer.alloc(400_000, 7);
  const values = [new Map([[1, 2]]), Buffer.alloc(1000, 7), { a: [1] }, large, { large }];
  for (const value of values) expect(await ask(child, value)).toEqual(value);
  await end(child);
});

describe.each(['json', 'advanced'])('%s', (serialization) => {
  test('20 000 messages of all sizes keep their order through the upgrade', async () => {
    await expectNoLeaks(async () => {
      const child = forkBrood({ serialization });
      const values = Array.from({ length: 20_000 }, (_, i) => ({ i, pad: 'ü'.repeat(i % 300) }));
      const received = [];
      child.on('message', (message) => {
        received.push(message);
        if (received.length === values.length) child.disconnect();
      });
      // The first thousand go before the child has started, the others while it answers.
      const send = (from) => {
        for (const value of values.slice(from, from + 1000)) child.send(value);
        if (from + 1000 < values.length) setTimeout(send, 5, from + 1000);
      };
      send(0);
      await once(child, 'close');
      expect(received).toEqual(values);
    });
  });

  test('what is sent behind handles of every kind comes after them', async () => {
    await expectNoLeaks(async () => {
      const child = forkBrood({ serialization });
      expect(await featuresOf(child)).not.toBe(null);
      const server = net.createServer().listen(0, '127.0.0.1');
      const datagrams = dgram.createSocket('udp4').bind(0, '127.0.0.1');
      await Promise.all([once(server, 'listening'), once(datagrams, 'listening')]);
      const handles = [null, server, null, datagrams, server, server._handle, null, datagrams];
      const got = [];
      const all = new Promise((resolve) => {
        child.on('message', ({ n }, handle) => {
          got.push([n, handle?.constructor.name]);
          handle?.close();
          if (n === handles.length - 1) resolve();
        });
      });
      for (const [n, handle] of handles.entries()) child.send({ n }, handle ?? undefined);
      await all;
      expect(got).toEqual(handles.map((handle, n) => [n, handle?.constructor.name]));
      server.close();
      datagrams.close();
      // It has kept its own handles open.
      const ended = once(child, 'close');
      child.kill();
      await ended;
    });
  });

  test('sockets and servers arrive in order among the messages, and all work', async () => {
    await expectNoLeaks(async () => {
      const child = forkBrood({ serialization });
      expect(await featuresOf(child)).not.toBe(null);
      const server = net.createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      const accepted = [];
      const [got, clients] = [[], []];
      const all = new Promise((resolve) => {
        child.on('message', (message, handle) => {
          got.push(message);
          if (handle) handle.end(`for ${message.n}`);
          if (message.n === 39) resolve();
        });
      });
      server.on('connection', (socket) => accepted.push(socket));
      for (let i = 0; i < 20; i++) {
        const client = net.connect(server.address().port, '127.0.0.1');
        clients.push(client);
        await once(client, 'connect');
      }
      while (accepted.length < 20) await once(server, 'connection');
      for (let n = 0; n < 40; n++) {
        if (n % 2 === 0) child.send({ n });
        else child.send({ n }, accepted[(n - 1) / 2]);
      }
      await all;
      expect(got.map(({ n }) => n)).toEqual(Array.from({ length: 40 }, (_, i) => i));
      const texts = clients.map(async (client) => {
        let text = '';
        for await (const chunk of client) text += chunk;
        return text;
      });
      expect(await Promise.all(texts)).toEqual(
        Array.from({ length: 20 }, (_, i) => `for ${2 * i + 1}`),
      );
      server.close();
      await end(child);
    });
  });

  test('callbacks come in order, send() returns false at 128 KiB, and drain follows', async () => {
    const child = forkBrood({ serialization });
    await featuresOf(child);
    child.kill('SIGSTOP');
    const order = [];
    let sent = 0;
    while (child.send({ pad: 'x'.repeat(10_000) }, (error) => order.push(error))) sent++;
    expect(sent).toBeGreaterThan(10);
    const drained = once(child, 'drain');
    child.kill('SIGCONT');
    await drained;
    await ask(child, 'last');
    expect(order).toEqual(Array.from({ length: sent + 1 }, () => null));
    await end(child);
  });

  test('no two messages share an object, and sending takes a snapshot', async () => {
    const child = forkBrood({ serialization });
    await featuresOf(child);
    const inner = [1];
    const message = { inner, same: inner, n: 0 };
    const received = [];
    const all = new Promise((resolve) => {
      child.on('message', (got) => received.push(got) === 3 && resolve());
    });
    for (message.n = 0; message.n < 3; message.n++) child.send(message);
    await all;
    expect(received.map(({ n }) => n)).toEqual([0, 1, 2]);
    expect(received[0].inner).not.toBe(received[1].inner);
    expect(received[0].inner === received[0].same).toBe(serialization === 'advanced');
    await end(child);
  });

  test('what was sent before disconnect() and before process.exit() arrives', async () => {
    const source = `
      process.on('message', (message) => {
        if (message !== 'go') return;
        for (let i = 0; i < 5000; i++) process.send({ i, pad: 'p'.repeat(100) });
        process.exit();
      });
      process.send('ready');
    `;
    const child = fork('-e', [source], {
      execPath: process.execPath,
      execArgv: REGISTER,
      serialization,
    });
    await once(child, 'message');
    let count = 0;
    child.on('message', ({ i }) => expect(i).toBe(count++));
    child.send('go');
    await once(child, 'close');
    expect(count).toBe(5000);
  });
});

test('each message is emitted in a context of its own, nextTicks after all of them', async () => {
  const source = `
    const { AsyncLocalStorage } = require('node:async_hooks');
    const storage = new AsyncLocalStorage();
    const seen = [];
    process.on('message', (message) => {
      seen.push([message, storage.getStore() ?? null]);
      storage.enterWith(message);
      process.nextTick(() => seen.push('tick ' + message));
      Promise.resolve().then(() => seen.push('microtask ' + message));
      if (message === 2) setImmediate(() => process.send(seen));
    });
    process.send('ready');
  `;
  const said = [];
  for (const execArgv of [[], REGISTER]) {
    const child = fork('-e', [source], { execPath: process.execPath, execArgv });
    await once(child, 'message');
    const reply = once(child, 'message');
    for (const n of [0, 1, 2]) child.send(n);
    said.push((await reply)[0]);
    await end(child);
  }
  expect(said[1].filter(Array.isArray)).toEqual(said[0].filter(Array.isArray));
});

test('structured clone stays what it is where JSON is used for it', async () => {
  const child = forkBrood({ serialization: 'advanced' });
  await featuresOf(child);
  const own = { ['__proto__']: 1, 7: 'seven', b: null };
  const values = [
    -0,
    NaN,
    [1, , 3], // eslint-disable-line no-sparse-arrays
    { u: undefined },
    Object.assign([1], { extra: 2 }),
    new Date(0),
    { toJSON: 'not a function' },
    { deep: { deep: { deep: { deep: { deep: 1 } } } } },
    'a\ud800b\u2028',
    { text: 'x'.repeat(10_000) },
    Array.from({ length: 200 }, (_, i) => i),
    own,
    null,
    '',
  ];
  for (const value of values) expect(await ask(child, { value })).toEqual({ value });
  expect(() => child.send(new Proxy({}, {}))).toThrow(/could not be cloned/);
  expect(() => child.send({ f() {} })).toThrow(/could not be cloned/);
  const cyclic = {};
  cyclic.self = cyclic;
  const got = await ask(child, cyclic);
  expect(got.self).toBe(got);
  await end(child);
});

/** A Python child that has `sock`, the channel, the offer's `version` and `nonce`, and `frame()`. */
function pythonScript(body) {
  return `
import socket, os, array, struct, time
sock = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
version, nonce = os.environ['BROOD_CHANNEL'].split(':')
def say(step, n=nonce, v=2, f=3):
    sock.sendall(('{"cmd":"NODE_BROOD_%s/%s/%d/%d"}\\n' % (step, n, v, f)).encode())
def line():
    got = b''
    while not got.endswith(b'\\n'): got += sock.recv(1)
    return got
def frame(kind, payload=b'', messages=0, number=0, fds=0, flags=0, length=None):
    return struct.pack('<BBHIII', kind, flags, fds, len(payload) if length is None else length, messages, number) + payload
def send(data, fds):
    sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))])
def upgrade():
    say('ANSWER'); assert b'SWITCH' in line(); say('SWITCH')
${body}
while sock.recv(65536): pass
`;
}

function python(body, options) {
  const { PATH } = process.env;
  return fork('-c', [pythonScript(body)], {
    execPath: 'python3',
    execArgv: [],
    env: { PATH },
    ...options,
  });
}

test('a peer that speaks the framing correctly is understood', async () => {
  const child = python(`upgrade()
sock.sendall(frame(1, b'1\\n[2]\\n', 2, 0) + frame(1, b'"x"\\n', 1, 1))`);
  const got = [];
  await new Promise((resolve) => child.on('message', (m) => got.push(m) === 3 && resolve()));
  expect(got).toEqual([1, [2], 'x']);
  await end(child);
});

test('a peer that sends more descriptors than are acknowledged is cut off before they are many', async () => {
  const source = `
    const { openDescriptors } = require(${JSON.stringify(`${ROOT}/__test__/helpers/system.js`)});
    const child = require(${JSON.stringify(ROOT)}).fork('-c', [process.argv[1]], {
      execPath: 'python3', execArgv: [], env: { PATH: process.env.PATH },
    });
    child.on('error', (error) => console.log(error.message, openDescriptors().size < 100));
  `;
  // One go of reading would fill the parent's table.
  const flood = pythonScript(`upgrade()
files = [os.open('/dev/null', os.O_RDONLY)] * 100
line = b'{"cmd":"NODE_HANDLE","type":"net.Native","msg":1}\\n' * 100
try:
    for n in range(10_000): send(frame(3, line, 100, n, 100), files)
except OSError: pass`);
  const limited = ['-c', 'ulimit -n 1000; exec "$0" -e "$1" "$2"', process.execPath, source, flood];
  const parent = stock.spawnSync('sh', limited, { encoding: 'utf8' });
  expect(parent.stdout).toMatch(/too many descriptors before it true/);
});

describe('disconnect() in a message listener', () => {
  /** What the parent hears of a peer that sends `first`, and `rest` once the parent has hung up. */
  async function heard({ first, rest = "b''" }) {
    const child = python(`upgrade()
server = socket.create_server(('127.0.0.1', 0))
handle = frame(3, b'{"cmd":"NODE_HANDLE","type":"net.Server","msg":"server"}\\n', 1, 1, 1)
behind = frame(1, b'"behind"\\n"last"\\n', 2, 2)
send(frame(1, b'"first"\\n', 1, 0) + ${first})
sock.recv(1)
sock.sendall(${rest})`);
    const events = [];
    child.on('message', (message, handle) => {
      events.push(message);
      handle?.close();
      if (message !== 'first') return;
      child.send('the rest');
      child.disconnect();
    });
    await once(child, 'disconnect');
    events.push('disconnect');
    await once(child, 'close');
    return events;
  }

  test('waits for what has come in part no longer than until it turns out to be no message', async () => {
    const [first, rest] = ['frame(6, number=9)[:8], []', 'frame(6, number=9)[8:]'];
    expect(await heard({ first, rest })).toEqual(['first', 'disconnect']);
  });

  test('waits for a handle that has come in part, and for what stands behind it', () =>
    expectNoLeaks(async () => {
      const [first, rest] = ['handle[:8], [server.fileno()]', 'handle[8:] + behind'];
      const expected = ['first', 'server', 'behind', 'last', 'disconnect'];
      expect(await heard({ first, rest })).toEqual(expected);
    }));

  test('closes a handle that has come with it, and emits what stands behind', () =>
    expectNoLeaks(async () => {
      const first = 'handle + behind, [server.fileno()]';
      expect(await heard({ first })).toEqual(['first', 'behind', 'last', 'disconnect']);
    }));
});

describe('a peer that lies is cut off, or not upgraded:', () => {
  test.each([
    ['another nonce', `say('ANSWER', 'x' + nonce)`],
    ['a version that was not offered', `say('ANSWER', v=4)`],
    ['a version that is no more spoken', `say('ANSWER', v=0)`],
    ['features that were not offered', `say('ANSWER', v=3, f=15)`],
    ['features that its version has not', `say('ANSWER', f=7)`],
    ['a switch without an answer', `say('SWITCH')`],
  ])('%s changes nothing', async (_, body) => {
    const child = python(`${body}
sock.sendall(b'"still here"\\n')
sock.sendall(b'{"got":' + line().strip() + b'}\\n')`);
    const messages = [];
    child.on('message', (message) => messages.push(message));
    child.send('plain');
    await once(child, 'message');
    while (messages.length < 2) await once(child, 'message');
    expect(messages).toEqual(['still here', { got: 'plain' }]);
    await end(child);
  });

  test.each([
    ['frames before the switch', `say('ANSWER'); line(); sock.sendall(frame(1, b'1\\n', 1))`],
    [
      'a switch to other terms',
      `say('ANSWER'); line(); say('SWITCH', f=0); sock.sendall(frame(1, b'1\\n', 1))`,
    ],
    ["Node's protocol after it", `upgrade(); sock.sendall(b'{"a":1234567890123}\\n')`],
    ['an unknown kind', `upgrade(); sock.sendall(frame(99))`],
    ['flags', `upgrade(); sock.sendall(frame(1, b'1\\n', 1, flags=1))`],
    ['fewer messages than announced', `upgrade(); sock.sendall(frame(1, b'1\\n', 2))`],
    ['no messages', `upgrade(); sock.sendall(frame(1, b'1\\n', 0))`],
    ['a length beyond all limits', `upgrade(); sock.sendall(frame(1, b'', 1, length=0xffffffff))`],
    [
      'a number that goes back',
      `upgrade(); sock.sendall(frame(1, b'1\\n', 1, 1) + frame(1, b'1\\n', 1, 0))`,
    ],
    ['descriptors that do not come', `upgrade(); sock.sendall(frame(3, b'1\\n', 1, fds=1))`],
    ['more descriptors than announced', `upgrade(); send(frame(3, b'1\\n', 1, fds=1), [0, 1])`],
    [
      'descriptors without a frame',
      `upgrade()
for i in range(9): send(frame(1, b'1\\n', 1, i), [0])`,
    ],
    ['a line that is not JSON', `upgrade(); sock.sendall(frame(1, b'rubbish\\n', 1))`],
    ['two values in one line', `upgrade(); sock.sendall(frame(1, b'1,2\\n', 1))`],
    [
      'an end in the middle',
      `upgrade(); sock.sendall(frame(1, b'1', 1, length=9)); sock.shutdown(1)`,
    ],
    [
      'a NODE_HANDLE that is no socket',
      `upgrade()
send(frame(3, b'{"cmd":"NODE_HANDLE","type":"nonsense","msg":1}\\n', 1, fds=1), [0])`,
    ],
    [
      'memory that is none',
      `upgrade()
value = bytes([0xff, 0x0f, 0x5c, 2, 0, 0, 8])
send(frame(5, struct.pack('<I', len(value)) + value, 1, fds=1), [0])`,
    ],
    [
      'memory that is not sealed',
      `upgrade()
fd = os.memfd_create('x', os.MFD_ALLOW_SEALING); os.write(fd, b'12345678')
value = bytes([0xff, 0x0f, 0x5c, 2, 0, 0, 8])
send(frame(5, struct.pack('<I', len(value)) + value, 1, fds=1), [fd])`,
    ],
  ])('%s', async (_, body) => {
    await expectNoLeaks(async () => {
      const child = python(body);
      const closed = new Promise((resolve) => child.once('close', resolve));
      const [error] = await once(child, 'error');
      expect(error.code).toBe('ERR_BROOD_IPC_PROTOCOL');
      expect(child.connected).toBe(false);
      await closed;
    });
  });

  test('what was read together with a message that cannot be decoded ends nobody', async () => {
    const child = python(`upgrade()
sock.sendall(frame(2, b'\\x01\\0\\0\\0\\xee', 1, 0) + frame(1, b'rubbish\\n', 1, 1))`);
    const codes = [];
    child.on('error', ({ code }) => codes.push(code));
    await new Promise((resolve) => child.once('close', resolve));
    expect(codes).toEqual(['ERR_BROOD_IPC_MESSAGE', 'ERR_BROOD_IPC_PROTOCOL']);
  });

  test('acknowledgements and refusals of what was never sent mean nothing', async () => {
    const child = python(`upgrade()
for kind in (6, 7, 9, 10, 11, 12): sock.sendall(frame(kind, number=77))
sock.sendall(frame(1, b'"fine"\\n', 1))`);
    expect((await once(child, 'message'))[0]).toBe('fine');
    await end(child);
  });

  test('one that refuses a socket again and again is told that it will not come', async () => {
    const child = python(`upgrade()
sock.sendall(frame(1, b'"ready"\\n', 1))
while True:
    data, anc, _, _ = sock.recvmsg(65536, 1024)
    if not data: break
    if data[0] == 3 or data[0] == 8: sock.sendall(frame(7, number=0))
    if data[0] == 9: break
    for _, _, fds in anc:
        for (fd,) in struct.iter_unpack('i', fds): os.close(fd)
sock.sendall(frame(1, b'"gave up"\\n', 1, 1))`);
    await once(child, 'message');
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const last = once(child, 'message');
    child.send('a server', server);
    expect((await last)[0]).toBe('gave up');
    server.close();
    await end(child);
  });
});

test('an interpreter that knows nothing of it is spoken to in JSON', async () => {
  const script = `
import os, socket
sock = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
sock.sendall(sock.recv(100))
sock.recv(1)
`;
  const child = spawn('python3', ['-c', script], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  expect(await ask(child, { plain: true })).toEqual({ plain: true });
  await end(child);
});
