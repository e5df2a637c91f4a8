'use strict';

// One measurement of one row with one implementation, in a process of its own; prints its figures
// as JSON. Called by run.js.

const path = require('node:path');
const rows = require('./rows');

const [id, implementation] = process.argv.slice(2);
const moduleName = implementation === 'brood' ? path.join(__dirname, '..') : 'node:child_process';
const row = rows.find((candidate) => candidate.id === id);

async function main() {
  const childProcess = row.loads === 'itself' ? moduleName : require(moduleName);
  const figures = await row.measure(childProcess, process.env.BENCH_QUICK === '1');
  process.stdout.write(JSON.stringify(figures), () => process.exit(0));
}

main();
