'use strict';
// What was sent before the end of a process arrives, whatever ended it.

const { once } = require('node:events');
const { fork } = require('../..');
const { ROOT, fixture, runNode } = require('../helpers/run');

const REGISTER = `${ROOT}/register.js`;

test.each(['exit', 'throw', 'disconnect'])(
  'all 10 000 messages of a child arrive when it ends by %s right after sending',
  async (how) => {
    const child = fork(fixture('exit-after-sends.js'), [how], {
      execArgv: ['-r', REGISTER],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const received = [];
    child.on('message', ({ i }) => received.push(i));
    await once(child, 'close');
    expect(received).toEqual(Array.from({ length: 10_000 }, (_, i) => i));
  },
);

test('all 10 000 messages of a parent arrive when it calls process.exit() after sending', async () => {
  const { stdout, code } = await runNode([fixture('parent-exits.js')]);
  expect(code).toBe(0);
  expect(JSON.parse(stdout)).toEqual(Array.from({ length: 10_000 }, (_, i) => i));
});

const ENDS = { SIGKILL: 'SIGKILL', SIGTERM: 'SIGTERM', abort: 'SIGABRT' };
if (process.execve) ENDS.execve = null;

test.each(Object.entries(ENDS))(
  'all messages of a child arrive when it ends itself by %s in the turn it sent them in',
  async (how, signal) => {
    const child = fork(fixture('kills-itself-after-sends.js'), [how], {
      execArgv: ['-r', REGISTER],
      limits: { core: 0 },
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    });
    const received = [];
    child.on('message', ({ i }) => received.push(i));
    expect((await once(child, 'close'))[1]).toBe(signal);
    expect(received).toEqual(Array.from({ length: 10 }, (_, i) => i));
  },
);

test.each(['child.kill', 'process.kill', 'killTree'])(
  'what was sent before %s is written before the signal',
  async (way) => {
    const { stdout } = await runNode([fixture('signals-after-sends.js'), way]);
    expect(stdout).toBe('written, end of the turn\n');
  },
);

test("process.kill() and process.abort() look like Node's", async () => {
  const script = `
    const shape = () => ['_kill', 'abort'].map((name) => {
      const { value, ...flags } = Object.getOwnPropertyDescriptor(process, name);
      return [value.name, value.length, flags, 'prototype' in value];
    });
    const [kill, before] = [process.kill, JSON.stringify(shape())];
    require(${JSON.stringify(ROOT)}).fork(${JSON.stringify(fixture('echo.js'))}).kill();
    console.log(process.kill === kill, JSON.stringify(shape()) === before, process.kill(process.pid, 0));
  `;
  expect((await runNode(['-e', script])).stdout).toBe('true true true\n');
});

test('messages a peer does not read within the bound are counted on stderr', async () => {
  const script = `
    const { spawn } = require(${JSON.stringify(ROOT)});
    const child = spawn('sleep', ['2'], { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] });
    for (let i = 0; i < 100; i++) child.send('x'.repeat(100_000));
    console.log(child.pid);
    process.exit(0);
  `;
  const { stdout, stderr, code } = await runNode(['-e', script]);
  process.kill(Number(stdout), 'SIGKILL');
  expect(code).toBe(0);
  expect(stderr).toMatch(/brood: \d+ IPC messages were not sent before the process ended/);
});
