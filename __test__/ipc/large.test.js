'use strict';
// Large buffers between two broods travel beside the stream: what arrives, what the sender keeps,
// and that no descriptor or mapping is left behind.

const { once } = require('node:events');
const fs = require('node:fs');
const stock = require('node:child_process');
const { sharedBuffer } = require('../..');
const { REGISTER, ask, end, upgraded } = require('../helpers/conversation');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

const SIZE = 600_000;

/** How many memory files are mapped or open in this process. */
function memoryFiles() {
  const maps = fs.readFileSync('/proc/self/maps', 'utf8');
  return maps.split('\n').filter((line) => line.includes('/memfd:brood')).length;
}

function filled(bytes) {
  for (let i = 0; i < bytes.length; i += 997) bytes[i] = i % 251;
  return bytes;
}

const same = (a, b) => Buffer.compare(asBytes(a), asBytes(b)) === 0;
const asBytes = (view) => new Uint8Array(view.buffer, view.byteOffset, view.byteLength);

test.each([
  'Buffer',
  'Int8Array',
  'Uint8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float32Array',
  'Float64Array',
  'BigInt64Array',
  'BigUint64Array',
  'DataView',
])('a large %s comes back as it was, as large as it was, and can be written to', async (name) => {
  const child = await upgraded();
  const memory = filled(new Uint8Array(SIZE)).buffer;
  const view = name === 'Buffer' ? Buffer.from(memory) : new globalThis[name](memory);
  const { value, text } = await ask(child, { value: view, text: 'beside it' });
  expect(text).toBe('beside it');
  expect(Object.prototype.toString.call(value)).toBe(Object.prototype.toString.call(view));
  expect(Buffer.isBuffer(value)).toBe(name === 'Buffer');
  expect(value.byteLength).toBe(SIZE);
  expect(same(value, view)).toBe(true);
  expect(memoryFiles()).toBeGreaterThan(0);
  asBytes(value).fill(1);
  expect(same(view, filled(new Uint8Array(SIZE)))).toBe(true);
  await end(child);
});

test('many in one message, large and small, a part of a buffer, and the same one twice', async () => {
  const child = await upgraded();
  const whole = filled(Buffer.alloc(2 * SIZE));
  const message = {
    many: Array.from({ length: 20 }, () => Buffer.from(whole.subarray(0, SIZE))),
    small: Buffer.from('small'),
    part: whole.subarray(10, 10 + SIZE),
    twice: [whole, whole],
  };
  const got = await ask(child, message);
  expect(got.many.every((bytes) => same(bytes, whole.subarray(0, SIZE)))).toBe(true);
  expect(got.small.toString()).toBe('small');
  expect(same(got.part, message.part)).toBe(true);
  expect(got.twice.every((bytes) => same(bytes, whole))).toBe(true);
  await end(child);
});

test('they keep their place among other messages', async () => {
  await expectNoLeaks(async () => {
    const child = await upgraded();
    const got = [];
    const all = new Promise((resolve) => {
      child.on('message', ({ n, bytes }) => {
        if (bytes) expect(bytes[n]).toBe(n);
        got.push(n);
        if (n === 99) resolve();
      });
    });
    for (let n = 0; n < 100; n++) {
      child.send(n % 3 === 0 ? { n, bytes: Buffer.alloc(300_000, n) } : { n });
    }
    await all;
    expect(got).toEqual(Array.from({ length: 100 }, (_, n) => n));
    await end(child);
  });
});

test('send() returns false when many are unacknowledged, and drain follows', async () => {
  const child = await upgraded();
  child.kill('SIGSTOP');
  const bytes = Buffer.alloc(300_000);
  let sent = 0;
  while (child.send({ bytes })) sent++;
  // Four in areas, a dozen beside, and what the child has taken before it stopped.
  expect(sent).toBeLessThan(100);
  const drained = once(child, 'drain');
  child.kill('SIGCONT');
  await drained;
  await end(child);
});

