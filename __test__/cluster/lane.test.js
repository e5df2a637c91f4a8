'use strict';
// The worker's end of a lane: connections come in batches, each is taken or goes back, whatever
// JavaScript does and however the process ends; and a primary that lies ends the lane, not more.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const readline = require('node:readline');

const binding = require('../../lib/binding');
const { expectNoLeaks } = require('../helpers/leaks');
const { fixture, runNode } = require('../helpers/run');

const PRIMARY = fs.readFileSync(path.join(__dirname, '..', 'helpers', 'lane.py'), 'utf8');
const { EAGAIN, EBADF, EINVAL, ENOTSOCK } = os.constants.errno;
const [OFFERED, CLAIMED, TAKEN, DECLINED, REVOKED, VOID, LACKING] = [1, 2, 3, 4, 5, 6, 7];
const PERMIT = -1;

/** What a process says, line by line. */
class Lines {
  constructor(stream) {
    this.lines = readline.createInterface({ input: stream })[Symbol.asyncIterator]();
  }

  async next() {
    const { value, done } = await this.lines.next();
    if (done) throw new Error('it said nothing more');
    return value;
  }
}

/** A primary that does what `story`, in Python, says; `fd` is the worker's end of its lane. */
class Primary {
  constructor(story) {
    const stdio = ['pipe', 'pipe', 'inherit', 'pipe'];
    this.child = spawn('python3', ['-c', `${PRIMARY}\n${story}`], { stdio });
    const end = this.child.stdio[3];
    this.fd = binding.duplicateDescriptor(end._handle.fd);
    end.destroy();
    this.lines = new Lines(this.child.stdout);
  }

  /** The next value it says. */
  async says() {
    return JSON.parse(await this.lines.next());
  }

  /** Lets it go on where it waits for a line of input. */
  goOn() {
    this.child.stdin.write('\n');
  }

  /** Resolves when it has come to the end of its story. */
  async ended() {
    this.child.stdin.end();
    if (this.child.exitCode === null) await once(this.child, 'exit');
    if (this.child.exitCode !== 0) throw new Error(`the primary ended with ${this.child.exitCode}`);
  }
}

/** A lane of this process; `onBatch(connections, lane)` gets [{listener, token, fd}]. */
class Lane {
  constructor(primary, onBatch) {
    this.onBatch = onBatch;
    this.ended = new Promise((resolve) => (this.onEnd = resolve));
    this.id = binding.laneOpen(this, primary.fd);
    if (this.id < 0) throw new Error(`laneOpen: ${this.id}`);
  }
}

beforeAll(() => {
  binding.setLaneCallback(function (batch, reason) {
    if (batch === null) return this.onEnd(reason);
    const connections = [];
    for (let i = 0; i < batch.length; i += 3) {
      connections.push({ listener: batch[i], token: batch[i + 1], fd: batch[i + 2] });
    }
    return this.onBatch(connections, this);
  });
});

const closeFds = (fds) => fds.forEach((fd) => fs.closeSync(fd));
const closeAll = (connections) => closeFds(connections.map(({ fd }) => fd));
const unexpected = (connections) => {
  throw new Error(`unexpected: ${JSON.stringify(connections)}`);
};

