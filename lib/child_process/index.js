'use strict';
// The names of node:child_process, and killTree. What does the work is loaded by the first call of
// any of them, so that requiring brood costs next to nothing. The functions are plain properties
// all the same, which programs and tests may replace before that.

const { closeSync, openSync } = require('node:fs');
const { promisify } = require('node:util');
const { lazily } = require('../start');

// Node calls this one itself when it starts in a child; it stays Node's.
const { _forkChild } = require('node:child_process');

// The first call may come when the process has no descriptor left. It is then to fail as Node's
// would, with an event, and not for want of a descriptor to load itself with: this one makes room.
let spare = spareDescriptor();
let loaded;

function spareDescriptor() {
  try {
    return openSync('/dev/null', 'r');
  } catch {
    // There is none, or the permission model forbids it.
    return undefined;
  }
}

function load() {
  if (spare !== undefined) closeSync(spare);
  spare = undefined;
  return {
    ...require('./child'),
    ...require('./spawn'),
    ...require('./exec'),
    ...require('./fork'),
    ...require('./sync'),
    ...require('./kill_tree'),
  };
}

/** The modules that do the work, by the names of their exports. */
function work() {
  return (loaded ??= load());
}

function exec(command, options, callback) {
  return work().exec(command, options, callback);
}

function execFile(file, args, options, callback) {
  return work().execFile(file, args, options, callback);
}

function execFileSync(file, args, options) {
  return work().execFileSync(file, args, options);
}

function execSync(command, options) {
  return work().execSync(command, options);
}

function fork(modulePath, args = [], options = undefined) {
  return work().fork(modulePath, args, options);
}

function killTree(child, signal = 'SIGTERM') {
  return work().killTree(child, signal);
}

function spawn(file, args, options) {
  return work().spawn(file, args, options);
}

function spawnSync(file, args, options) {
  return work().spawnSync(file, args, options);
}

/** Gives `run` its promise form, under its own name. */
function addPromiseForm(run) {
  const form = { [run.name]: (...args) => work().promised(run, args) }[run.name];
  Object.defineProperty(run, promisify.custom, { value: form });
}

addPromiseForm(exec);
addPromiseForm(execFile);

module.exports = { _forkChild };
lazily(module.exports, 'ChildProcess', () => work().ChildProcess);
Object.assign(module.exports, {
  exec,
  execFile,
  execFileSync,
  execSync,
  fork,
  spawn,
  spawnSync,
  killTree,
});
