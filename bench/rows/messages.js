'use strict';

// Messages between a parent and a stock child.

const path = require('node:path');
const { once } = require('node:events');

const CHILDREN = path.join(__dirname, '..', 'children');
const SMALL = { type: 'task', id: 12345, name: 'some name', values: [1, 2, 3], ok: true };

function forkChild(cp, name, ...args) {
  return cp.fork(path.join(CHILDREN, name), args, { execArgv: [] });
}

// As fast as the parent may: it pauses when send() says so and goes on with its callback.
async function feed(child, count) {
  let sent = 0;
  await new Promise((resolve) => {
    const more = () => {
      while (sent < count - 2) {
        sent++;
        if (child.send(SMALL)) continue;
        sent++;
        child.send(SMALL, more);
        return;
      }
      while (sent++ < count) child.send(SMALL, sent === count ? resolve : undefined);
    };
    more();
  });
}

async function toChild(cp, quick) {
  const count = quick ? 50_000 : 300_000;
  const child = forkChild(cp, 'count.js', String(count));
  await once(child, 'message');
  const start = process.hrtime.bigint();
  const done = once(child, 'message');
  await feed(child, count);
  await done;
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  child.disconnect();
  return { rate: count / seconds };
}

async function fromChild(cp, quick) {
  const count = quick ? 50_000 : 300_000;
  const child = forkChild(cp, 'flood.js', String(count));
  await once(child, 'message');
  let left = count;
  const done = new Promise((resolve) => {
    child.on('message', () => {
      if (--left === 0) resolve();
    });
  });
  const cpu = process.cpuUsage();
  const start = process.hrtime.bigint();
  child.send('go');
  await done;
  const seconds = Number(process.hrtime.bigint() - start) / 1e9;
  const used = process.cpuUsage(cpu);
  child.disconnect();
  return { rate: count / seconds, cpu: (used.user + used.system) / count };
}

async function roundTrip(cp, quick) {
  const child = forkChild(cp, 'echo.js');
  const times = [];
  for (let i = 0; i < (quick ? 2000 : 10_000); i++) {
    const start = process.hrtime.bigint();
    const reply = new Promise((resolve) => child.once('message', resolve));
    child.send(SMALL);
    await reply;
    times.push(Number(process.hrtime.bigint() - start) / 1000);
  }
  child.disconnect();
  return { time: times.toSorted((a, b) => a - b)[times.length >> 1] };
}

module.exports = [
  {
    id: 'S5',
    title: 'small JSON messages to a stock child',
    target: '3x, and 80 % of the limit',
    figures: { rate: '1/s' },
    measure: toChild,
    // The same child fed by a program without JavaScript.
    limit: {
      figure: 'rate',
      example: 'feed',
      args: (node, quick) => [node, path.join(CHILDREN, 'count.js'), quick ? '50000' : '300000'],
    },
  },
  {
    id: 'S6',
    title: 'small JSON messages from a stock child',
    target: '1.1x, half the CPU',
    figures: { rate: '1/s', cpu: 'us/message' },
    measure: fromChild,
  },
  {
    id: 'S9',
    title: 'round trip of one small message, stock child',
    target: 'no worse',
    figures: { time: 'us' },
    measure: roundTrip,
  },
];
