'use strict';
// Channels that end while something is still under way: handles without acknowledgement, full
// queues on both sides, listeners that throw, threads and processes that are terminated.

const net = require('node:net');
const { once } = require('node:events');
const { fork } = require('../..');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

const REGISTER = `${ROOT}/register.js`;
const BROOD = JSON.stringify(ROOT);

async function connection() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const client = net.connect(server.address().port, '127.0.0.1');
  const [accepted] = await once(server, 'connection');
  server.close();
  return { client, accepted };
}

test.each([
  ['a stock child', []],
  ['a child under register', ['-r', REGISTER]],
])(
  'disconnect() while a gathered handle is on its way to %s comes after the acknowledgement',
  (_, execArgv) =>
    expectNoLeaks(async () => {
      const child = fork(fixture('holder.js'), { execArgv });
      const closed = once(child, 'close');
      const { client, accepted } = await connection();
      const answered = once(client, 'data');
      // The first message of a turn is written at once, the handle behind it is gathered.
      child.send('nothing');
      child.send('answer', accepted);
      process.nextTick(() => process.nextTick(() => child.disconnect()));
      client.write('hello');
      expect(String((await answered)[0])).toBe('child got hello');
      await closed;
    }),
);

describe('what a callback sends before it disconnects arrives:', () => {
  /** What a stock child has got when its channel ends. */
  async function gotOf(child) {
    const closed = once(child, 'close');
    let text = '';
    child.stdout.on('data', (data) => (text += data));
    await closed;
    return JSON.parse(text);
  }

  function collecting() {
    const source = `
      const got = [];
      process.on('message', (message, handle) => {
        got.push(message.length);
        handle?.close();
      });
      process.on('disconnect', () => console.log(JSON.stringify(got)));
    `;
    const stdio = ['ignore', 'pipe', 'inherit', 'ipc'];
    return fork('-e', [source], { execPath: process.execPath, stdio });
  }

  // More than the socket takes at once.
  const LARGE = 'x'.repeat(4 << 20);

  test('another large message', async () => {
    const child = collecting();
    child.send(LARGE, () => {
      child.send(LARGE);
      child.disconnect();
    });
    expect(await gotOf(child)).toEqual([LARGE.length, LARGE.length]);
  });

  test("the same from a listener of 'drain'", async () => {
    const child = collecting();
    const drained = [];
    child.on('drain', () => {
      if (drained.push('drain') > 1) return;
      child.send(LARGE);
      child.disconnect();
    });
    expect(child.send(LARGE)).toBe(false);
    expect(await gotOf(child)).toEqual([LARGE.length, LARGE.length]);
  });

  test('a handle, and what stands behind it', async () => {
    const server = net.createServer().listen(0, '127.0.0.1');
    await once(server, 'listening');
    const child = collecting();
    child.send(LARGE, () => {
      child.send('server', server);
      child.send('behind');
      child.disconnect();
    });
    expect(await gotOf(child)).toEqual([LARGE.length, 6, 6]);
    server.close();
  });
});

test.each(['disconnect', 'exit'])('two peers with full queues that both %s end', async (how) => {
  const script = `
      const { fork } = require(${BROOD});
      const child = fork(${JSON.stringify(fixture('flood-then.js'))}, [${JSON.stringify(how)}], {
        execArgv: ['-r', ${JSON.stringify(REGISTER)}],
        stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
      });
      child.once('message', () => {
        for (let i = 0; i < 100; i++) child.send('y'.repeat(100_000));
        if (${JSON.stringify(how)} === 'exit') process.exit(0);
        child.disconnect();
      });
    `;
  expect((await runNode(['-e', script], { limit: 10_000 })).code).toBe(0);
});

test('what listeners throw keeps neither the other messages nor the end from coming', async () => {
  const script = `
    const { fork } = require(${BROOD});
    const said = [];
    process.on('uncaughtException', (error) => said.push(error.message));
    const child = fork(${JSON.stringify(fixture('exit-after-sends.js'))}, ['disconnect']);
    child.on('message', ({ i }) => {
      if (i < 5) said.push(i);
      if (i % 2 === 0 && i < 5) throw new Error('message ' + i);
    });
    child.on('disconnect', () => { throw new Error('disconnect'); });
    child.on('close', () => console.log(JSON.stringify(said)));
  `;
  const { stdout } = await runNode(['-e', script]);
  expect(JSON.parse(stdout)).toEqual([
    0,
    'message 0',
    1,
    2,
    'message 2',
    3,
    4,
    'message 4',
    'disconnect',
  ]);
});

