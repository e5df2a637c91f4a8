'use strict';

// S1 to S4. Spawning: how long the event loop stands still, how many processes a second, and what
// many live children cost.

const { once } = require('node:events');
const { median } = require('../statistics');
const { run } = require('../programs');
const { both, cpuSince, microsecondsSince, now, secondsSince } = require('./both');

const TRUE = '/bin/true';
const IGNORE = { stdio: 'ignore' };
const LIVE = 1000;
const SEGMENT = 50;
const PARALLEL = 16;

// Memory that a fork has to account for page by page.
function ballast(gigabytes) {
  return Array.from({ length: gigabytes * 8 }, () => Buffer.alloc(128 << 20, 1));
}

/** How long each of `count` spawns has blocked the loop, one after the other. */
async function blockedTimes(cp, count) {
  const times = [];
  for (let i = 0; i < count; i++) {
    const start = now();
    const child = cp.spawn(TRUE, [], IGNORE);
    times.push(microsecondsSince(start));
    await once(child, 'exit');
  }
  return times;
}

async function blocked(cp, count) {
  return median(await blockedTimes(cp, count));
}

// A process's first spawns are dearer: code is cold, and the kernel, which still sees the load of
// the start, puts the child on another processor, which has to be woken.
async function blockedSmall({ childProcess, quick }) {
  const count = quick ? 20 : 100;
  const times = await blockedTimes(childProcess, 5 * count);
  return { first: median(times.slice(0, count)), blocked: median(times.slice(2 * count)) };
}

async function blockedLarge({ childProcess, quick }) {
  const count = quick ? 10 : 50;
  await blocked(childProcess, count);
  const small = await blocked(childProcess, count);
  const held = ballast(2);
  const large = await blocked(childProcess, count);
  return { blocked: large, growth: large / small, held: held.length };
}

/** Spawns a second, `PARALLEL` at a time, as long as `goesOn(started, seconds)`. */
async function perSecond(cp, goesOn) {
  let started = 0;
  const start = now();
  const lane = async () => {
    while (goesOn(started, secondsSince(start))) {
      started++;
      await once(cp.spawn(TRUE, [], IGNORE), 'exit');
    }
  };
  await Promise.all(Array.from({ length: PARALLEL }, lane));
  return started / secondsSince(start);
}

const upTo = (count) => (started) => started < count;
const during = (limit) => (_, seconds) => seconds < limit;

// Code is cold at first, as in S1; where a spawn takes a millisecond, that shows less.
async function rateSmall({ childProcess, quick }) {
  const first = await perSecond(childProcess, upTo(quick ? 300 : 1500));
  await perSecond(childProcess, upTo(quick ? 300 : 1500));
  return { first, rate: await perSecond(childProcess, during(quick ? 0.3 : 2)) };
}

async function rateLarge({ childProcess, quick }) {
  await perSecond(childProcess, upTo(quick ? 600 : 3000));
  const held = ballast(2);
  return { rate: await perSecond(childProcess, during(quick ? 1 : 4)), held: held.length };
}

/** Medians of what one spawn takes up to its end and of its processor time, over `segments`. */
async function toExit(cp, segments) {
  const times = [];
  const cpu = [];
  for (let i = 0; i < segments; i++) {
    const before = process.cpuUsage();
    for (let j = 0; j < SEGMENT; j++) {
      const start = now();
      await once(cp.spawn(TRUE, [], IGNORE), 'exit');
      times.push(microsecondsSince(start));
    }
    cpu.push(cpuSince(before) / SEGMENT);
  }
  return { time: median(times), cpu: median(cpu) };
}

async function amongLive(cp, segments) {
  const live = Array.from({ length: LIVE }, () => cp.spawn('/bin/sleep', ['1000'], IGNORE));
  const cost = await toExit(cp, segments);
  const ends = live.map((child) => once(child, 'exit'));
  for (const child of live) child.kill('SIGKILL');
  await Promise.all(ends);
  return cost;
}

