'use strict';
// After the tests of a file: notes how many of this process's channels were upgraded in it.

const fs = require('node:fs');

// What diagnostics() says, without loading all of brood into files that do not use it.
const { upgradedChannels } = require('../../lib/ipc/upgrade');

afterAll(() => {
  fs.appendFileSync(process.env.BROOD_TEST_UPGRADED, `${upgradedChannels()}\n`);
});