describe('sharedBuffer()', () => {
  test('is handed over without a copy and is empty afterwards', async () => {
    const child = await upgraded();
    const buffer = filled(sharedBuffer(SIZE));
    expect([Buffer.isBuffer(buffer), buffer.length]).toEqual([true, SIZE]);
    const reply = once(child, 'message');
    child.send({ buffer });
    expect(buffer.length).toBe(0);
    expect(same((await reply)[0].buffer, filled(Buffer.alloc(SIZE)))).toBe(true);
    await end(child);
  });

  test('is copied where only a part of it is sent', async () => {
    const child = await upgraded();
    const buffer = filled(sharedBuffer(SIZE));
    const part = buffer.subarray(1);
    expect(same(await ask(child, { part }).then((m) => m.part), part)).toBe(true);
    expect(buffer.length).toBe(SIZE);
    await end(child);
  });

  test('sent twice in one message it arrives as one', async () => {
    const child = await upgraded();
    const buffer = filled(sharedBuffer(SIZE));
    const { first, second } = await ask(child, { first: buffer, second: buffer });
    expect(first).toBe(second);
    expect(same(first, filled(Buffer.alloc(SIZE)))).toBe(true);
    await end(child);
  });

  test.each([
    ['by Node’s protocol', { upgrade: false }],
    ['to a stock child', { execArgv: [], env: { ...process.env, NODE_OPTIONS: '' } }],
  ])('sent %s it is a buffer like any other', async (_, options) => {
    const child = await upgraded(options);
    const buffer = filled(sharedBuffer(SIZE));
    const { buffer: got } = await ask(child, { buffer });
    expect(same(got, buffer)).toBe(true);
    expect(buffer.length).toBe(SIZE);
    await end(child);
  });

  test('checks its argument, and small ones are ordinary', () => {
    expect(() => sharedBuffer('1')).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_ARG_TYPE' }),
    );
    expect(() => sharedBuffer(-1)).toThrow(expect.objectContaining({ code: 'ERR_OUT_OF_RANGE' }));
    expect(sharedBuffer(0).length).toBe(0);
    expect(sharedBuffer(10)).toEqual(Buffer.alloc(10));
  });
});

test.each(['x', 'é', '\u20ac', '\u{1F600}', '\ud800', '\n'])(
  'a long JSON text of %j arrives among short ones',
  async (unit) => {
    await expectNoLeaks(async () => {
      const child = await upgraded({ serialization: 'json' });
      const long = { text: unit.repeat(400_000), list: [1, { a: null }] };
      expect(await ask(child, long.text)).toBe(long.text);
      const got = [];
      const all = new Promise((resolve) =>
        child.on('message', (m) => got.push(m) === 3 && resolve()),
      );
      for (const message of ['before', long, 'after']) child.send(message);
      await all;
      expect([got[0], got[2]]).toEqual(['before', 'after']);
      expect(got[1].text === long.text).toBe(true);
      expect(got[1].list).toEqual(long.list);
      await end(child);
    });
  },
);

test.each([
  ['json', { text: 'x'.repeat(500_000) }],
  ['advanced', { bytes: new Uint8Array(500_000) }],
])('maxMessageSize counts what comes beside a %s message', async (serialization, long) => {
  const child = await upgraded({ serialization, maxMessageSize: 400_000 });
  const closed = new Promise((resolve) => child.once('close', resolve));
  child.send(long);
  const [error] = await once(child, 'error');
  expect(error.message).toMatch(/message of 5000\d\d bytes or more, the limit is 400000/);
  await closed;
});

test('a message that fails to serialize leaves no descriptor', async () => {
  await expectNoLeaks(async () => {
    const child = await upgraded();
    const bad = { bytes: Buffer.alloc(SIZE), f() {} };
    expect(() => child.send(bad)).toThrow(/could not be cloned/);
    await end(child);
  });
});

