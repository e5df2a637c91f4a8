'use strict';
// Before all tests: marks what the run will start, and counts what the process holds.

const stock = require('node:child_process');
const { randomUUID } = require('node:crypto');
const { once } = require('node:events');
const fs = require('node:fs');

const brood = require('../..');
const { RUN_MARK } = require('./system');
const { takeStock } = require('./leaks');

module.exports = async () => {
  process.env[RUN_MARK] = randomUUID();
  await openWhatIsKept();
  globalThis[Symbol.for('brood.test.before')] = takeStock();
};

/** Node and brood open some descriptors at first use and keep them: for signals, children, handles. */
async function openWhatIsKept() {
  stock.execFileSync('true');
  // Numbers from 64 on make brood open the few low ones that it lends to children.
  const many = Array.from({ length: 64 }, () => fs.openSync('/dev/null', 'r'));
  for (const cp of [stock, brood]) {
    await once(cp.spawn('true', { stdio: [many.at(-1), 'ignore', 'ignore'] }), 'close');
  }
  many.forEach((fd) => fs.closeSync(fd));
  await once(brood.spawn('true', { background: true }), 'close');
  await once(brood.spawn('true', { stdio: ['ignore', 'ignore', 'ignore', 'ipc'] }), 'close');
}
