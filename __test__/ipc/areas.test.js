'use strict';
// Large buffers and texts in areas that a channel uses again and again: what arrives, what stays
// mapped, how Buffers are filled in place, and what becomes of a peer that lies about areas.

const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const stock = require('node:child_process');
const { setImmediate: turn } = require('node:timers/promises');
const { cluster, fork, sharedBuffer, spawnSync } = require('../..');
const binding = require('../../lib/binding');
const { channelOf } = require('../../lib/ipc');
const { REGISTER, ask, end, upgraded } = require('../helpers/conversation');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { isRunning } = require('../helpers/system');
const { expectNoLeaks } = require('../helpers/leaks');

const SIZE = 600_000;
// Of one direction of a channel.
const MOST = 4;

/** The areas that a process has mapped: the number of each. */
function areasOf(pid) {
  const lines = fs.readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n');
  const own = lines.filter((line) => line.includes('/memfd:brood-area'));
  return own.map((line) => line.split(/\s+/)[4]);
}

// Buffers that earlier tests have left to the garbage collector may still lie in some.
let before = [];
beforeEach(() => (before = areasOf('self')));

const memoryFiles = (pid = 'self') => areasOf(pid).filter((file) => !before.includes(file));

/** All that a peer of ours could read in areas. */
function contentOfAreas() {
  const lines = fs.readFileSync('/proc/self/maps', 'latin1').split('\n');
  const memory = fs.openSync('/proc/self/mem');
  try {
    return lines
      .filter((line) => line.includes('/memfd:brood-area'))
      .filter((line) => !before.includes(line.split(/\s+/)[4]))
      .map((line) => {
        const [from, to] = line.split(' ')[0].split('-');
        const bytes = Buffer.alloc(Number(`0x${to}`) - Number(`0x${from}`));
        fs.readSync(memory, bytes, 0, bytes.length, Number(`0x${from}`));
        return bytes;
      });
  } finally {
    fs.closeSync(memory);
  }
}

const bytesOf = (n) => Buffer.alloc(SIZE, n);
const isAll = (bytes, n) => bytes.length === SIZE && bytes.equals(bytesOf(n));

test('one area serves message after message, and what has arrived stays what it was', async () => {
  const child = await upgraded();
  const kept = [];
  for (let n = 0; n < 30; n++) kept.push(await ask(child, bytesOf(n)));
  expect(kept.every(isAll)).toBe(true);
  // One for each direction.
  expect(memoryFiles()).toHaveLength(2);
  expect(memoryFiles(child.pid).sort()).toEqual(memoryFiles().sort());
  await end(child);
  expect(memoryFiles()).toEqual([]);
  expect(kept.every(isAll)).toBe(true);
});

test('a message that is written to does not change another, nor what is sent next', async () => {
  const child = await upgraded();
  const first = await ask(child, bytesOf(1));
  first.fill(9);
  expect(isAll(await ask(child, bytesOf(1)), 1)).toBe(true);
  expect(isAll(first, 9)).toBe(true);
  await end(child);
});

test('more at a time than there are areas, of all sizes, arrive in order', async () => {
  await expectNoLeaks(async () => {
    const child = await upgraded();
    const sizes = Array.from({ length: 60 }, (_, n) => 250_000 + ((n * 7919) % 3_000_000));
    let arrived = 0;
    const all = new Promise((resolve) => {
      child.on('message', (bytes) => {
        expect(bytes.length).toBe(sizes[arrived]);
        expect(bytes[0]).toBe(arrived);
        expect(bytes.at(-1)).toBe(arrived);
        if (++arrived === sizes.length) resolve();
      });
    });
    sizes.forEach((size, n) => child.send(Buffer.alloc(size, n)));
    await all;
    expect(memoryFiles(child.pid).length).toBeLessThanOrEqual(2 * MOST);
    await end(child);
  });
});

test('what is larger than all areas together has memory of its own', async () => {
  const child = await upgraded();
  const large = Buffer.alloc(70 << 20, 3);
  const got = await ask(child, large);
  expect(got.equals(large)).toBe(true);
  await end(child);
});

