'use strict';
// fork(): spawn() of Node itself, with a channel.

const { ERR_CHILD_PROCESS_IPC_REQUIRED } = require('../errors');
const {
  validateArray,
  validateNoNullBytes,
  validateObject,
  validatePath,
} = require('../validators');
const { ownOptions, validateList } = require('./normalize');
const { offersUpgrade } = require('./child');
const { spawn } = require('./spawn');
const { expandStdio } = require('./stdio');

/**
 * This process's own flags, without the code of `node -e`, which would fork itself again and again.
 */
function withoutEval(execArgv) {
  const at = process._eval == null ? -1 : execArgv.lastIndexOf(process._eval);
  return at > 0 ? execArgv.toSpliced(at - 1, 2) : execArgv;
}

function stdioWithChannel({ stdio, silent }) {
  if (typeof stdio === 'string') return expandStdio(stdio, 'ipc');
  if (!Array.isArray(stdio)) return expandStdio(silent ? 'pipe' : 'inherit', 'ipc');
  if (!stdio.includes('ipc')) throw new ERR_CHILD_PROCESS_IPC_REQUIRED('options.stdio');
  return stdio;
}

function fork(modulePath, args = [], options) {
  const path = validatePath(modulePath, 'modulePath');
  if (args == null) {
    args = [];
  } else if (typeof args === 'object' && !Array.isArray(args)) {
    options = args;
    args = [];
  } else {
    validateArray(args, 'args');
  }
  if (options != null) validateObject(options, 'options');

  const forkOptions = ownOptions(options);
  forkOptions.shell = false;
  forkOptions.execPath ||= process.execPath;
  validateNoNullBytes(forkOptions.execPath, 'options.execPath');
  let execArgv = forkOptions.execArgv || process.execArgv;
  validateList(execArgv, 'options.execArgv');
  if (execArgv === process.execArgv) execArgv = withoutEval(execArgv);
  forkOptions[offersUpgrade] = true;
  forkOptions.stdio = stdioWithChannel(forkOptions);
  return spawn(forkOptions.execPath, [...execArgv, path, ...args], forkOptions);
}

module.exports = { fork };