describe('serializing calls each getter once, as Node does:', () => {
  class Late {
    constructor(calls) {
      Object.defineProperty(this, 'x', { enumerable: true, get: () => calls.push('x') });
    }
  }
  const large = () => Buffer.alloc(300_000);
  const getter = (object, calls, name = 'x') =>
    Object.defineProperty(object, name, { enumerable: true, get: () => calls.push(name) });

  test.each([
    ['before a large buffer', (calls) => ({ a: getter({}, calls), b: large() })],
    ['behind one', (calls) => getter({ bytes: large() }, calls)],
    ['in an array', (calls) => [large(), getter([1, 2], calls, 1)]],
    ['of a class', (calls) => ({ late: new Late(calls), bytes: large() })],
    ['alone', (calls) => getter({ n: 1 }, calls)],
    ['beside a Date', (calls) => getter({ date: new Date(0) }, calls)],
    ['cmd', (calls) => getter({ bytes: large() }, calls, 'cmd')],
    ['toJSON', (calls) => getter({ bytes: large() }, calls, 'toJSON')],
    [
      'that throws',
      (calls) => ({
        bytes: large(),
        get x() {
          calls.push('x');
          throw new Error('not now');
        },
      }),
    ],
  ])('%s', async (_, make) => {
    for (const serialization of ['advanced', 'json']) {
      const counts = [];
      for (const start of [upgraded, stockFork]) {
        const child = await start({ serialization });
        const calls = [];
        const message = make(calls);
        try {
          await ask(child, message);
        } catch (error) {
          expect(error.message).toBe('not now');
        }
        counts.push(calls);
        const ended = once(child, 'exit');
        child.disconnect();
        await ended;
      }
      expect(counts[0]).toEqual(counts[1]);
      if (serialization === 'advanced') expect(counts[0]).toHaveLength(1);
    }
  });

  async function stockFork(options) {
    const child = stock.fork(fixture('upgraded.js'), { ...options, execArgv: [] });
    await ask(child, 'first');
    return child;
  }
});

test('without a descriptor to spare the bytes go through the socket', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const fs = require('node:fs');
    const child = fork(${JSON.stringify(fixture('upgraded.js'))}, {
      execArgv: ${JSON.stringify(REGISTER)}, serialization: 'advanced',
    });
    child.once('message', () => {
      const held = [];
      try {
        for (;;) held.push(fs.openSync('/dev/null'));
      } catch {}
      child.send({ bytes: Buffer.alloc(${SIZE}, 5) });
      held.forEach((fd) => fs.closeSync(fd));
      child.once('message', ({ bytes }) => {
        console.log(bytes.length, bytes.every((byte) => byte === 5));
        child.disconnect();
      });
    });
    child.send('first');
  `;
  const { stdout } = await runNode(['-e', `process.setMaxListeners(0);${script}`]);
  expect(stdout).toBe(`${SIZE} true\n`);
});

test('mappings end when the messages are collected', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const fs = require('node:fs');
    const files = () => fs.readFileSync('/proc/self/maps', 'utf8').split('memfd:brood').length - 1;
    const child = fork(${JSON.stringify(fixture('upgraded.js'))}, {
      execArgv: ${JSON.stringify(REGISTER)}, serialization: 'advanced',
    });
    let left = 50, most = 0;
    child.on('message', (message) => {
      most = Math.max(most, files());
      if (--left > 0) return void child.send({ bytes: Buffer.alloc(${SIZE}) });
      child.disconnect();
      const look = () => {
        gc();
        if (files() > 0) setTimeout(look, 10);
        else console.log(most > 0, 'all gone');
      };
      look();
    });
    child.send('first');
  `;
  const { stdout } = await runNode(['--expose-gc', '-e', script]);
  expect(stdout).toBe('true all gone\n');
});

test('stock Node on either side is sent the bytes themselves', async () => {
  const child = stock.fork(fixture('upgraded.js'), {
    execArgv: REGISTER,
    serialization: 'advanced',
  });
  const bytes = filled(Buffer.alloc(SIZE));
  const reply = once(child, 'message');
  child.send({ bytes });
  expect(same((await reply)[0].bytes, bytes)).toBe(true);
  child.disconnect();
  await once(child, 'exit');
});
