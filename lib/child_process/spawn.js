'use strict';
// spawn(): options in, a running ChildProcess out, with its timeout and its AbortSignal.

const { addAbortListener } = require('node:events');
const { debug } = require('../debug');
const { AbortError } = require('../errors');
const { timeoutEndsOn } = require('../node_version');
const { validateAbortSignal, validateKillSignal, validateTimeout } = require('../validators');
const { ChildProcess, inheritEnv, tracing } = require('./child');
const { environmentPairs, inheritsEnvironment } = require('./environment');
const { normalizeSpawn } = require('./normalize');
const { dispose } = require('./stock');
const { clearTimeout, setTimeout } = require('../start').timers;

const ownSpawn = ChildProcess.prototype.spawn;

/**
 * Leaves out the environment where the native side takes it over, unless somebody else reads the
 * options first.
 */
function addEnvironment(options) {
  const isPrivate = ChildProcess.prototype.spawn === ownSpawn && !tracing.start.hasSubscribers;
  if (isPrivate && inheritsEnvironment(options)) options[inheritEnv] = true;
  else options.envPairs = environmentPairs(options);
}

function killOnTimeout(child, timeout, killSignal) {
  const timer = setTimeout(() => {
    try {
      child.kill(killSignal);
    } catch (error) {
      child.emit('error', error);
    }
  }, timeout);
  child.once(timeoutEndsOn, () => clearTimeout(timer));
}

function abort(child, killSignal, reason) {
  try {
    if (child.kill(killSignal)) {
      child.emit('error', new AbortError(undefined, { cause: reason }));
    }
  } catch (error) {
    child.emit('error', error);
  }
}

function killOnAbort(child, signal, killSignal) {
  const onAbort = () => abort(child, killSignal, signal.reason);
  if (signal.aborted) {
    process.nextTick(onAbort);
    return;
  }
  const listener = addAbortListener(signal, onAbort);
  child.once('exit', listener[dispose]);
}

function spawn(file, args, options) {
  const normalized = normalizeSpawn(file, args, options);
  addEnvironment(normalized);
  validateTimeout(normalized.timeout);
  validateAbortSignal(normalized.signal, 'options.signal');
  const killSignal = validateKillSignal(normalized.killSignal);
  const child = new ChildProcess();
  debug('spawn', normalized);
  child.spawn(normalized);

  if (normalized.timeout > 0) killOnTimeout(child, normalized.timeout, killSignal);
  if (normalized.signal) killOnAbort(child, normalized.signal, killSignal);
  return child;
}

module.exports = { spawn };
