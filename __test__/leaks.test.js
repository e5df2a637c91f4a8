'use strict';
// The leak oracle itself: it must see what is left behind, and only that.

const { spawn } = require('node:child_process');
const { once } = require('node:events');
const fs = require('node:fs');

const { difference, expectNoLeaks, settle, takeStock } = require('./helpers/leaks');

test('work that gives everything back passes, and its result is returned', async () => {
  const result = await expectNoLeaks(async () => {
    const fd = fs.openSync('/dev/null');
    const child = spawn('true');
    await once(child, 'close');
    fs.closeSync(fd);
    return 'done';
  });
  expect(result).toBe('done');
});

test('a descriptor left open is reported', () => {
  const before = takeStock();
  const fd = fs.openSync('/dev/null');
  const differs = difference(before, takeStock());
  fs.closeSync(fd);
  expect(differs).toEqual([`descriptor opened: ${fd} (/dev/null)`]);
});

test('a process left running is reported, even one that has left its parent', async () => {
  const before = takeStock();
  const shell = spawn('sh', ['-c', 'setsid sleep 60 & echo $!'], {
    stdio: ['ignore', 'pipe', 'ignore'],
  });
  const [text] = await once(shell.stdout.setEncoding('utf8'), 'data');
  await once(shell, 'exit');
  const pid = Number(text);
  try {
    const left = [...takeStock().processes.keys()];
    expect(left.filter((one) => !before.processes.has(one))).toContain(pid);
  } finally {
    process.kill(pid, 'SIGKILL');
  }
  await once(shell, 'close');
  expect(await settle(before)).toEqual([]);
});