test('an area is never shared between two children', async () => {
  const children = await Promise.all([upgraded(), upgraded()]);
  for (const child of children) await ask(child, bytesOf(1));
  const [one, other] = children.map(({ pid }) => memoryFiles(pid));
  expect(one.length).toBeGreaterThan(0);
  expect(other.length).toBeGreaterThan(0);
  expect(one.filter((file) => other.includes(file))).toEqual([]);
  for (const child of children) await end(child);
});

test('messages that fail to serialize leave their areas free', async () => {
  const child = await upgraded();
  for (let i = 0; i < 10; i++) {
    const bad = { one: bytesOf(1), two: bytesOf(2), f() {} };
    expect(() => child.send(bad)).toThrow(/could not be cloned/);
  }
  expect(memoryFiles()).toHaveLength(2);
  expect(isAll(await ask(child, bytesOf(5)), 5)).toBe(true);
  await end(child);
});

test('a message that fails to serialize shows the peer nothing, and takes nothing away', async () => {
  const child = await upgraded();
  await ask(child, bytesOf(1));
  const buffers = [
    bytesOf(0xd1),
    sharedBuffer(SIZE).fill(0xd2),
    Buffer.from(sharedBuffer(SIZE, child).fill(0xd3)),
  ];
  const handedOver = sharedBuffer(SIZE, child).fill(0xd4);
  expect(() => child.send({ buffers, handedOver, f() {} })).toThrow(/could not be cloned/);
  const shown = contentOfAreas();
  expect(shown.some((bytes) => bytes.includes(Buffer.alloc(100, 1)))).toBe(true);
  for (const [index, bytes] of buffers.entries()) {
    expect(isAll(bytes, 0xd1 + index)).toBe(true);
    const some = bytes.subarray(0, 100);
    expect(shown.some((content) => content.includes(some))).toBe(index === 2);
  }
  expect(isAll(handedOver, 0xd4)).toBe(true);
  const got = await ask(child, { buffers, handedOver });
  expect(got.buffers.map((bytes) => bytes[SIZE - 1])).toEqual([0xd1, 0xd2, 0xd3]);
  expect(isAll(got.handedOver, 0xd4)).toBe(true);
  expect(handedOver.length).toBe(0);
  await end(child);
});

test('a getter that takes away what is being sent makes send() fail, and nothing else', async () => {
  const child = await upgraded();
  const taken = [bytesOf(1)];
  // Of what lies outside of V8's own memory only this method takes the memory away.
  if (ArrayBuffer.prototype.transfer) taken.push(sharedBuffer(SIZE), sharedBuffer(SIZE, child));
  for (const bytes of taken) {
    const { buffer } = bytes;
    let elsewhere;
    const message = {
      bytes,
      get taken() {
        elsewhere = buffer.transfer?.() ?? structuredClone(buffer, { transfer: [buffer] });
        return true;
      },
    };
    expect(() => child.send(message)).toThrow(expect.objectContaining({ syscall: 'write' }));
    expect(new Set(Buffer.from(elsewhere)).size).toBe(1);
    expect(isAll(await ask(child, bytesOf(2)), 2)).toBe(true);
  }
  await end(child);
});

// Node 20 has nothing that takes away what lies outside of V8's own memory.
const testWithTransfer = ArrayBuffer.prototype.transfer ? test : test.skip;

testWithTransfer('a sharedBuffer() that is taken away costs the sender no other one', async () => {
  const child = await upgraded();
  const kept = [sharedBuffer(SIZE).fill(5), sharedBuffer(SIZE, child).fill(5)];
  const taken = sharedBuffer(SIZE, child);
  const message = {
    all: [...kept, taken],
    get taken() {
      return taken.buffer.transfer() !== null;
    },
  };
  expect(() => child.send(message)).toThrow(expect.objectContaining({ syscall: 'write' }));
  expect(kept.every((bytes) => isAll(bytes, 5))).toBe(true);
  const got = await ask(child, kept);
  expect(got.every((bytes) => isAll(bytes, 5))).toBe(true);
  await end(child);
});

