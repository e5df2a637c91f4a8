'use strict';
// The leak oracle: what this process holds before some work must be what it holds after it.

const { setTimeout: delay } = require('node:timers/promises');

const { openDescriptors, startedProcesses } = require('./system');

const SETTLE_MS = 5000;
const LOOK_EVERY_MS = 10;

/** What is held now. Compare two of them with `difference`. */
function takeStock() {
  return { descriptors: openDescriptors(), processes: startedProcesses() };
}

/** Lines naming what `after` has and `before` has not, or the reverse; [] when nothing. */
function difference(before, after) {
  return [
    ...missing(before.descriptors, after.descriptors, 'descriptor opened'),
    ...missing(after.descriptors, before.descriptors, 'descriptor lost'),
    ...missing(before.processes, after.processes, 'process left'),
  ];
}

function missing(from, all, words) {
  const extra = [...all].filter(([key]) => !from.has(key));
  return extra.map(([key, what]) => `${words}: ${key} (${what})`);
}

/** Waits until all is as in `before`, at most `within` ms; returns what still differs. */
async function settle(before, within = SETTLE_MS) {
  const deadline = Date.now() + within;
  for (;;) {
    const differs = difference(before, takeStock());
    if (differs.length === 0 || Date.now() > deadline) return differs;
    await delay(LOOK_EVERY_MS);
  }
}

/**
 * Runs `work` and fails unless it gives back every descriptor and process. What is opened once and
 * kept for good (a loop's own descriptors) is no leak: after a difference the work is run again,
 * and only what the second run leaves behind counts. Returns what `work` returned.
 */
async function expectNoLeaks(work) {
  const before = takeStock();
  const result = await work();
  if ((await settle(before, SETTLE_MS / 5)).length === 0) return result;

  const between = takeStock();
  const again = await work();
  const leaked = await settle(between);
  if (leaked.length > 0) throw new Error(`something leaked\n  ${leaked.join('\n  ')}`);
  return again;
}

module.exports = { difference, expectNoLeaks, settle, takeStock };