test('each connection comes with its listener and its own descriptor, and is taken', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
readers = hand_over(7, -2, 3) + hand_over(8, 1, 1)
wait_until(lambda: word(1) == 1)
say([text(reader) for reader in readers])
say([states(-2, 4), word(4), word(5)])
`);
    const lane = new Lane(primary, (connections) => {
      for (const { listener, token, fd } of connections) fs.writeSync(fd, `${listener}:${token}`);
      closeAll(connections);
    });
    expect(await primary.says()).toEqual(['7:4294967294', '7:4294967295', '7:0', '8:1']);
    expect(await primary.says()).toEqual([[TAKEN, TAKEN, TAKEN, TAKEN], 0, 4]);
    expect(await lane.ended).toBe(undefined);
    await primary.ended();
  });
});

test('what is declined goes back, once, and only while its batch is handed over', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
hand_over(1, 0, 3)
wait_until(lambda: word(1) == 2)
say([states(0, 3), word(4), word(5)])
`);
    const results = [];
    const lane = new Lane(primary, (connections, { id }) => {
      results.push(binding.laneDecline(id, 1), binding.laneDecline(id, 1));
      results.push(binding.laneDecline(id, 3), binding.laneDecline(id + 1, 0));
      closeAll(connections);
    });
    expect(await primary.says()).toEqual([[TAKEN, DECLINED, TAKEN], 1, 2]);
    expect(results).toEqual([0, -EINVAL, -EINVAL, -EINVAL]);
    expect(binding.laneDecline(lane.id, 2)).toBe(-EINVAL);
    await lane.ended;
    await primary.ended();
  });
});

test('what was revoked, or never offered, is closed and not handed over', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
revoked = hand_over(1, 0, 2, REVOKED) + hand_over(1, 2, 1, TAKEN) + hand_over(1, 3, 1, 0)
hand_over(1, 4, 1)
say([text(reader) for reader in revoked])
wait_until(lambda: word(1) == 4)
say(states(0, 5))
`);
    const tokens = [];
    const lane = new Lane(primary, (connections) => {
      tokens.push(...connections.map(({ token }) => token));
      closeAll(connections);
    });
    expect(await primary.says()).toEqual(['', '', '', '']);
    expect(await primary.says()).toEqual([5, 5, TAKEN, 0, TAKEN]);
    expect(tokens).toEqual([4]);
    await lane.ended;
    await primary.ended();
  });
});

/** A lane on which the connections of listener 7 are expected; the primary goes on then. */
function laneOf(primary, onBatch) {
  const lane = new Lane(primary, onBatch);
  binding.laneExpect(lane.id, 7);
  primary.goOn();
  return lane;
}

/** Accepts all that `permitted`, an entry of a batch, lets; returns the descriptors. */
function acceptAll({ id }, { listener }) {
  const accepted = [];
  for (;;) {
    const fd = binding.laneAccept(id, listener);
    if (fd < 0) return accepted;
    accepted.push(fd);
  }
}

test('with each permit one connection is accepted, and what is left is kept', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
input()
send_board()
server, clients = listen(7, 2)
permit(7, 0, 4)
wait_until(lambda: word(1) == 3)
say([states(0, 4), word(4), word(5)])
clients += [socket.create_connection(server.getsockname())]
wait_until(lambda: word(5) == 3)
say([client.recv(100).decode() for client in clients])
say([states(0, 4), word(4), word(5)])
`);
    const batches = [];
    const lane = laneOf(primary, (batch, self) => {
      batches.push(batch);
      for (const fd of acceptAll(self, batch[0])) {
        fs.writeSync(fd, 'yes');
        fs.closeSync(fd);
      }
    });
    expect(await primary.says()).toEqual([[TAKEN, TAKEN, OFFERED, OFFERED], 0, 2]);
    expect(await primary.says()).toEqual(['yes', 'yes', 'yes']);
    expect(await primary.says()).toEqual([[TAKEN, TAKEN, TAKEN, OFFERED], 0, 3]);
    const permitted = [{ listener: 7, token: 0, fd: PERMIT }];
    expect(batches).toEqual([permitted, permitted]);
    await lane.ended;
    await primary.ended();
  });
});

