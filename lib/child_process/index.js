'use strict';
// The names of node:child_process, and the functions brood adds to them.

const { ChildProcess } = require('./child');
const { exec, execFile, setFacade } = require('./exec');
const { fork } = require('./fork');
const { killTree } = require('./kill_tree');
const { spawn } = require('./spawn');
const { _forkChild } = require('./stock');
const { execFileSync, execSync, spawnSync } = require('./sync');

module.exports = {
  _forkChild,
  ChildProcess,
  exec,
  execFile,
  execFileSync,
  execSync,
  fork,
  spawn,
  spawnSync,
  killTree,
};
setFacade(module.exports);
