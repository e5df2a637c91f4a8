'use strict';
// Before all tests: marks what the run will start, and counts what the process holds.

const { execFileSync, spawn } = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');

const { RUN_MARK } = require('./system');
const { takeStock } = require('./leaks');

module.exports = async () => {
  process.env[RUN_MARK] = randomUUID();
  await openWhatNodeKeeps();
  globalThis[Symbol.for('brood.test.before')] = takeStock();
};

/** Node opens some descriptors at first use and keeps them: for signals, for its thread pool. */
async function openWhatNodeKeeps() {
  execFileSync('true');
  await once(spawn('true', { stdio: 'ignore' }), 'close');
}