test.each([
  ['memory of its own', () => sharedBuffer(SIZE)],
  ['an area', (child) => sharedBuffer(SIZE, child)],
])('two Buffers in one sharedBuffer() in %s both arrive', async (_, make) => {
  const child = await upgraded();
  const one = make(child).fill(4);
  const other = Buffer.from(one.buffer);
  const got = await ask(child, [one, other]);
  expect(got.every((bytes) => isAll(bytes, 4))).toBe(true);
  expect([one.length, other.length]).toEqual([0, 0]);
  await end(child);
});

test('serializing one message may send another on the same channel', async () => {
  const child = await upgraded();
  const got = [];
  const all = new Promise((resolve) => {
    child.on('message', (message) => {
      got.push(message);
      if (message.first) resolve();
    });
  });
  child.send({
    first: bytesOf(1),
    get inner() {
      child.send(bytesOf(2));
      return bytesOf(3);
    },
  });
  await all;
  const outer = got.pop();
  expect(got.length).toBeGreaterThan(0);
  expect(got.every((bytes) => isAll(bytes, 2))).toBe(true);
  expect(isAll(outer.first, 1)).toBe(true);
  expect(isAll(outer.inner, 3)).toBe(true);
  await end(child);
});

test('what is under way when the peer dies or the channel is closed is freed', async () => {
  await expectNoLeaks(async () => {
    for (const how of ['kill', 'disconnect']) {
      const child = await upgraded();
      child.on('error', () => {});
      child.kill('SIGSTOP');
      for (let n = 0; n < 10; n++) child.send({ bytes: bytesOf(n) });
      expect(memoryFiles()).toHaveLength(MOST);
      const closed = once(child, 'close');
      if (how === 'disconnect') child.disconnect();
      child.kill('SIGKILL');
      await closed;
      expect(memoryFiles()).toEqual([]);
    }
  });
});

test('areas that are idle are dropped at both ends, and there are new ones when they are needed', async () => {
  const child = await upgraded();
  const { native } = channelOf(child);
  await ask(child, bytesOf(1));
  expect(memoryFiles()).toHaveLength(2);
  expect(binding.areasExpire(native.id, 3_600_000)).toBe(true);
  expect(memoryFiles()).toHaveLength(2);
  expect(binding.areasExpire(native.id, 0)).toBe(false);
  // The child's, in which it has answered, is still there.
  expect(memoryFiles()).toHaveLength(1);
  expect(isAll(await ask(child, bytesOf(2)), 2)).toBe(true);
  expect(memoryFiles(child.pid).sort()).toEqual(memoryFiles().sort());
  await end(child);
});

test.each([
  ['looking for idle areas', ({ id }) => binding.areasExpire(id, 3_600_000)],
  ['a spawnSync()', () => spawnSync('true')],
])('what %s happens to write is reported as written', async (_, flush) => {
  const directory = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-areas-'));
  try {
    const file = path.join(directory, 'all-is-there');
    const child = await upgraded({ env: { ...process.env, NOTE: file } }, 'notes.js');
    const { native } = channelOf(child);
    child.kill('SIGSTOP');
    for (let n = 0; n < 50; n++) child.send('x'.repeat(100_000));
    const sent = new Promise((resolve) => child.send('note', resolve));
    await turn();
    child.kill('SIGCONT');
    // The event loop has no turn in which to notice that the peer reads again.
    while (!fs.existsSync(file)) flush(native);
    expect(await sent).toBe(null);
    await end(child);
  } finally {
    fs.rmSync(directory, { recursive: true });
  }
});

test('what lies idle is looked after every ten seconds, as long as there is something', () => {
  jest.useFakeTimers();
  try {
    let Expiry;
    jest.isolateModules(() => {
      jest.doMock('../../lib/start', () => ({ timers: globalThis }));
      ({ Expiry } = require('../../lib/ipc/expiry'));
    });
    let left = 2;
    const expire = jest.fn(() => --left > 0);
    const expiry = new Expiry(expire);
    expiry.start();
    expiry.start();
    jest.advanceTimersByTime(9_999);
    expect(expire).not.toHaveBeenCalled();
    jest.advanceTimersByTime(1);
    expect(expire.mock.calls).toEqual([[10_000]]);
    jest.advanceTimersByTime(100_000);
    expect(expire).toHaveBeenCalledTimes(2);
    expiry.start();
    expiry.stop();
    jest.advanceTimersByTime(100_000);
    expect(expire).toHaveBeenCalledTimes(2);
  } finally {
    jest.dontMock('../../lib/start');
    jest.useRealTimers();
  }
});

