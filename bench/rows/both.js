'use strict';

// What most rows begin with.

/** Stock and brood doing the same. */
function both(measure) {
  return { stock: { uses: 'stock', measure }, brood: { uses: 'brood', measure } };
}

/** How many small messages a measurement sends. */
function messageCount(quick) {
  return quick ? 50_000 : 500_000;
}

function now() {
  return process.hrtime.bigint();
}

function microsecondsSince(start) {
  return Number(process.hrtime.bigint() - start) / 1e3;
}

function secondsSince(start) {
  return microsecondsSince(start) / 1e6;
}

/** Microseconds of processor time since `before`, all threads, user and system. */
function cpuSince(before) {
  const { user, system } = process.cpuUsage(before);
  return user + system;
}

module.exports = { both, cpuSince, messageCount, microsecondsSince, now, secondsSince };
