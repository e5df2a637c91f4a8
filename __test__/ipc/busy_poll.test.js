'use strict';
// Busy polling changes when messages are seen, and nothing else.

const { fork } = require('../..');
const { REGISTER, ask, end } = require('../helpers/conversation');
const { ROOT, fixture, runNode } = require('../helpers/run');
const { expectNoLeaks } = require('../helpers/leaks');

test.each([
  ['a stock child', []],
  ['a child with brood', REGISTER],
])('a conversation with %s is what it is without', async (_, execArgv) => {
  await expectNoLeaks(async () => {
    const child = fork(fixture('echo.js'), { execArgv, busyPoll: 200 });
    for (let i = 0; i < 500; i++) expect(await ask(child, i)).toBe(i);
    child.channel.busyPoll(0);
    expect(await ask(child, 'still')).toBe('still');
    await end(child);
  });
});

test('both sides may, with two children at a time, and order is kept', async () => {
  const source = `
    process.channel.busyPoll(100);
    process.on('message', (message) => process.send(message));
  `;
  const options = { execPath: process.execPath, execArgv: REGISTER, busyPoll: 100 };
  const children = [0, 1].map(() => fork('-e', [source], options));
  const talks = children.map(async (child) => {
    const got = [];
    const all = new Promise((resolve) => {
      child.on('message', (n) => got.push(n) === 5000 && resolve());
    });
    for (let n = 0; n < 5000; n++) child.send(n);
    await all;
    expect(got).toEqual(Array.from({ length: 5000 }, (_, n) => n));
    await end(child);
  });
  await Promise.all(talks);
});

test('timers, immediates and other descriptors have their turn meanwhile', async () => {
  const child = fork(fixture('echo.js'), { execArgv: REGISTER, busyPoll: 1_000_000 });
  let going = true;
  const talk = (async () => {
    while (going) await ask(child, 'again');
  })();
  for (let i = 0; i < 20; i++) {
    await new Promise((resolve) => setTimeout(resolve, 1));
    await new Promise((resolve) => setImmediate(resolve));
    await require('node:fs').promises.stat('/');
  }
  going = false;
  await talk;
  await end(child);
});

test('a process that has nothing else to do ends, and so does a thread', async () => {
  const script = `
    const { fork } = require(${JSON.stringify(ROOT)});
    const child = fork(${JSON.stringify(fixture('echo.js'))}, { execArgv: [], busyPoll: 1000 });
    child.once('message', () => {
      child.channel.unref();
      child.unref();
      console.log('done');
    });
    child.send('x');
  `;
  const { stdout, code } = await runNode(['-e', script]);
  expect([stdout, code]).toEqual(['done\n', 0]);
  const thread = `
    const { Worker } = require('node:worker_threads');
    new Worker(${JSON.stringify(script)}, { eval: true }).on('exit', (code) => console.log(code));
  `;
  expect((await runNode(['-e', thread])).stdout).toBe('done\n0\n');
});

test.each([['1'], [-1], [1e7], [NaN]])('busyPoll: %p is refused', (busyPoll) => {
  expect(() => fork(fixture('echo.js'), { busyPoll })).toThrow(
    expect.objectContaining({
      code: expect.stringMatching(/ERR_OUT_OF_RANGE|ERR_INVALID_ARG_TYPE/),
    }),
  );
});
