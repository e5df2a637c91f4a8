'use strict';
// A short run of `npm run soak`: workers killed at random under load. No connection is refused,
// none is served twice, and only requests inside a killed worker fail.

const { run } = require('../../soak/run');

const SECONDS = 3;

test.each([
  ['brood workers', {}],
  ['stock workers', { isBrood: false }],
  ['a primary in a worker thread', { inThread: true }],
  ['least connections', { policy: 'least-connections' }],
])('%s: random kills break no promise', async (_, options) => {
  const { served, kills, broken } = await run({ seconds: SECONDS, ...options });
  expect(broken).toEqual([]);
  expect(served).toBeGreaterThan(0);
  expect(kills).toBeGreaterThan(0);
});
