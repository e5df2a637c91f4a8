'use strict';

// The channels that hold messages until the end of the turn. Whom this process signals, and whoever
// sees it end without its exit handlers, has to find what was sent before that in the channel.

const gathering = new Set();

// Functions of `process` after which the end of the turn may never come, or come too late;
// process.kill() goes by way of `_kill`.
const LAST_WORDS = ['_kill', 'abort', 'execve'];

/** Writes what is gathered, as far as the kernel takes it. */
function flushGathered() {
  for (const native of gathering) native.flush();
}

function flushBefore(name) {
  const stock = process[name];
  // In a worker thread some are there only to say that they are not.
  if (typeof stock !== 'function' || stock.disabled) return;
  const { [name]: flushing } = {
    [name](...args) {
      flushGathered();
      return stock.apply(this, args);
    },
  };
  process[name] = Object.defineProperty(flushing, 'length', { value: stock.length });
}

/** Has this process write what is gathered before it signals anybody, itself included, or aborts. */
function flushBeforeSignals() {
  LAST_WORDS.forEach(flushBefore);
}

module.exports = { flushBeforeSignals, flushGathered, gathering };
