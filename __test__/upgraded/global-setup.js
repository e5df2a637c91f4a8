'use strict';
// Before all tests of an upgraded run: every Node that is started from now on preloads brood.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { ROOT } = require('../helpers/run');
const setUp = require('../helpers/global-setup');

module.exports = async () => {
  const options = [process.env.NODE_OPTIONS, `--require=${ROOT}/register.js`];
  process.env.NODE_OPTIONS = options.filter(Boolean).join(' ');
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-upgraded-'));
  process.env.BROOD_TEST_UPGRADED = path.join(folder, 'counts');
  await setUp();
};
