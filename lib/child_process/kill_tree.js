'use strict';
// killTree(), which Node does not have: a signal for a child and everything it has started.

const binding = require('../binding');
const { ERR_INVALID_ARG_TYPE, errnoException } = require('../errors');
const { flushGathered } = require('../ipc/gathering');
const { signalNumber } = require('../validators');
const { ChildProcess } = require('./child');
const { ESRCH } = require('./process');

/**
 * Signals the child and its descendants, however deep, except what was deliberately detached into a
 * session of its own; also after the child itself has gone. Returns how many processes got the signal.
 */
function killTree(child, signal = 'SIGTERM') {
  if (!(child instanceof ChildProcess)) {
    throw new ERR_INVALID_ARG_TYPE('child', 'ChildProcess', child);
  }
  const number = signal === 0 ? 0 : signalNumber(signal);
  // Being started in the background, or not started at all.
  if (child.pid === undefined) return child.kill(signal) ? 1 : 0;
  // Once the child has been reaped its number may belong to somebody else, but what it has left
  // behind can still be told by its mark.
  const hasEnded = !child._handle;
  flushGathered();
  const count = binding.killTree(child.pid, number, hasEnded);
  if (count === ESRCH) return 0;
  if (count < 0) throw errnoException(count, 'killTree');
  if (count > 0 && !hasEnded) child.killed = true;
  return count;
}

module.exports = { killTree };
