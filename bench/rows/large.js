'use strict';

// S10. Large messages to a child, one after the other; both ends alike. The child answers each one
// when it has looked at all of it.

const path = require('node:path');
const { once } = require('node:events');
const programs = require('../programs');
const { both, now, secondsSince } = require('./both');

const LOOK = path.join(__dirname, '..', 'children', 'look.js');
const SIZE = 8 << 20;
const MEGABYTE = 1e6;
const WARM_UP = 10;

// The limits, and their names.
const AREA = 'memory used again, in Rust';
const MEMFD = 'new memory, in Rust';

function text() {
  const line =
    'The quick brown fox jumps over the lazy dog, as ever since the days of telegraphs.\n';
  return line.repeat(Math.ceil(SIZE / line.length)).slice(0, SIZE);
}

function object() {
  return { text: text() };
}

function bytes() {
  return Buffer.alloc(SIZE, 'a page of bytes that are not all zero ');
}

const sizeOf = (payload) => (payload.text ?? payload).length;

/** The same payload again and again. */
function repeated(payloadOf) {
  return () => {
    const payload = payloadOf();
    return () => payload;
  };
}

/** A new buffer each time, filled where it will be read: allocation and filling are measured, too. */
function filledInPlace({ brood, childProcess }, child) {
  const allocate = brood
    ? () => childProcess.sharedBuffer(SIZE, child)
    : () => Buffer.allocUnsafe(SIZE);
  return () => allocate().fill(7);
}

function throughput(payloads, serialization, { releases = false } = {}) {
  return async (context) => {
    const { brood, broodPath, childProcess, sameExecArgv, quick } = context;
    const args = releases && brood ? [broodPath] : [];
    const child = childProcess.fork(LOOK, args, { execArgv: sameExecArgv, serialization });
    const next = payloads(context, child);
    const exchange = async () => {
      const payload = next();
      const sent = sizeOf(payload);
      const reply = once(child, 'message');
      child.send(payload);
      const [length] = await reply;
      if (length !== sent) throw new Error(`the child saw ${length} of ${sent}`);
    };
    // Until memory that has been collected is used again, on both sides.
    for (let i = 0; i < WARM_UP; i++) await exchange();
    const count = quick ? 5 : 50;
    const start = now();
    for (let i = 0; i < count; i++) await exchange();
    const rate = (count * SIZE) / MEGABYTE / secondsSince(start);
    child.disconnect();
    return { rate };
  };
}

function line(work, ratio) {
  return {
    id: 'S10',
    work,
    figure: 'rate',
    unit: 'MB/s',
    better: 'more',
    target: `${ratio}x stock`,
    reached: (result) => result.ratio >= ratio,
  };
}

function jsonAlone({ quick }) {
  const payload = text();
  const count = quick ? 5 : 25;
  const start = now();
  for (let i = 0; i < count; i++) JSON.parse(JSON.stringify(payload));
  return { rate: (count * SIZE) / MEGABYTE / secondsSince(start) };
}

/** The same in Rust; `how` is told to bench/limits/large. */
function inRust(how) {
  return { measure: ({ quick }) => programs.run('large', [how, SIZE, quick ? 5 : 25]) };
}

function withLimits(measure, how) {
  return {
    ...both(measure),
    [AREA]: inRust(`${how}-area`),
    [MEMFD]: inRust(`${how}-memfd`),
  };
}

const limits = { limit: AREA, others: [MEMFD] };

module.exports = [
  {
    id: 'S10a',
    contestants: {
      ...both(throughput(repeated(text), 'json')),
      'JSON alone': { measure: jsonAlone },
    },
    comparisons: [{ ...line('8 MB string as JSON', 1.3), limit: 'JSON alone' }],
  },
  {
    id: 'S10d',
    contestants: {
      ...both(throughput(repeated(object), 'json')),
      'JSON alone': { measure: jsonAlone },
    },
    comparisons: [{ ...line('8 MB string in an object, as JSON', 1.2), limit: 'JSON alone' }],
  },
  {
    id: 'S10b',
    programs: true,
    contestants: withLimits(throughput(repeated(bytes), 'advanced'), 'copied'),
    comparisons: [{ ...line('8 MB Buffer, advanced', 3), ...limits }],
  },
  {
    id: 'S10c',
    programs: true,
    contestants: withLimits(throughput(filledInPlace, 'advanced'), 'filled'),
    comparisons: [{ ...line('8 MB Buffer filled in place, advanced', 6), ...limits }],
  },
  {
    id: 'S10e',
    programs: true,
    contestants: withLimits(throughput(filledInPlace, 'advanced', { releases: true }), 'filled'),
    comparisons: [{ ...line('the same, released when it has been looked at', 6), ...limits }],
  },
];