test('what a worker thread has received does not lie idle when the thread has ended', async () => {
  const script = `
    const { Worker } = require('node:worker_threads');
    const { blocksTrim } = require(${JSON.stringify(`${ROOT}/lib/binding`)});
    const thread = new Worker(${JSON.stringify(`
      const { fork } = require(${JSON.stringify(ROOT)});
      const child = fork(${JSON.stringify(fixture('upgraded.js'))}, {
        execArgv: ${JSON.stringify(REGISTER)}, serialization: 'advanced',
      });
      child.once('message', () => {
        child.send(Buffer.alloc(${SIZE}));
        child.once('message', (bytes) => process.exit(bytes.length === ${SIZE} ? 7 : 1));
      });
      child.send('first');
    `)}, { eval: true });
    thread.once('exit', (code) => console.log(code, blocksTrim(3_600_000)));
  `;
  expect((await runNode(['-e', script])).stdout).toBe('7 false\n');
});

test('it keeps no process alive', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const child = fork(${JSON.stringify(fixture('upgraded.js'))}, {
      execArgv: ${JSON.stringify(REGISTER)}, serialization: 'advanced',
    });
    child.once('message', () => {
      child.once('message', () => (child.unref(), child.channel.unref(), child.kill()));
      child.send(Buffer.alloc(${SIZE}));
    });
    child.send('first');
  `;
  const { code, stderr } = await runNode(['-e', script], { limit: 8_000 });
  expect([code, stderr]).toEqual([0, '']);
});

describe('a peer without memory for what it is sent', () => {
  const MEGABYTE = 1 << 20;
  const LARGE = 62 * MEGABYTE;
  // Enough for V8 to go on with, whose young generation alone may grow to 48 MiB and which ends the
  // process when it cannot, and not for one more large buffer.
  const SLACK = 58 * MEGABYTE;

  /** Lets a process have `more` bytes of addresses than it has now. */
  function limit(pid, more) {
    const status = fs.readFileSync(`/proc/${pid}/status`, 'utf8');
    const size = Number(/VmSize:\s*(\d+) kB/.exec(status)[1]) * 1024;
    const soft = more === Infinity ? 'unlimited' : size + more;
    expect(spawnSync('prlimit', [`--pid=${pid}`, `--as=${soft}:`]).status).toBe(0);
  }

  function told(child, pattern) {
    return new Promise((resolve) => {
      let text = '';
      child.stderr.setEncoding('utf8').on('data', (chunk) => {
        text += chunk;
        if (pattern.test(text)) resolve(text);
      });
    });
  }

  test('keeps it, and all behind it, until it has some, and says so', async () => {
    const child = await upgraded({ silent: true });
    const got = [];
    const all = new Promise((resolve) => {
      child.on('message', (message) => got.push(message) === 4 && resolve());
    });
    const warned = told(child, /BROOD_IPC_NO_MEMORY/);
    limit(child.pid, SLACK);
    const sent = [{ n: 1 }, Buffer.alloc(LARGE, 2), { n: 3 }, 'x'.repeat(400_000)];
    const ended = once(child, 'exit');
    for (const message of sent) child.send(message);
    expect(await Promise.race([warned, ended])).toMatch(/BROOD_IPC_NO_MEMORY/);
    expect(child.connected).toBe(true);
    expect(got).toEqual([{ n: 1 }]);
    limit(child.pid, Infinity);
    await all;
    expect(got.map((message) => message.length)).toEqual([undefined, LARGE, undefined, 400_000]);
    expect(got[1].equals(sent[1])).toBe(true);
    await end(child);
  });

  test('gets it where garbage can make room', async () => {
    const child = await upgraded({ silent: true });
    let said = '';
    child.stderr.on('data', (chunk) => (said += chunk));
    const large = Buffer.alloc(LARGE, 1);
    await ask(child, large);
    limit(child.pid, SLACK);
    for (let n = 0; n < 5; n++) expect((await ask(child, large)).equals(large)).toBe(true);
    await end(child);
    expect(said).toBe('');
  });

  test('gets what is in memory of its own by a copy', async () => {
    const size = LARGE / 2;
    const source = `
      let garbage = Buffer.alloc(${4 * size}, 1);
      process.on('message', (message) => {
        if (message === 'drop') garbage = null;
        process.send(message.length);
      });
    `;
    for (const [serialization, large] of [
      ['advanced', Buffer.alloc(size, 1)],
      ['json', 'x'.repeat(size)],
    ]) {
      const child = fork('-e', [source], {
        execPath: process.execPath,
        execArgv: REGISTER,
        serialization,
        upgrade: 2,
      });
      await ask(child, 'first');
      limit(child.pid, SLACK / 2);
      await ask(child, 'drop');
      expect(await ask(child, large)).toBe(size);
      await end(child);
    }
  });

  test('ends with its channel, whatever waits', async () => {
    await expectNoLeaks(async () => {
      const child = await upgraded({ silent: true });
      const warned = told(child, /BROOD_IPC_NO_MEMORY/);
      limit(child.pid, SLACK);
      const ended = once(child, 'exit');
      child.send(Buffer.alloc(LARGE));
      expect(await Promise.race([warned, ended])).toMatch(/BROOD_IPC_NO_MEMORY/);
      const closed = once(child, 'close');
      child.kill();
      await closed;
    });
  });
});

describe('sharedBuffer() for a peer', () => {
  test('lies in an area, is handed over without a copy, and is used again', async () => {
    const child = await upgraded();
    expect(memoryFiles()).toEqual([]);
    for (let n = 1; n < 20; n++) {
      const buffer = sharedBuffer(SIZE, child).fill(n);
      expect([Buffer.isBuffer(buffer), buffer.length]).toEqual([true, SIZE]);
      const reply = ask(child, { buffer });
      expect(buffer.length).toBe(0);
      expect(isAll((await reply).buffer, n)).toBe(true);
      // The next one is another, unless V8 has let go of the first.
      await turn();
    }
    expect(memoryFiles().length).toBeLessThanOrEqual(3);
    await end(child);
  });

  test('sent elsewhere, or in part, it is a Buffer like any other', async () => {
    const [child, other] = await Promise.all([upgraded(), upgraded({ upgrade: 2 })]);
    const third = await upgraded({ upgrade: false });
    const buffer = sharedBuffer(SIZE, child).fill(7);
    for (const peer of [other, third]) expect(isAll(await ask(peer, buffer), 7)).toBe(true);
    const part = await ask(child, buffer.subarray(1));
    expect(part.equals(buffer.subarray(1))).toBe(true);
    expect(buffer.length).toBe(SIZE);
    expect(isAll(await ask(child, buffer), 7)).toBe(true);
    expect(buffer.length).toBe(0);
    for (const peer of [child, other, third]) await end(peer);
  });

  test('one that outlives its channel is still a Buffer', async () => {
    const child = await upgraded();
    const buffer = sharedBuffer(SIZE, child).fill(3);
    await end(child);
    expect(isAll(buffer, 3)).toBe(true);
    const next = await upgraded();
    expect(isAll(await ask(next, buffer), 3)).toBe(true);
    await end(next);
  });

  test('sent when its peer is just gone it stays a Buffer, and the callback is told', async () => {
    const child = await upgraded();
    const buffer = sharedBuffer(SIZE, child).fill(4);
    process.kill(child.pid, 'SIGKILL');
    // Without a turn of the loop, in which the end would be noticed. Its last thread closes its files.
    const threads = () => fs.readdirSync(`/proc/${child.pid}/task`).length;
    while (isRunning(child.pid) || threads() > 1);
    const send = (message) => new Promise((resolve) => child.send(message, resolve));
    for (const message of ['notices', buffer, { buffer }]) {
      expect(await send(message)).toMatchObject({ code: 'EPIPE', syscall: 'write' });
    }
    expect(isAll(buffer, 4)).toBe(true);
    await once(child, 'close');
  });

  test('those that are never sent come back when they are collected', async () => {
    const script = `
      const { fork, sharedBuffer } = require(${JSON.stringify(ROOT)});
      const fs = require('node:fs');
      const files = () => fs.readFileSync('/proc/self/maps', 'utf8').split('memfd:brood').length - 1;
      const child = fork(${JSON.stringify(fixture('upgraded.js'))}, {
        execArgv: ${JSON.stringify(REGISTER)}, serialization: 'advanced',
      });
      child.once('message', () => {
        const held = Array.from({ length: 6 }, () => sharedBuffer(${SIZE}, child));
        held.forEach((buffer, n) => buffer.fill(n + 1));
        console.log(files(), new Set(held.map((buffer) => buffer[0])).size);
        held.length = 0;
        const look = () => {
          gc();
          // Four areas are left, and the two that had to be memory of their own are gone.
          if (files() > 4) return setTimeout(look, 10);
          const again = Array.from({ length: 4 }, () => sharedBuffer(${SIZE}, child)[0]);
          if (again.includes(0)) return setTimeout(look, 10);
          console.log(again.sort().join());
          child.disconnect();
        };
        look();
      });
      child.send('first');
    `;
    const { stdout } = await runNode(['--expose-gc', '-e', script]);
    expect(stdout).toBe('6 6\n1,2,3,4\n');
  });

  test('in a child it is for process', async () => {
    const child = fork(fixture('shares-buffers.js'), {
      execArgv: REGISTER,
      serialization: 'advanced',
    });
    await once(child, 'message');
    for (let n = 1; n < 6; n++) expect(isAll(await ask(child, n), n)).toBe(true);
    await end(child);
  });

  test('a cluster’s Worker, whose channel has no areas, is a peer to whom it is copied', async () => {
    cluster.setupPrimary({
      exec: fixture('upgraded.js'),
      execArgv: REGISTER,
      serialization: 'advanced',
    });
    const worker = cluster.fork();
    await ask(worker, 'first');
    const buffer = sharedBuffer(SIZE, worker).fill(8);
    expect(isAll(await ask(worker, buffer), 8)).toBe(true);
    expect(isAll(buffer, 8)).toBe(true);
    worker.disconnect();
    await once(worker, 'exit');
  });

  test('checks its peer; one without brood’s framing or of stock Node’s is none to it', async () => {
    for (const peer of [null, 1, {}, 'child', { process: {} }]) {
      expect(() => sharedBuffer(SIZE, peer)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
      );
    }
    expect(() => sharedBuffer('1', null)).toThrow(/"size" argument/);
    const child = stock.fork(fixture('upgraded.js'), { serialization: 'advanced' });
    expect(sharedBuffer(SIZE, child).equals(Buffer.alloc(SIZE))).toBe(true);
    expect(sharedBuffer(10, child)).toEqual(Buffer.alloc(10));
    child.disconnect();
    await once(child, 'exit');
  });
});

test.each(['x', 'é', '\u20ac', '\u{1F600}', '\ud800', '"\\\n'])(
  'long JSON texts of %j arrive one after the other',
  async (unit) => {
    const child = await upgraded({ serialization: 'json' });
    for (let n = 0; n < 8; n++) {
      const message = { n, text: unit.repeat(300_000 + n) };
      const got = await ask(child, message);
      expect(got.n).toBe(n);
      expect(got.text === message.text).toBe(true);
    }
    expect(memoryFiles()).toHaveLength(2);
    await end(child);
  },
);

test.each(['json', 'advanced'])(
  'long strings that are all of a %s message arrive',
  async (serialization) => {
    const child = await upgraded({ serialization });
    for (const unit of ['x', 'é', '\u20ac', '\u{1F600}', '\ud800', '\udc00x', '"\\\n', '-']) {
      const text = unit.repeat(300_000);
      expect((await ask(child, text)) === text).toBe(true);
    }
    expect((await ask(child, ['x'.repeat(300_000)]))[0].length).toBe(300_000);
    await end(child);
  },
);

test('a toJSON() of String.prototype is no more asked than by JSON.stringify()', async () => {
  const child = await upgraded({ serialization: 'json' });
  Object.defineProperty(String.prototype, 'toJSON', { value: () => 'other', configurable: true });
  try {
    const text = 'x'.repeat(300_000);
    expect(JSON.stringify('x')).toBe('"x"');
    expect((await ask(child, text)) === text).toBe(true);
  } finally {
    delete String.prototype.toJSON;
  }
  await end(child);
});

/** A Python child that is brood to its parent, with areas. */
function python(body) {
  const script = `
import socket, os, array, struct, fcntl, mmap
sock = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))
version, nonce = os.environ['BROOD_CHANNEL'].split(':')
def say(step): sock.sendall(('{"cmd":"NODE_BROOD_%s/%s/3/7"}\\n' % (step, nonce)).encode())
def line():
    got = b''
    while not got.endswith(b'\\n'): got += sock.recv(1)
    return got
