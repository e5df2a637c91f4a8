'use strict';
// The names of node:child_process, and the functions brood adds to them. Each is loaded when it is
// first read, but for what must be taken from Node's module before `register` changes it.

const { lazily } = require('../lazy');
const { _forkChild } = require('./stock');

const childProcess = { _forkChild };

lazily(childProcess, 'ChildProcess', () => require('./child').ChildProcess);
lazily(childProcess, 'exec', () => execFamily().exec);
lazily(childProcess, 'execFile', () => execFamily().execFile);
lazily(childProcess, 'execFileSync', () => require('./sync').execFileSync);
lazily(childProcess, 'execSync', () => require('./sync').execSync);
lazily(childProcess, 'fork', () => require('./fork').fork);
lazily(childProcess, 'spawn', () => require('./spawn').spawn);
lazily(childProcess, 'spawnSync', () => require('./sync').spawnSync);
lazily(childProcess, 'killTree', () => require('./kill_tree').killTree);

function execFamily() {
  const family = require('./exec');
  family.setFacade(childProcess);
  return family;
}

module.exports = childProcess;