test('a permit that was taken back is worth nothing, and nobody waits for it', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
input()
send_board()
server, clients = listen(7, 0)
permit(7, 0, 3)
wait_until(lambda: word(1) == 2)
beat = word(6)
for i in range(3):
    slot(i, REVOKED)
clients = [socket.create_connection(server.getsockname())]
wait_until(lambda: word(6) != beat)
say('it has looked')
input()
beat = word(6)
clients += [socket.create_connection(server.getsockname())]
say('there is another')
input()
say([states(0, 3), word(6) - beat])
server.accept(), server.accept()
say('the others are there')
`);
    const accepted = [];
    const lane = laneOf(primary, (batch, self) => accepted.push(...acceptAll(self, batch[0])));
    expect(await primary.says()).toBe('it has looked');
    primary.goOn();
    expect(await primary.says()).toBe('there is another');
    await new Promise(setImmediate);
    primary.goOn();
    expect(await primary.says()).toEqual([[REVOKED, REVOKED, REVOKED], 0]);
    expect(await primary.says()).toBe('the others are there');
    expect(accepted).toEqual([]);
    await lane.ended;
    await primary.ended();
  });
});

test('permits that are refused go back, and one of them says why', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
input()
send_board()
server, clients = listen(7, 2)
permit(7, 0, 3)
wait_until(lambda: word(1) == 2)
say([states(0, 3), word(4), word(5)])
`);
    const results = [];
    const lane = laneOf(primary, (_, { id }) => {
      fs.closeSync(binding.laneAccept(id, 7));
      binding.laneRefuse(id, 7);
      results.push(binding.laneAccept(id, 7));
    });
    expect(await primary.says()).toEqual([[TAKEN, DECLINED, VOID], 1, 1]);
    expect(results).toEqual([-EAGAIN]);
    await lane.ended;
    await primary.ended();
  });
});

test('a listening socket that is shut down gives its permits back', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
input()
send_board()
server, clients = listen(7, 0)
permit(7, 0, 3)
wait_until(lambda: word(1) == 2)
server.shutdown(socket.SHUT_RDWR)
wait_until(lambda: DECLINED in states(0, 3))
say(states(0, 3))
`);
    const lane = laneOf(primary, (batch, self) => expect(acceptAll(self, batch[0])).toEqual([]));
    expect(await primary.says()).toEqual([DECLINED, VOID, VOID]);
    await lane.ended;
    await primary.ended();
  });
});

test('a listening socket is kept only while it is expected', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
input()
send_board()
address = listen(7, 1)[0].getsockname()
permit(7, 5, 2)
wait_until(lambda: word(1) == 6)
say(states(5, 2))
input()
wait_until(lambda: states(6, 1) == [VOID])
try:
    socket.create_connection(address)
except ConnectionRefusedError:
    say('nobody listens')
listen(7, 0)
permit(7, 7, 1)
wait_until(lambda: word(1) == 7)
say(states(7, 1))
`);
    const lane = laneOf(primary, (batch, self) => closeFds(acceptAll(self, batch[0])));
    expect(await primary.says()).toEqual([TAKEN, OFFERED]);
    binding.laneForget(lane.id, 7);
    primary.goOn();
    expect(await primary.says()).toBe('nobody listens');
    expect(await primary.says()).toEqual([LACKING]);
    await lane.ended;
    await primary.ended();
  });
});

test('a flood comes in bounded batches, and the loop turns between them', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
for i in range(4):
    hand_over(1, 64 * i, 64)
say('sent')
wait_until(lambda: word(5) == 256)
`);
    expect(await primary.says()).toBe('sent');
    const events = [];
    const lane = new Lane(primary, (connections) => {
      events.push(connections.length);
      setImmediate(() => events.push('turn'));
      closeAll(connections);
    });
    await lane.ended;
    expect(events).toEqual([64, 'turn', 64, 'turn', 64, 'turn', 64, 'turn']);
    await primary.ended();
  });
});

test('the load this process reports is on the board', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
hand_over(1, 0, 1)
wait_until(lambda: word(1) == 0 and word(5) == 1)
input()
say([word(2), word(3)])
input()
say([word(2), word(3)])
`);
    const lane = new Lane(primary, closeAll);
    // The board has come once the connection has.
    await new Promise((resolve) => (lane.onBatch = (got) => resolve(closeAll(got))));
    binding.laneReport(lane.id, 70_000, 250);
    primary.goOn();
    expect(await primary.says()).toEqual([70_000, 250]);
    binding.laneReport(lane.id, 0, 5000);
    primary.goOn();
    expect(await primary.says()).toEqual([0, 1000]);
    await lane.ended;
    await primary.ended();
  });
});

