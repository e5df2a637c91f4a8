'use strict';
// Messages between a parent and a child: order, callbacks, return values, states, reference counts.

const { once } = require('node:events');
const net = require('node:net');
const { AsyncLocalStorage } = require('node:async_hooks');
const { fork, spawn } = require('../..');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');
const { isRunning } = require('../helpers/system');
const { unreadable } = require('../fixtures/unreadable');

async function end(child) {
  if (child.connected) child.disconnect();
  await once(child, 'close');
}

/** Sends `values` to an echoing child and resolves with what comes back. */
async function echo(values, options) {
  const child = fork(fixture('echo.js'), options);
  const received = [];
  child.on('message', (message) => {
    received.push(message);
    if (received.length === values.length) child.disconnect();
  });
  for (const value of values) child.send(value);
  await once(child, 'close');
  return received;
}

describe('a message that cannot be read is lost, and no other', () => {
  const stock = { serialization: 'advanced' };
  const brood = { ...stock, execArgv: ['-r', `${ROOT}/register.js`] };
  const kinds = [
    ['a stock child', stock],
    ['a child under register', brood],
  ];
  const forkOne = (options) => fork(fixture('unreadable.js'), options);
  const message = (child) => new Promise((resolve) => child.once('message', resolve));
  const close = (child) => new Promise((resolve) => child.once('close', resolve));

  test.each(kinds)('the parent of %s has an error event', async (_, options) => {
    const child = forkOne(options);
    const errors = [];
    child.on('error', ({ code }) => errors.push(code));
    child.send('report');
    expect(await message(child)).toEqual([]);
    await close(child);
    expect(errors).toEqual(['ERR_BROOD_IPC_MESSAGE']);
  });

  test.each(kinds)('or a warning if it does not listen, with %s', async (_, options) => {
    const script = `
      const { fork } = require(${JSON.stringify(ROOT)});
      process.on('warning', ({ code }) => console.log(code));
      const child = fork(${JSON.stringify(fixture('unreadable.js'))}, ${JSON.stringify(options)});
      child.send('report');
      child.on('message', (message) => console.log(message));`;
    const { stdout } = await runNode(['-e', script]);
    expect(stdout.split('\n').sort()).toEqual(['', 'ERR_BROOD_IPC_MESSAGE', '[]']);
  });

  test('a child has an uncaught exception, as in Node', async () => {
    const child = forkOne(brood);
    child.on('error', () => {});
    child.send(unreadable());
    child.send('report');
    expect(await message(child)).toEqual(['Unable to deserialize cloned data.']);
    await close(child);
  });

  test('its handle is closed and does not stop what is behind it', async () => {
    await expectNoLeaks(async () => {
      const server = net.createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      const child = forkOne(brood);
      child.on('error', () => {});
      child.send(unreadable(), server);
      child.send('report');
      expect(await message(child)).toHaveLength(1);
      server.close();
      await close(child);
    });
  });
});

describe.each(['json', 'advanced'])('%s', (serialization) => {
  const stock = { serialization };
  const brood = { serialization, execArgv: ['-r', `${ROOT}/register.js`] };

  test.each([
    ['a stock child', stock],
    ['a child under register', brood],
  ])('values survive the way to %s and back', async (_, options) => {
    const values = [
      '',
      'text',
      'ünïcödé \u{1F600} \u2028',
      0,
      -1.5,
      true,
      null,
      [],
      {},
      { a: [1] },
    ];
    expect(await expectNoLeaks(() => echo(values, options))).toEqual(values);
  });

  test('20 000 messages of all sizes keep their order', async () => {
    const values = Array.from({ length: 20_000 }, (_, i) => ({ i, pad: 'p'.repeat(i % 300) }));
    expect(await echo(values, stock)).toEqual(values);
  });

  test('a message of 8 MB arrives whole', async () => {
    const values = ['é'.repeat(4 << 20)];
    expect(await echo(values, stock)).toEqual(values);
  });
});

test('advanced carries what JSON cannot', async () => {
  const values = [new Map([[1, new Set([2])]]), new Date(0), { big: 10n }, Buffer.from('bytes')];
  const received = await echo(values, { serialization: 'advanced' });
  expect(received).toEqual(values);
  expect(Buffer.isBuffer(received[3])).toBe(true);
});

