'use strict';
// The same tests with brood in every process they start, so that every channel between them and
// what they fork goes through the upgrade: `npm run test:upgraded`.

const base = require('./jest.config');

module.exports = {
  ...base,
  globalSetup: '<rootDir>/__test__/upgraded/global-setup.js',
  globalTeardown: '<rootDir>/__test__/upgraded/global-teardown.js',
  setupFilesAfterEnv: ['<rootDir>/__test__/upgraded/count.js'],
  testEnvironment: '<rootDir>/__test__/upgraded/environment.js',
};