test('an uncaught exception in a message listener ends the process as with stock Node', async () => {
  const script = (module) => `
    const child = require(${module}).fork(${JSON.stringify(fixture('echo.js'))});
    process.on('exit', (code) => console.log('exit', code));
    child.on('message', () => { throw new Error('on purpose'); });
    child.send('hello');
  `;
  const stock = await runNode(['-e', script('"child_process"')]);
  const brood = await runNode(['-e', script(BROOD)]);
  expect(stock.code).toBe(1);
  expect([brood.code, brood.stdout]).toEqual([stock.code, stock.stdout]);
  expect(brood.stderr).toContain('Error: on purpose');
});

test('parked messages survive a listener that throws, and one that listens once', async () => {
  const script = `
    const received = [];
    process.on('uncaughtException', (error) => received.push(error.message));
    process.on('exit', () => console.log(JSON.stringify(received)));
    const take = (message) => {
      received.push(message);
      if (message === 2) throw new Error('two');
    };
    setImmediate(function listen() {
      process.once('message', take);
      if (received.length === 0) setImmediate(listen);
      else process.on('message', take);
    });
  `;
  const child = fork('-e', [script], {
    execArgv: ['-r', REGISTER],
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  let text = '';
  child.stdout.on('data', (data) => (text += data));
  for (let i = 1; i <= 4; i++) child.send(i);
  child.disconnect();
  await once(child, 'close');
  expect(JSON.parse(text)).toEqual([1, 2, 'two', 3, 4]);
});

test('drain follows when the end of the turn writes what was queued', async () => {
  // The child reads while its parent's loop is blocked, and says nothing: no readiness event is
  // left to wait for. (By brood's own framing the long text would go beside the stream.)
  const script = `
    const { fork } = require(${BROOD});
    const child = fork(${JSON.stringify(fixture('stamp.js'))}, { upgrade: false });
    child.once('message', () => setImmediate(() => {
      child.channel.unref();
      const large = child.send({ pad: 'x'.repeat(400_000) });
      child.send('small');
      child.once('drain', () => {
        console.log(large, 'drained');
        child.disconnect();
      });
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 500);
    }));
  `;
  expect((await runNode(['-e', script])).stdout).toBe('false drained\n');
});

test('messages that are lost at the exit do not abort a process whose stderr nobody reads', async () => {
  const script = `
    const { spawn } = require(${BROOD});
    const child = spawn('sleep', ['3'], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    for (let i = 0; i < 100; i++) child.send('x'.repeat(100_000));
    console.log(child.pid);
    process.exit(7);
  `;
  const onStart = (parent) => parent.stderr.destroy();
  const { code, signal, stdout } = await runNode(['-e', script], { onStart });
  process.kill(Number(stdout), 'SIGKILL');
  expect([code, signal]).toEqual([7, null]);
});

test('threads that are terminated in the middle of spawning leave no descriptors', async () => {
  const source = `
    const { spawn } = require(${BROOD});
    // The first one finds out what Node's class of pipes is.
    spawn('true');
    require('node:worker_threads').parentPort.postMessage('spawning');
    (function more() {
      for (let i = 0; i < 10; i++) spawn('true');
      setImmediate(more);
    })();
  `;
  const script = `
    const { once } = require('node:events');
    const fs = require('node:fs');
    const { Worker } = require('node:worker_threads');
    const sockets = () => {
      const links = fs.readdirSync('/proc/self/fd').map((fd) => {
        try { return fs.readlinkSync('/proc/self/fd/' + fd); } catch { return ''; }
      });
      return links.filter((link) => link.startsWith('socket:')).length;
    };
    (async () => {
      const before = sockets();
      for (let i = 0; i < 20; i++) {
        const worker = new Worker(${JSON.stringify(source)}, { eval: true });
        await once(worker, 'message');
        await worker.terminate();
      }
      console.log(sockets() - before);
    })();
  `;
  expect((await runNode(['-e', script], { limit: 28_000 })).stdout).toBe('0\n');
});

test('threads that end in the middle of traffic, in three ways, leave nothing behind', async () => {
  const { stdout, code } = await runNode([fixture('ending-threads.js')], { limit: 28_000 });
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ ended: 9, descriptors: 0 });
});
