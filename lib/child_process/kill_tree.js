'use strict';
// killTree(), which Node does not have: a signal for a child and everything it has started.

const binding = require('../binding');
const { ERR_INVALID_ARG_TYPE, errnoException } = require('../errors');
const { signalNumber } = require('../validators');
const { ChildProcess } = require('./child');
const { ESRCH } = require('./process');

/**
 * Signals the child and its descendants, however deep, except what was deliberately detached into a
 * session of its own. Returns how many processes got the signal: 0 when the child has already gone.
 */
function killTree(child, signal = 'SIGTERM') {
  if (!(child instanceof ChildProcess)) {
    throw new ERR_INVALID_ARG_TYPE('child', 'ChildProcess', child);
  }
  const number = signal === 0 ? 0 : signalNumber(signal);
  // Once the child has been reaped its number may belong to somebody else.
  if (!child._handle || child.pid === undefined) return 0;
  const count = binding.killTree(child.pid, number);
  if (count === ESRCH) return 0;
  if (count < 0) throw errnoException(count, 'killTree');
  if (count > 0) child.killed = true;
  return count;
}

module.exports = { killTree };
