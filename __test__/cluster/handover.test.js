'use strict';
// From the dispatcher through a lane to a worker, with real connections: whatever happens to a
// worker, every request is answered, by one worker, unless it had read of it before it died.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const net = require('node:net');
const readline = require('node:readline');

const binding = require('../../lib/binding');
const { expectNoLeaks } = require('../helpers/leaks');
const { fixture } = require('../helpers/run');

const SCHED_RR = 2;

let workers = 0;

/** A listener of the dispatcher; `close()` ends it. */
async function listen() {
  const server = net.createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  const id = binding.dispatcherListen(server._handle.fd, `127.0.0.1:${port}`, SCHED_RR, 511);
  if (id <= 0) throw new Error(`dispatcherListen: ${id}`);
  // The dispatcher has a duplicate.
  server.close();
  return { id, port, close: () => binding.dispatcherClose(id) };
}

/** A worker with a lane that does what `mode` says; not yet added to a listener. */
class Worker {
  constructor(name, mode = 'serve') {
    this.id = ++workers;
    const fd = binding.dispatcherLane(this.id);
    if (fd < 0) throw new Error(`dispatcherLane: ${fd}`);
    this.process = spawn(process.execPath, [fixture('lane-server.js'), name, mode], {
      stdio: ['pipe', 'pipe', 'inherit', fd],
    });
    fs.closeSync(fd);
    this.lines = readline.createInterface({ input: this.process.stdout })[Symbol.asyncIterator]();
  }

  async says(line) {
    expect((await this.lines.next()).value).toBe(line);
  }

  async start(listener) {
    await this.says('ready');
    expect(binding.dispatcherAdd(listener.id, this.id, 0)).toBe(0);
  }

  async kill() {
    const { process } = this;
    process.kill('SIGKILL');
    if (process.exitCode === null && process.signalCode === null) await once(process, 'exit');
    binding.dispatcherForget(this.id);
  }

  get stats() {
    const all = Array.from(binding.dispatcherStats());
    const at = all.findIndex((value, index) => index % 8 === 0 && value === this.id);
    const [, hasLane, accepted, , waiting, handedBack] = all.slice(at, at + 8);
    return { hasLane, accepted, waiting, handedBack };
  }
}

/** Resolves to what the server answers to `text`. */
async function request(listener, text) {
  const socket = net.connect(listener.port, '127.0.0.1');
  let answer = '';
  socket.setEncoding('utf8').on('data', (data) => (answer += data));
  socket.on('error', (error) => (answer += error.code));
  socket.write(text);
  await new Promise((resolve) => socket.once('close', resolve));
  return answer;
}

const requests = (listener, texts) => Promise.all(texts.map((text) => request(listener, text)));

/**
 * Sends requests, all of which `name` must answer, until `condition` holds: a worker that is slow
 * to look loses what it was offered without a word.
 */
async function servedBy(name, listener, condition) {
  const texts = Array.from({ length: 20 }, (_, i) => String(i));
  do {
    expect(await requests(listener, texts)).toEqual(texts.map((text) => `${name} got ${text}`));
  } while (!condition());
}

async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

/** Runs `story` with a listener and a function that makes workers, all ended afterwards. */
async function withListener(story) {
  await expectNoLeaks(async () => {
    const listener = await listen();
    const started = [];
    const worker = (...args) => {
      started.push(new Worker(...args));
      return started.at(-1);
    };
    try {
      await story(listener, worker);
    } finally {
      for (const one of started) await one.kill();
      listener.close();
    }
  });
}

test('requests are answered over the lane', async () => {
  await withListener(async (listener, worker) => {
    const a = worker('a');
    await a.start(listener);
    const texts = Array.from({ length: 100 }, (_, i) => String(i));
    expect(await requests(listener, texts)).toEqual(texts.map((text) => `a got ${text}`));
    // The dispatcher looks at the scoreboard from time to time.
    await until(() => a.stats.waiting === 0);
    expect(a.stats).toMatchObject({ hasLane: 1, accepted: 100, handedBack: 0 });
  });
});

test('a request nobody has read goes to another worker when the first dies with it', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a', 'hold'), worker('b')];
    await a.start(listener);
    const answer = request(listener, 'x');
    await a.says('holding');
    await b.start(listener);
    await a.kill();
    expect(await answer).toBe('b got x');
  });
});

test('a request that was read is not served again', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a', 'touch'), worker('b')];
    await a.start(listener);
    const answer = request(listener, 'x');
    await a.says('touched');
    await b.start(listener);
    await a.kill();
    expect(await answer).toBe('');
  });
});

test('requests a stopped worker has not come to go to another one, once', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a'), worker('b')];
    await a.start(listener);
    a.process.kill('SIGSTOP');
    const answers = requests(listener, ['1', '2', '3']);
    // Not all: a worker that leaves one alone for long is offered no more.
    await until(() => a.stats.waiting > 0);
    await b.start(listener);
    expect(await answers).toEqual(['b got 1', 'b got 2', 'b got 3']);
    a.process.kill('SIGCONT');
    await until(() => a.stats.waiting === 0);
    expect(a.stats.accepted).toBe(0);
  });
});

test('requests a worker declines go to another one', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a', 'decline'), worker('b')];
    await a.start(listener);
    await b.start(listener);
    await servedBy('b', listener, () => a.stats.handedBack > 0);
    expect(a.stats.accepted).toBe(0);
  });
});

test('requests for which a worker has no descriptor left go to another one', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a', 'full'), worker('b')];
    await a.start(listener);
    const silent = net.connect(listener.port, '127.0.0.1');
    await until(() => a.stats.accepted === 1);
    await b.start(listener);
    await servedBy('b', listener, () => a.stats.handedBack > 0);
    expect(a.stats.accepted).toBe(1);
    // It has room again.
    silent.end('last');
    expect(String((await once(silent, 'data'))[0])).toBe('a got last');
    await once(silent, 'close');
  });
});

test('requests that lie in a lane when its worker closes it go to another one', async () => {
  await withListener(async (listener, worker) => {
    const [a, b] = [worker('a', 'leave'), worker('b')];
    await a.start(listener);
    const first = request(listener, 'first');
    await a.says('holding');
    const answers = requests(listener, ['1', '2', '3']);
    await until(() => a.stats.waiting > 1);
    a.process.stdin.write('\n');
    expect(await first).toBe('a got first');
    await b.start(listener);
    expect(await answers).toEqual(['b got 1', 'b got 2', 'b got 3']);
  });
});
