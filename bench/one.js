'use strict';

// One measurement of one row with one contestant, in a process of its own: prints its figures as
// JSON. Called by measure.js as `one.js ROW CONTESTANT`.

const path = require('node:path');
const rows = require('./rows');

const BROOD = path.join(__dirname, '..');
const [id, name] = process.argv.slice(2);

/** What a contestant's measure() gets. Modules are loaded at first use: loading is measured too. */
function contextFor({ uses }) {
  const brood = uses === 'brood';
  return {
    brood,
    quick: process.env.BENCH_QUICK === '1',
    get childProcess() {
      return require(brood ? BROOD : 'node:child_process');
    },
    get cluster() {
      return brood ? require(BROOD).cluster : require('node:cluster');
    },
    /** Flags for a child that is to run the same implementation as this process. */
    sameExecArgv: brood ? ['-r', path.join(BROOD, 'register.js')] : [],
    broodPath: BROOD,
  };
}

async function main() {
  const row = rows.find((candidate) => candidate.id === id);
  const contestant = row.contestants[name];
  const figures = await contestant.measure(contextFor(contestant));
  process.stdout.write(JSON.stringify(figures), () => process.exit(0));
}

main();
