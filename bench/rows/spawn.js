'use strict';

// Spawning: how long the event loop stands still, and how many processes a second.

const { once } = require('node:events');

const TRUE = '/bin/true';
const IGNORE = { stdio: 'ignore' };

function median(numbers) {
  return numbers.toSorted((a, b) => a - b)[numbers.length >> 1];
}

// Memory that a fork has to account for page by page.
function ballast(gigabytes) {
  return Array.from({ length: gigabytes * 8 }, () => Buffer.alloc(128 << 20, 1));
}

async function blocked(cp, count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = process.hrtime.bigint();
    const child = cp.spawn(TRUE, [], IGNORE);
    times.push(Number(process.hrtime.bigint() - start) / 1000);
    await once(child, 'exit');
  }
  return median(times);
}

async function perSecond(cp, count, parallel) {
  let left = count;
  const start = process.hrtime.bigint();
  const lane = async () => {
    while (left-- > 0) await once(cp.spawn(TRUE, [], IGNORE), 'exit');
  };
  await Promise.all(Array.from({ length: parallel }, lane));
  return count / (Number(process.hrtime.bigint() - start) / 1e9);
}

async function toExit(cp, count) {
  const cpu = process.cpuUsage();
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = process.hrtime.bigint();
    await once(cp.spawn(TRUE, [], IGNORE), 'exit');
    times.push(Number(process.hrtime.bigint() - start) / 1000);
  }
  const used = process.cpuUsage(cpu);
  return { time: median(times), cpu: (used.user + used.system) / count };
}

async function withLiveChildren(cp, quick) {
  const count = quick ? 100 : 300;
  await toExit(cp, 50);
  const alone = await toExit(cp, count);
  const live = Array.from({ length: 1000 }, () => cp.spawn('/bin/sleep', ['1000'], IGNORE));
  const among = await toExit(cp, count);
  for (const child of live) child.kill('SIGKILL');
  await Promise.all(live.map((child) => once(child, 'exit')));
  return { time: (among.time / alone.time - 1) * 100, cpu: (among.cpu / alone.cpu - 1) * 100 };
}

module.exports = [
  {
    id: 'S1',
    title: 'loop blocked by one spawn, small parent',
    target: '1/8',
    figures: { blocked: 'us' },
    measure: async (cp, quick) => ({ blocked: await blocked(cp, quick ? 50 : 200) }),
  },
  {
    id: 'S2',
    title: 'loop blocked by one spawn, 2 GB of Buffers',
    target: '1/300',
    figures: { blocked: 'us' },
    async measure(cp, quick) {
      const held = ballast(2);
      return { blocked: await blocked(cp, quick ? 10 : 30), held: held.length };
    },
  },
  {
    id: 'S3a',
    title: 'spawns a second, 16 at a time, small parent',
    target: '2x',
    figures: { rate: '1/s' },
    measure: async (cp, quick) => ({ rate: await perSecond(cp, quick ? 300 : 1000, 16) }),
  },
  {
    id: 'S3b',
    title: 'spawns a second, 16 at a time, 2 GB of Buffers',
    target: '80x',
    figures: { rate: '1/s' },
    async measure(cp, quick) {
      const held = ballast(2);
      return { rate: await perSecond(cp, quick ? 32 : 64, 16), held: held.length };
    },
  },
  {
    id: 'S4',
    title: 'spawn to exit with 1000 live children, against none',
    target: 'at most +5 %',
    figures: { time: '% more', cpu: '% more' },
    measure: withLiveChildren,
  },
];