test('a lane closed by its owner is silent, and what lies in it stays the primary’s', async () => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`
send_board()
readers = [hand_over(1, 64 * i, 64) for i in range(2)]
say('sent')
wait_for_the_end()
say([states(0, 1), states(63, 2)])
`);
    expect(await primary.says()).toBe('sent');
    let calls = 0;
    const lane = new Lane(primary, (connections, { id }) => {
      calls++;
      binding.laneClose(id);
      binding.laneClose(id);
      closeAll(connections);
    });
    lane.onEnd = unexpected;
    expect(await primary.says()).toEqual([[TAKEN], [TAKEN, OFFERED]]);
    expect(calls).toBe(1);
    await primary.ended();
  });
});

test.each([
  ['speaks another language', `lane.send(b'GET / HTTP/1.1\\r\\n')`, /unknown kind/],
  ['says half a sentence', `lane.send(b'abc')`, /a message of 3 bytes instead of 16/],
  ['sends connections before the board', `hand_over(1, 0, 1)`, /before the scoreboard/],
  ['permits before the board', `permit(1, 0, 1)`, /before the scoreboard/],
  ['permits too much', `send_board()\nsend(PERMITS, 1, 0, 65, [])`, /announces 65/],
  [
    'sends no listening socket where it says so',
    `send_board()\nsend(LISTENER, 1, 0, 1, [])`,
    /sent 0 descriptors and announced 1/,
  ],
  ['sends the board twice', `send_board()\nsend_board()`, /a second scoreboard/],
  [
    'announces what it does not send',
    `send_board()\nsend(CONNECTIONS, 1, 0, 2, [1])`,
    /sent 1 descriptors and announced 2/,
  ],
  [
    'sends what it does not announce',
    `send_board()\nsend(CONNECTIONS, 1, 0, 1, [1] * 250)`,
    /sent 250 descriptors and announced 1/,
  ],
  ['announces too many', `send_board()\nsend(CONNECTIONS, 1, 0, 65, [1] * 65)`, /announces 65/],
  ['sends a file as the board', `send(BOARD, 0, 0, 1, [1])`, /cannot be opened/],
  [
    'sends a board it could cut off',
    `send(BOARD, 0, 0, 1, [memory(seals=GROW)])`,
    /cannot be opened: Operation not permitted/,
  ],
  ['sends a small board', `send(BOARD, 0, 0, 1, [memory(size=64)])`, /cannot be opened/],
  ['sends a board of another version', `word(0, 4)\nsend_board()`, /Protocol not supported/],
])('a primary that %s ends the lane', async (_, lie, reason) => {
  await expectNoLeaks(async () => {
    const primary = new Primary(`${lie}\nwait_for_the_end()`);
    const lane = new Lane(primary, unexpected);
    expect(await lane.ended).toMatch(reason);
    expect(binding.laneDecline(lane.id, 0)).toBe(-EINVAL);
    binding.laneReport(lane.id, 1, 1);
    binding.laneClose(lane.id);
    await primary.ended();
  });
});

test('what is no Unix socket is refused, and closed all the same', async () => {
  await expectNoLeaks(() => {
    expect(binding.laneOpen({}, fs.openSync('/dev/null'))).toBe(-ENOTSOCK);
    expect(binding.laneOpen({}, -1)).toBe(-EBADF);
    expect(binding.laneOpen({}, 10_000)).toBe(-EBADF);
  });
});

/** Runs lane-worker.js with a lane to a primary; returns [primary, worker, its lines]. */
function startWorker(story, ...args) {
  return start(story, [fixture('lane-worker.js'), ...args]);
}