// In turns with and without them, and each time with them compared to the two without beside it:
// spawns become cheaper for thousands of times while V8 compiles, and the machine drifts.
async function withLiveChildren({ childProcess: cp, quick }) {
  const segments = quick ? 3 : 12;
  await toExit(cp, quick ? 6 : 40);
  const slowdowns = { time: [], cpu: [] };
  let before = await toExit(cp, segments);
  for (let turn = 0; turn < (quick ? 2 : 5); turn++) {
    const among = await amongLive(cp, segments);
    const after = await toExit(cp, segments);
    for (const what of ['time', 'cpu']) {
      slowdowns[what].push(among[what] / ((before[what] + after[what]) / 2));
    }
    before = after;
  }
  return { time: median(slowdowns.time), cpu: median(slowdowns.cpu) };
}

/** posix_spawn, without JavaScript: how long one takes. */
function posixSpawn({ quick }) {
  return run('posix_spawn', ['blocked', TRUE, quick ? 50 : 200]);
}

/** And how many a second, from a small parent: it shares its memory with the child until exec. */
function posixSpawnRate({ quick }) {
  return run('posix_spawn', ['rate', TRUE, quick ? 300 : 5000, PARALLEL]);
}

module.exports = [
  {
    id: 'S1',
    programs: true,
    contestants: { ...both(blockedSmall), posix_spawn: { measure: posixSpawn } },
    comparisons: [
      {
        id: 'S1',
        work: 'loop blocked by one spawn, small parent',
        figure: 'blocked',
        unit: 'us',
        better: 'less',
        limit: 'posix_spawn',
        target: '1/8 of stock',
        reached: ({ ratio }) => ratio <= 1 / 8,
      },
      {
        id: 'S1',
        work: 'the same, the first hundred of a process',
        figure: 'first',
        unit: 'us',
        better: 'less',
        target: '',
      },
    ],
  },
  {
    id: 'S2',
    contestants: both(blockedLarge),
    comparisons: [
      {
        id: 'S2',
        work: 'loop blocked by one spawn, 2 GB of Buffers',
        figure: 'blocked',
        unit: 'us',
        better: 'less',
        target: '1/300 of stock',
        reached: ({ ratio }) => ratio <= 1 / 300,
      },
      {
        id: 'S2',
        work: 'the same, against without them',
        figure: 'growth',
        unit: 'x',
        better: 'less',
        target: 'within noise (1.1)',
        reached: ({ brood }) => brood <= 1.1,
      },
    ],
  },
  {
    id: 'S3a',
    programs: true,
    contestants: { ...both(rateSmall), posix_spawn: { measure: posixSpawnRate } },
    comparisons: [
      {
        id: 'S3',
        work: 'spawns, 16 at a time, small parent',
        figure: 'rate',
        unit: '1/s',
        better: 'more',
        limit: 'posix_spawn',
        target: '2x stock',
        reached: ({ ratio }) => ratio >= 2,
      },
      {
        id: 'S3',
        work: 'the same, the first 1500 of a process',
        figure: 'first',
        unit: '1/s',
        better: 'more',
        target: '',
      },
    ],
  },
  {
    id: 'S3b',
    programs: true,
    contestants: { ...both(rateLarge), posix_spawn: { measure: posixSpawnRate } },
    comparisons: [
      {
        id: 'S3',
        work: 'spawns, 16 at a time, 2 GB of Buffers',
        figure: 'rate',
        unit: '1/s',
        better: 'more',
        limit: 'posix_spawn',
        target: '80x stock',
        reached: ({ ratio }) => ratio >= 80,
      },
    ],
  },
  {
    id: 'S4',
    contestants: both(withLiveChildren),
    comparisons: [
      {
        id: 'S4',
        work: 'spawn to exit among 1000 live children, against none',
        figure: 'time',
        unit: 'x',
        better: 'less',
        target: 'at most 1.05',
        reached: ({ brood }) => brood <= 1.05,
      },
      {
        id: 'S4',
        work: 'its processor time, against none',
        figure: 'cpu',
        unit: 'x',
        better: 'less',
        target: 'at most 1.05',
        reached: ({ brood }) => brood <= 1.05,
      },
    ],
  },
];
