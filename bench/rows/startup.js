'use strict';

// S15 and S16. What brood costs before it does anything.

const path = require('node:path');
const { once } = require('node:events');
const { median } = require('../statistics');
const { both, microsecondsSince, now } = require('./both');

const CHILD = path.join(__dirname, '..', 'children', 'echo.js');

async function forkToFirstMessage({ childProcess, quick }) {
  const times = [];
  for (let i = 0; i < (quick ? 5 : 20); i++) {
    const start = now();
    const child = childProcess.fork(CHILD, ['greet'], { execArgv: [] });
    await once(child, 'message');
    times.push(microsecondsSince(start) / 1000);
    child.kill('SIGKILL');
    await once(child, 'exit');
  }
  return { time: median(times) };
}

function requireCost({ brood, broodPath }) {
  const memory = process.memoryUsage.rss();
  const start = now();
  for (const name of ['child_process', 'cluster', 'net', 'dgram']) require(`node:${name}`);
  if (brood) require(broodPath);
  const time = microsecondsSince(start) / 1000;
  return { time, memory: (process.memoryUsage.rss() - memory) / 2 ** 20 };
}

module.exports = [
  {
    id: 'S15',
    contestants: both(forkToFirstMessage),
    comparisons: [
      {
        id: 'S15',
        work: 'fork() of a stock child to its first message',
        figure: 'time',
        unit: 'ms',
        better: 'less',
        target: 'no worse',
        reached: ({ ratio }) => ratio <= 1.02,
      },
    ],
  },
  {
    id: 'S16',
    contestants: both(requireCost),
    comparisons: [
      {
        id: 'S16',
        work: "require('brood') over child_process, cluster, net, dgram",
        figure: 'time',
        unit: 'ms',
        better: 'less',
        target: 'at most 3 ms more',
        reached: ({ difference }) => difference <= 3,
      },
      {
        id: 'S16',
        work: 'its memory',
        figure: 'memory',
        unit: 'MB',
        better: 'less',
        target: 'at most 2 MB more',
        reached: ({ difference }) => difference <= 2,
      },
    ],
  },
];
