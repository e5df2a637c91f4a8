'use strict';
// After all tests of an upgraded run: says how many channels were upgraded, and fails it if none
// was, for then it has shown nothing.

const fs = require('node:fs');
const path = require('node:path');

const tearDown = require('../helpers/global-teardown');

module.exports = async () => {
  const file = process.env.BROOD_TEST_UPGRADED;
  const counts = fs.readFileSync(file, 'utf8').split('\n').filter(Boolean).map(Number);
  fs.rmSync(path.dirname(file), { recursive: true });
  const sum = counts.reduce((a, b) => a + b, 0);
  const files = counts.filter((count) => count > 0).length;
  console.log(`upgraded: ${sum} channels of the tests' own process, in ${files} files`);
  await tearDown();
  if (sum === 0) throw new Error('no channel was upgraded');
};