function start(story, args) {
  const primary = new Primary(story);
  const worker = spawn(process.execPath, args, {
    stdio: ['ignore', 'pipe', 'inherit', primary.fd],
  });
  fs.closeSync(primary.fd);
  return [primary, worker, new Lines(worker.stdout)];
}

test('connections a worker was killed with are claimed and not taken', async () => {
  await expectNoLeaks(async () => {
    const story = `
send_board()
readers = hand_over(1, 0, 2)
wait_for_the_end()
say([states(0, 2), [text(reader) for reader in readers]])
`;
    const [primary, worker, lines] = startWorker(story, 'block');
    expect(await lines.next()).toBe('holding');
    worker.kill('SIGKILL');
    await once(worker, 'close');
    expect(await primary.says()).toEqual([
      [CLAIMED, CLAIMED],
      ['', ''],
    ]);
    await primary.ended();
  });
});

test('connections a worker exits with are claimed and not taken', async () => {
  await expectNoLeaks(async () => {
    const story = `
send_board()
hand_over(1, 0, 2)
wait_for_the_end()
say(states(0, 2))
`;
    const [primary, worker] = startWorker(story, 'exit');
    const [code] = await once(worker, 'exit');
    expect(code).toBe(7);
    expect(await primary.says()).toEqual([CLAIMED, CLAIMED]);
    await primary.ended();
  });
});

test('after an exception those not declined are the worker’s, and the lane goes on', async () => {
  await expectNoLeaks(async () => {
    const story = `
send_board()
for first in (0, 3):
    hand_over(1, first, 3)
    wait_until(lambda: word(5) == first // 3 * 2 + 2)
say([states(0, 6), word(4), word(5)])
`;
    const [primary, worker, lines] = startWorker(story, 'throw');
    expect(await primary.says()).toEqual([[DECLINED, TAKEN, TAKEN, DECLINED, TAKEN, TAKEN], 2, 4]);
    for (const line of ['uncaught: on purpose', 'uncaught: on purpose', 'ended']) {
      expect(await lines.next()).toBe(line);
    }
    await primary.ended();
    if (worker.exitCode === null) await once(worker, 'exit');
  });
});

test('connections for which the worker has no descriptor left go back', async () => {
  await expectNoLeaks(async () => {
    const story = `
send_board()
hand_over(1, 0, 4)
wait_until(lambda: word(1) == 3)
say([states(0, 4), word(4), word(5)])
`;
    const [primary, worker, lines] = startWorker(story, 'list', 'full');
    expect(await lines.next()).toBe('0');
    expect(await primary.says()).toEqual([[TAKEN, DECLINED, DECLINED, DECLINED], 3, 1]);
    expect(await lines.next()).toBe('ended');
    await primary.ended();
    if (worker.exitCode === null) await once(worker, 'exit');
  });
});

test('a lane keeps no process alive', async () => {
  await expectNoLeaks(async () => {
    const [primary, worker] = startWorker('wait_for_the_end()', 'list', 'idle');
    const [code] = await once(worker, 'exit');
    expect(code).toBe(0);
    await primary.ended();
  });
});

test('a thread can have a lane, too', async () => {
  await expectNoLeaks(async () => {
    const story = `
send_board()
hand_over(1, 0, 2)
wait_until(lambda: word(5) == 2)
`;
    const thread = `new (require('node:worker_threads').Worker)(
      ${JSON.stringify(fixture('lane-worker.js'))}, { argv: ['list'] })`;
    const [primary, worker, lines] = start(story, ['-e', thread]);
    expect(await lines.next()).toBe('0 1');
    expect(await lines.next()).toBe('ended');
    await primary.ended();
    if (worker.exitCode === null) await once(worker, 'exit');
    expect(worker.exitCode).toBe(0);
  });
});

test('threads that end with an open lane, in five ways, leave nothing behind', async () => {
  const { stdout, stderr, code } = await runNode([fixture('ending-lanes.js')]);
  expect(stderr).toBe('');
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual({ ended: 10, descriptors: 0 });
});
