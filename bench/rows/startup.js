'use strict';

// What brood costs before it does anything.

const path = require('node:path');
const { once } = require('node:events');

const CHILD = path.join(__dirname, '..', 'children', 'echo.js');

async function forkToFirstMessage(cp, quick) {
  const times = [];
  for (let i = 0; i < (quick ? 5 : 20); i++) {
    const start = process.hrtime.bigint();
    const child = cp.fork(CHILD, ['greet'], { execArgv: [] });
    await once(child, 'message');
    times.push(Number(process.hrtime.bigint() - start) / 1e6);
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  return { time: times.toSorted((a, b) => a - b)[times.length >> 1] };
}

function requireCost(moduleName) {
  const memory = process.memoryUsage.rss();
  const start = process.hrtime.bigint();
  for (const name of ['child_process', 'cluster', 'net', 'dgram']) require(`node:${name}`);
  const stock = moduleName === 'node:child_process';
  if (!stock) require(moduleName);
  const time = Number(process.hrtime.bigint() - start) / 1e6;
  return { time, memory: (process.memoryUsage.rss() - memory) / 2 ** 20 };
}

module.exports = [
  {
    id: 'S15',
    title: 'fork() of a stock child to its first message',
    target: 'no worse',
    figures: { time: 'ms' },
    measure: forkToFirstMessage,
  },
  {
    id: 'S16',
    title: "require('brood') over child_process, cluster, net and dgram",
    target: 'at most 3 ms and 2 MB more',
    figures: { time: 'ms', memory: 'MB' },
    loads: 'itself',
    measure: (moduleName) => requireCost(moduleName),
  },
];
