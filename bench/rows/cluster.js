'use strict';

// S12 to S14. HTTP in two workers of a cluster: a new connection for each request, the primary's
// processor time for one, and connections that are kept.
//
// Connections that are opened at once Node divides unevenly, about 20 to 12, and that serves more on
// two processors: the busier worker finds more requests each time it looks. Opened one after the
// other they are divided evenly by both.

const path = require('node:path');
const { once } = require('node:events');
const { cpuSince } = require('./both');
const { dispatched, load } = require('./load');

const WORKER = path.join(__dirname, '..', 'children', 'worker.js');
const WORKERS = 2;
// One measurement and the next of the same contestant differ by a tenth where requests are all there
// is; what is looked for is less.
const KEPT_TURNS = 3;
const EVENLY = 'stock, divided evenly';

function served({ policy, bothEnds = false, kind }) {
  return async ({ cluster, sameExecArgv, quick }) => {
    cluster.schedulingPolicy = cluster[policy];
    cluster.setupPrimary({ exec: WORKER, execArgv: bothEnds ? sameExecArgv : [] });
    const listening = Array.from({ length: WORKERS }, () => once(cluster.fork(), 'listening'));
    const [[address]] = await Promise.all(listening);
    let before;
    const begin = () => (before = process.cpuUsage());
    const { requests, errors, seconds } = await load(address.port, { kind, quick, begin });
    return { rate: requests / seconds, lost: errors, cpu: cpuSince(before) / requests };
  };
}

function contestants(kind) {
  return {
    stock: { uses: 'stock', measure: served({ policy: 'SCHED_RR', kind }) },
    SCHED_NONE: { uses: 'stock', measure: served({ policy: 'SCHED_NONE', kind }) },
    brood: { uses: 'brood', measure: served({ policy: 'SCHED_RR', kind }) },
    'brood workers': {
      uses: 'brood',
      measure: served({ policy: 'SCHED_RR', bothEnds: true, kind }),
    },
  };
}

function rate(id, work, rest) {
  return { id, work, figure: 'rate', unit: '1/s', better: 'more', losses: true, ...rest };
}

function cpu(work, rest) {
  return { id: 'S13', work, figure: 'cpu', unit: 'us', better: 'less', ...rest };
}

function kept(work, others) {
  const line = { others, target: 'no worse', reached: ({ verdict }) => verdict !== 'behind' };
  return [
    rate('S14', `${work}, stock workers`, line),
    rate('S14', 'the same, brood workers', { ...line, brood: 'brood workers' }),
  ];
}

module.exports = [
  {
    id: 'S12',
    programs: true,
    contestants: {
      ...contestants('new-connections'),
      'Rust, stock workers': { measure: dispatched('cluster', WORKER) },
      'Rust, no protocol': { measure: dispatched('plain', WORKER) },
    },
    comparisons: [
      rate('S12', 'cluster, a connection for each request, stock workers', {
        limit: 'Rust, stock workers',
        others: ['SCHED_NONE'],
        target: '1.25x stock',
        reached: ({ ratio }) => ratio >= 1.25,
      }),
      rate('S12', 'the same, brood workers', {
        brood: 'brood workers',
        limit: 'SCHED_NONE',
        target: 'the rate of SCHED_NONE',
        reached: ({ limit }) => limit?.ratio >= 0.98,
      }),
      cpu('processor time of the primary for one, stock workers', {
        limit: 'Rust, stock workers',
        target: '1/2 of stock',
        reached: ({ ratio }) => ratio <= 0.5,
      }),
      cpu('the same, brood workers', {
        brood: 'brood workers',
        limit: 'Rust, no protocol',
        target: '1/4 of stock',
        reached: ({ ratio }) => ratio <= 0.25,
      }),
    ],
  },
  {
    id: 'S14a',
    turns: KEPT_TURNS,
    programs: true,
    contestants: contestants('keep-alive'),
    comparisons: kept('cluster, connections are kept', ['SCHED_NONE']),
  },
  {
    id: 'S14b',
    turns: KEPT_TURNS,
    programs: true,
    contestants: {
      ...contestants('keep-alive-at-once'),
      [EVENLY]: { uses: 'stock', measure: served({ policy: 'SCHED_RR', kind: 'keep-alive' }) },
    },
    comparisons: kept('connections are kept, all opened at once', ['SCHED_NONE', EVENLY]),
  },
];