def frame(kind, payload=b'', messages=0, number=0, fds=0):
    return struct.pack('<BBHIII', kind, 0, fds, len(payload), messages, number) + payload
def send(data, fds=[]):
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []
    sock.sendmsg([data], rights)
maps = {}
def area(content=b'"text"', size=4096, seals=2 | 4 | 16):
    fd = os.memfd_create('area', os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, size); os.pwrite(fd, content, 0)
    if size > 0: maps[fd] = mmap.mmap(fd, size)
    fcntl.fcntl(fd, 1033, seals)
    return fd
BYTES, UTF8, LATIN1 = 0, 1, 2
KNOWN, NEW = 1, 2
def entry(number, length, place, content=LATIN1): return struct.pack('<IIBBH', number, length, place, content, 0)
TEXT = bytes([0xff, 0x0f, 0x5c, 3])
VIEW = bytes([0xff, 0x0f, 0x5c, 2, 0, 0])
def placed(*entries, number=0, value=TEXT + b'\\x06', fds=0):
    return frame(13, struct.pack('<I', len(value)) + value + b''.join(entries), 1, number, fds)
def control(kind, number): return frame(kind, number=number)
ACKNOWLEDGE, RELEASE, DROP = 6, 14, 15
say('ANSWER'); assert b'SWITCH' in line(); say('SWITCH')
${body}
while sock.recv(65536): pass
`;
  const { PATH } = process.env;
  return fork('-c', [script], { execPath: 'python3', execArgv: [], env: { PATH } });
}

test('a peer that uses areas correctly is understood', async () => {
  const child = python(`