test('callbacks come in order, each with null, after send() has returned', async () => {
  const child = fork(fixture('echo.js'));
  const order = [];
  const last = new Promise((resolve) => {
    for (let i = 0; i < 5; i++) {
      child.send(i, (error) => {
        order.push([i, error]);
        if (i === 4) resolve();
      });
    }
  });
  expect(order).toEqual([]);
  await last;
  expect(order).toEqual([0, 1, 2, 3, 4].map((i) => [i, null]));
  await end(child);
});

test('callbacks come in order also when a turn sends more than is gathered', async () => {
  const child = fork(fixture('echo.js'));
  child.send('first');
  await once(child, 'message');
  const order = [];
  await new Promise((resolve) => {
    for (let i = 0; i < 6; i++) {
      child.send('x'.repeat(20_000), () => order.push(i) === 6 && resolve());
    }
  });
  expect(order).toEqual([0, 1, 2, 3, 4, 5]);
  await end(child);
});

test('send() returns false once 128 KiB are queued, and drain follows', async () => {
  const child = fork(fixture('echo.js'), { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
  child.kill('SIGSTOP');
  let sent = 0;
  while (child.send('x'.repeat(10_000))) sent++;
  expect(sent).toBeGreaterThan(10);
  const drained = once(child, 'drain');
  child.kill('SIGCONT');
  await drained;
  await end(child);
});

test('sendAsync() resolves when the message is with the kernel and rejects on a closed channel', async () => {
  const child = fork(fixture('echo.js'));
  const reply = once(child, 'message');
  await expect(child.sendAsync({ hello: 1 })).resolves.toBeUndefined();
  expect((await reply)[0]).toEqual({ hello: 1 });
  await end(child);
  await expect(child.sendAsync('late')).rejects.toMatchObject({ code: 'ERR_IPC_CHANNEL_CLOSED' });
});

test('sendAsync() settles whatever its options are', async () => {
  const child = spawn('true', [], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
  // It is not seen yet that nobody is there any more.
  while (isRunning(child.pid));
  const sent = child.sendAsync('x', undefined, { swallowErrors: true });
  await expect(sent).rejects.toMatchObject({ code: 'EPIPE', syscall: 'write' });
});

test('sendAsync() takes no callback, which nothing would settle the promise with', async () => {
  const child = fork(fixture('echo.js'));
  const attempts = [() => {}, undefined].map((handle) => child.sendAsync('x', handle, () => {}));
  await expect(attempts[0]).rejects.toMatchObject({ code: 'ERR_INVALID_HANDLE_TYPE' });
  await expect(attempts[1]).rejects.toMatchObject({ code: 'ERR_INVALID_ARG_TYPE' });
  const reply = once(child, 'message');
  await child.sendAsync('first');
  expect((await reply)[0]).toBe('first');
  await end(child);
});

test('a message without a JSON form is refused, and the channel goes on', async () => {
  const child = fork(fixture('echo.js'));
  const refused = expect.objectContaining({ code: 'ERR_INVALID_ARG_VALUE' });
  expect(() => child.send({ toJSON: () => undefined })).toThrow(refused);
  const reply = once(child, 'message');
  child.send('fine');
  expect((await reply)[0]).toBe('fine');
  await end(child);
});

test('what was sent before disconnect() arrives, however much it is', async () => {
  const child = fork(fixture('collect.js'), { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (chunk) => (text += chunk));
  for (let i = 0; i < 100; i++) child.send('m'.repeat(20_000));
  child.disconnect();
  await once(child, 'close');
  expect(JSON.parse(text)).toHaveLength(100);
});

test('messages that come before anybody listens are kept for the first listener', async () => {
  const child = fork(fixture('echo.js'));
  child.send('early');
  await once(child, 'internalMessage-never', { signal: AbortSignal.timeout(300) }).catch(() => {});
  const [message] = await once(child, 'message');
  expect(message).toBe('early');
  await end(child);
});

test('a NODE_ command is an internalMessage and no message', async () => {
  const child = fork(fixture('echo.js'), { execArgv: ['-r', `${ROOT}/register.js`] });
  const messages = [];
  child.on('message', (message) => messages.push(message));
  const script = { cmd: 'NODE_UNHEARD_OF', data: 1 };
  const parent = spawn(
    process.execPath,
    ['-e', `process.send(${JSON.stringify(script)}); process.disconnect()`],
    { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] },
  );
  parent.on('message', (message) => messages.push(message));
  const [internal] = await once(parent, 'internalMessage');
  await once(parent, 'close');
  await end(child);
  expect(internal).toEqual(script);
  expect(messages).toEqual([]);
});

test('three sends reach the child although the parent then blocks for a second', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const child = fork(${JSON.stringify(fixture('stamp.js'))});
    child.once('message', () => {
      const start = Date.now();
      for (let i = 0; i < 3; i++) child.send(i);
      while (Date.now() - start < 1000);
      child.on('message', ({ at }) => {
        console.log(at - start);
        child.disconnect();
      });
    });
  `;
  const { stdout } = await runNode(['-e', script]);
  expect(Number(stdout)).toBeLessThan(500);
});

test('callbacks and events run in the async context of whoever made the child', async () => {
  const storage = new AsyncLocalStorage();
  const seen = await storage.run('mine', async () => {
    const child = fork(fixture('echo.js'));
    const stores = [];
    child.on('message', () => stores.push(storage.getStore()));
    child.on('exit', () => stores.push(storage.getStore()));
    child.send(1, () => stores.push(storage.getStore()));
    await once(child, 'message');
    await end(child);
    return stores;
  });
  expect(seen).toEqual(['mine', 'mine', 'mine']);
});

describe('the callback of a send() runs in the async context of that send(),', () => {
  const storage = new AsyncLocalStorage();

  /** Sends each text in a context of its own; resolves with the contexts of the callbacks. */
  function contextsOf(target, texts) {
    const sent = texts.map(
      (text, i) =>
        new Promise((resolve) => {
          const tell = (error) => resolve([storage.getStore(), error?.code ?? null]);
          storage.run(i, () => target.send(text, tell));
        }),
    );
    return Promise.all(sent);
  }

  const each = (texts, code) => texts.map((_, i) => [i, code]);

  test('of several in one turn', async () => {
    const child = fork(fixture('echo.js'));
    const texts = ['a', 'b', 'c', 'd'];
    expect(await contextsOf(child, texts)).toEqual(each(texts, null));
    await end(child);
  });

  test('when the queue is full', async () => {
    const child = fork(fixture('echo.js'));
    await once(child, 'spawn');
    child.kill('SIGSTOP');
    const texts = Array.from({ length: 5 }, () => 'x'.repeat(300_000));
    const contexts = contextsOf(child, texts);
    child.kill('SIGCONT');
    expect(await contexts).toEqual(each(texts, null));
    await end(child);
  });

  test('when the channel is gone before', async () => {
    const child = fork(fixture('echo.js'));
    await once(child, 'spawn');
    child.kill('SIGSTOP');
    const texts = Array.from({ length: 5 }, () => 'x'.repeat(1 << 20));
    const contexts = contextsOf(child, texts);
    const closed = once(child, 'close');
    child.kill('SIGKILL');
    const got = await contexts;
    expect(got.map(([context]) => context)).toEqual([0, 1, 2, 3, 4]);
    expect(got.at(-1)[1]).toBe('ERR_IPC_CHANNEL_CLOSED');
    await closed;
  });

  test('in a child', async () => {
    const script = `
      const { AsyncLocalStorage } = require('node:async_hooks');
      const storage = new AsyncLocalStorage();
      const seen = [];
      for (let i = 0; i < 4; i++) {
        storage.run(i, () => process.send('message', () => {
          seen.push(storage.getStore());
          if (seen.length === 4) process.send(seen, () => process.disconnect());
        }));
      }`;
    const args = ['-r', `${ROOT}/register.js`, '-e', script];
    const child = spawn(process.execPath, args, { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] });
    const messages = [];
    child.on('message', (message) => messages.push(message));
    await once(child, 'close');
    expect(messages.at(-1)).toEqual([0, 1, 2, 3]);
  });
});

test('an unreferenced channel lets the parent end', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const child = fork(${JSON.stringify(fixture('echo.js'))}, { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    child.unref();
    child.channel.unref();
  `;
  expect((await runNode(['-e', script])).code).toBe(0);
});

test('it works in a worker thread, also when the thread is terminated with children alive', async () => {
  const { stdout, code, stderr } = await runNode([fixture('thread.js')]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(stdout).toBe('through the thread\nterminated\n');
});
