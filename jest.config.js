'use strict';
// How jest runs here: in one process, since its own workers talk over the very channel under test,
// and between two counts of that process's descriptors and children.

module.exports = {
  testEnvironment: 'node',
  testMatch: ['<rootDir>/__test__/**/*.test.js'],
  modulePathIgnorePatterns: ['<rootDir>/target/', '<rootDir>/.cache/', '<rootDir>/fuzz/'],
  globalSetup: '<rootDir>/__test__/helpers/global-setup.js',
  globalTeardown: '<rootDir>/__test__/helpers/global-teardown.js',
  maxWorkers: 1,
  testTimeout: 30000,
};