fd = area()
send(placed(entry(5, 6, NEW), fds=1), [fd])
def released():
    got = b''
    while control(RELEASE, 5) not in got: got += sock.recv(4096)
released()
maps[fd][:6] = b'[1, 2]'
send(placed(entry(5, 6, KNOWN), number=1))
released()
send(control(DROP, 5) + placed(entry(5, 6, NEW), number=2, fds=1), [area(b'"same"')])
`);
  const [text] = await once(child, 'message');
  const [list] = await once(child, 'message');
  const [again] = await once(child, 'message');
  expect([text, list, again]).toEqual(['text', [1, 2], 'same']);
  await end(child);
});

describe('a peer that lies about areas is cut off, and told what it did:', () => {
  const first = 'send(placed(entry(0, 6, NEW), fds=1), [area()])';
  test.each([
    ['one that is not there', 'send(placed(entry(0, 6, KNOWN)))', /not there/],
    [
      'one that was dropped',
      `${first}; send(control(DROP, 0) + placed(entry(0, 6, KNOWN), number=1))`,
      /not there/,
    ],
    [
      'one that is not released',
      `send(placed(entry(0, 6, NEW), fds=1) + placed(entry(0, 6, KNOWN), number=1), [area()])`,
      /not released/,
    ],
    [
      'bytes beyond its end',
      'send(placed(entry(0, 4097, NEW), fds=1), [area()])',
      /beyond the end/,
    ],
    [
      'one twice',
      `fd = area(); ${first}; send(placed(entry(0, 6, NEW), number=1, fds=1), [fd])`,
      /already/,
    ],
    [
      'too many',
      `for i in range(5): send(placed(entry(i, 6, NEW), number=i, fds=1), [area()])`,
      /too many/,
    ],
    [
      'one that is too large',
      'send(placed(entry(0, 6, NEW), fds=1), [area(size=65 << 20)])',
      /too large/,
    ],
    [
      'one that can shrink',
      'send(placed(entry(0, 6, NEW), fds=1), [area(seals=4 | 16)])',
      /not sealed/,
    ],
    [
      'one that can grow',
      'send(placed(entry(0, 6, NEW), fds=1), [area(seals=2 | 16)])',
      /not sealed/,
    ],
    [
      'one that can get holes',
      'send(placed(entry(0, 6, NEW), fds=1), [area(seals=2 | 4)])',
      /not sealed/,
    ],
    [
      'one with holes',
      'send(placed(entry(0, 6, NEW), fds=1), [area(size=1 << 20)])',
      /area with holes/,
    ],
    ['one that is no memory', 'send(placed(entry(0, 6, NEW), fds=1), [0])', /not sealed/],
    [
      'one of no bytes',
      'send(placed(entry(0, 6, NEW), fds=1), [area(content=b"", size=0)])',
      /without bytes/,
    ],
    ['a table that is none', 'send(placed(b"123"))', /wrong table/],
    ['a content that is none', 'send(placed(entry(0, 6, NEW, 9), fds=1), [area()])', /wrong table/],
    ['a length of nothing', 'send(placed(entry(0, 0, KNOWN)))', /wrong table/],
    ['a descriptor that did not come', 'send(placed(entry(0, 6, NEW), fds=1))', /did not come/],
    ['a release of nothing', 'send(control(RELEASE, 0))', /releases an area that is not in use/],
    ['a drop of nothing', 'send(control(DROP, 0))', /drops an area that is not there/],
    [
      'bytes as a text',
      'send(placed(entry(0, 6, NEW, BYTES), fds=1), [area()])',
      /long text is none/,
    ],
    [
      'a text as bytes',
      'send(placed(entry(0, 6, NEW), value=VIEW + b"\\x06", fds=1), [area()])',
      /not of the length/,
    ],
    [
      'another length in the message',
      'send(placed(entry(0, 6, NEW, BYTES), value=VIEW + b"\\x07", fds=1), [area()])',
      /not of the length/,
    ],
    [
      'a text that is no JSON',
      'send(placed(entry(0, 6, NEW), fds=1), [area(b"rubble")])',
      /could not be decoded/,
    ],
    [
      'two of a message in one place',
      'send(placed(entry(0, 6, NEW), entry(0, 6, KNOWN), fds=1), [area()])',
      /not released/,
    ],
  ])('%s', async (_, body, said) => {
    await expectNoLeaks(async () => {
      const child = python(body);
      const closed = new Promise((resolve) => child.once('close', resolve));
      const [error] = await once(child, 'error');
      expect(error.code).toBe('ERR_BROOD_IPC_PROTOCOL');
      expect(error.message).toMatch(said);
      expect(child.connected).toBe(false);
      await closed;
      expect(memoryFiles()).toEqual([]);
    });
  });

  test('a release that comes too early garbles nothing but its own messages', async () => {
    const child = python(`
sock.sendall(frame(1, b'"ready"\\n', 1))
data, rights = b'', []
while not rights:
    more, rights, _, _ = sock.recvmsg(65536, 1024)
    data += more
send(control(RELEASE, 0) + control(ACKNOWLEDGE, 0))
while b'last' not in data: data += sock.recv(4096)
sock.sendall(frame(1, b'"still here"\\n', 1, 1))`);
    await once(child, 'message');
    child.send('x'.repeat(300_000));
    const answer = once(child, 'message');
    child.send('last');
    expect((await answer)[0]).toBe('still here');
    await end(child);
  });
});
