'use strict';
// Before all tests: marks what the run will start, and counts what the process holds.

const stock = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');

const brood = require('../..');
const { RUN_MARK } = require('./system');
const { takeStock } = require('./leaks');

module.exports = async () => {
  process.env[RUN_MARK] = randomUUID();
  await openWhatIsKept();
  globalThis[Symbol.for('brood.test.before')] = takeStock();
};

/** Node and brood open some descriptors at first use and keep them: for signals, for children. */
async function openWhatIsKept() {
  stock.execFileSync('true');
  for (const cp of [stock, brood]) await once(cp.spawn('true', { stdio: 'ignore' }), 'close');
}
