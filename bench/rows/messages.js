'use strict';

// S5 to S9. Small messages between a parent and a child.

const path = require('node:path');
const EventEmitter = require('node:events');
const { setImmediate: nextTurn } = require('node:timers/promises');
const { median } = require('../statistics');
const { run } = require('../programs');
const bystanders = require('./bystanders');
const { both, cpuSince, messageCount, microsecondsSince, now, secondsSince } = require('./both');

const { once } = EventEmitter;
const SMALL = require('../children/small');

const CHILDREN = path.join(__dirname, '..', 'children');
const COUNT = path.join(CHILDREN, 'count.js');
const FLOOD = path.join(CHILDREN, 'flood.js');
const ECHO = path.join(CHILDREN, 'echo.js');

// Longer than a round trip, so that each end is still looking when the answer comes.
const BUSY_POLL_US = 500;
// What an end of ours takes from a message to its answer: half of the round trip when both look. A
// stock child that is answered within one finds the answer before it sleeps; no JavaScript can.
const THOUGHT_US = 4;
// As the paced reader waits in a flood, and what it then finds.
const PAUSE_US = 300;
const MESSAGES_A_READ = 160;

/** `bothEnds`: the child runs what this process runs; otherwise it is stock. */
function forkChild(context, file, args, { bothEnds = false, serialization, busyPoll } = {}) {
  const execArgv = bothEnds ? context.sameExecArgv : [];
  return context.childProcess.fork(file, args, { execArgv, serialization, busyPoll });
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

function toChild(options) {
  return async (context) => {
    const count = messageCount(context.quick);
    const child = forkChild(context, COUNT, [String(count)], options);
    await once(child, 'message');
    const start = now();
    const done = once(child, 'message');
    await feed(child, count);
    await done;
    const rate = count / secondsSince(start);
    child.disconnect();
    return { rate };
  };
}

function fromChild(options) {
  return async (context) => {
    const count = messageCount(context.quick);
    const child = forkChild(context, FLOOD, [String(count)], options);
    await once(child, 'message');
    let left = count;
    const done = new Promise((resolve) => {
      child.on('message', () => {
        if (--left === 0) resolve();
      });
    });
    const before = process.cpuUsage();
    const start = now();
    child.send('go');
    await done;
    const rate = count / secondsSince(start);
    const cpu = cpuSince(before) / count;
    child.disconnect();
    return { rate, cpu };
  };
}

function roundTrip(options) {
  return async (context) => {
    const args = options.busyPoll === undefined ? [] : ['busy', String(options.busyPoll)];
    const child = forkChild(context, ECHO, args, options);
    const times = [];
    for (let i = 0; i < roundTrips(context.quick); i++) {
      const start = now();
      const reply = new Promise((resolve) => child.once('message', resolve));
      child.send(SMALL);
      await reply;
      times.push(microsecondsSince(start));
    }
    child.disconnect();
    return { time: median(times) };
  };
}

/** A program without JavaScript in the place of the parent. */
function parentProgram(name, script, ...more) {
  return ({ quick }) => run(name, [process.execPath, script, messageCount(quick), ...more]);
}

/**
 * The processor time without which no parent can have messages in Node's way: a paced reader in Rust
 * that only counts, one JSON.parse for as many as a read brings, and for each a tick and an event.
 */
async function readParseEmit(context) {
  const { cpu } = await parentProgram('count_lines', FLOOD, PAUSE_US)(context);
  const block = `[${Array(MESSAGES_A_READ).fill(JSON.stringify(SMALL))}]`;
  const count = messageCount(context.quick);
  const target = new EventEmitter();
  let seen = 0;
  target.on('message', () => seen++);
  const emit = (message) => target.emit('message', message);
  const before = process.cpuUsage();
  while (seen < count) {
    for (const message of JSON.parse(block)) process.nextTick(emit, message);
    await nextTurn();
  }
  return { cpu: cpu + cpuSince(before) / seen };
}

function pingPong({ quick }) {
  return run('ping_pong', [roundTrips(quick)]);
}

function spinPong({ quick }) {
  return run('ping_pong', [roundTrips(quick), process.execPath, ECHO, THOUGHT_US]);
}

function roundTrips(quick) {
  return quick ? 2000 : 20_000;
}

function rate(id, work, rest) {
  return { id, work, figure: 'rate', unit: '1/s', better: 'more', ...rest };
}

const BOTH_ENDS = {
  target: '4x stock; 1 M/s on Node 24 and 26, 0.8 M/s on 20',
  reached: ({ ratio, brood }, { major }) => ratio >= 4 && brood >= (major >= 24 ? 1e6 : 0.8e6),
  limit: 'JSON alone',
  others: ['worker_threads', 'Unix socket'],
};

const ADVANCED = {
  target: '2x stock on 20 and 22, 1.3x on 24 and 26',
  reached: ({ ratio }, { major }) => ratio >= (major >= 24 ? 1.3 : 2),
  limit: 'serializer alone',
};

const bothEnds = { bothEnds: true };
const advanced = { bothEnds: true, serialization: 'advanced' };

module.exports = [
  {
    id: 'S5',
    programs: true,
    contestants: {
      ...both(toChild()),
      'fed by Rust': { measure: parentProgram('feed', COUNT) },
    },
    comparisons: [
      rate('S5', 'small JSON messages to a stock child', {
        limit: 'fed by Rust',
        target: '3x stock, and 80 % of the limit',
        reached: ({ ratio, limit }) => ratio >= 3 && limit?.ratio >= 0.8,
      }),
    ],
  },
  {
    id: 'S6',
    programs: true,
    contestants: {
      ...both(fromChild()),
      'read by Rust': { measure: parentProgram('count_lines', FLOOD, 0) },
      'Rust, JSON.parse, ticks': { measure: readParseEmit },
    },
    comparisons: [
      rate('S6', 'small JSON messages from a stock child', {
        limit: 'read by Rust',
        target: '1.1x stock',
        reached: ({ ratio }) => ratio >= 1.1,
      }),
      {
        id: 'S6',
        work: "the parent's processor time for one",
        figure: 'cpu',
        unit: 'us',
        better: 'less',
        limit: 'Rust, JSON.parse, ticks',
        target: '1/2 of stock',
        reached: ({ ratio }) => ratio <= 0.5,
      },
    ],
  },
  {
    id: 'S7a',
    contestants: {
      ...both(toChild(bothEnds)),
      'JSON alone': { measure: bystanders.jsonAlone },
      worker_threads: { measure: bystanders.toThread },
      'Unix socket': { measure: bystanders.toSocket },
    },
    comparisons: [rate('S7', 'small JSON messages to the child, both ends alike', BOTH_ENDS)],
  },
  {
    id: 'S7b',
    contestants: {
      ...both(fromChild(bothEnds)),
      'JSON alone': { measure: bystanders.jsonAlone },
      worker_threads: { measure: bystanders.fromThread },
      'Unix socket': { measure: bystanders.fromSocket },
    },
    comparisons: [rate('S7', 'small JSON messages from the child, both ends alike', BOTH_ENDS)],
  },
  {
    id: 'S8a',
    contestants: {
      ...both(toChild(advanced)),
      'serializer alone': { measure: bystanders.serializerAlone },
    },
    comparisons: [rate('S8', 'small advanced messages to the child, both ends alike', ADVANCED)],
  },
  {
    id: 'S8b',
    contestants: {
      ...both(fromChild(advanced)),
      'serializer alone': { measure: bystanders.serializerAlone },
    },
    comparisons: [rate('S8', 'small advanced messages from the child, both ends alike', ADVANCED)],
  },
  ...[
    { id: 'S9a', work: 'round trip of one small message, stock child', options: {} },
    { id: 'S9b', work: 'round trip of one small message, both ends alike', options: bothEnds },
  ].map(({ id, work, options }) => ({
    id,
    programs: true,
    contestants: { ...both(roundTrip(options)), 'poll in Rust': { measure: pingPong } },
    comparisons: [
      {
        id: 'S9',
        work,
        figure: 'time',
        unit: 'us',
        better: 'less',
        limit: 'poll in Rust',
        target: 'no worse',
        reached: ({ ratio }) => ratio <= 1.02,
      },
    ],
  })),
  ...[
    {
      id: 'S9c',
      work: 'the same with busy polling, stock child',
      options: {},
      least: 1 / 3,
      limit: { 'spinning in Rust': { measure: spinPong } },
    },
    {
      id: 'S9d',
      work: 'the same with busy polling, both ends',
      options: bothEnds,
      least: 1 / 5,
      limit: {},
    },
  ].map(({ id, work, options, least, limit }) => ({
    id,
    programs: true,
    contestants: { ...both(roundTrip({ ...options, busyPoll: BUSY_POLL_US })), ...limit },
    comparisons: [
      {
        id: 'S9',
        work,
        figure: 'time',
        unit: 'us',
        better: 'less',
        limit: Object.keys(limit)[0],
        target: `1/${Math.round(1 / least)} of stock`,
        reached: ({ ratio }) => ratio <= least,
      },
    ],
  })),
];
