'use strict';
// The moment brood is required: what is put off until somebody uses it, and what has to be had before
// the program does anything else. In one file, for each one more costs memory.

// Node's timers as they are now: a program's own, such as those that a test has put in their place,
// may never fire.
const { clearInterval, clearTimeout, setInterval, setTimeout } = require('node:timers');

// Threads that were started before are not told of any more.
let hasWorkers = false;
process.once('worker', () => (hasWorkers = true));

/** Whether the main thread has started worker threads. */
function hasStartedThreads() {
  return hasWorkers;
}

function define(target, name, value) {
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: true,
    value,
    writable: true,
  });
}

/**
 * Gives `target` the property `name`, whose value is what `load()` returns at first need: requiring
 * brood costs a program only what it uses. Once read or assigned, it is an ordinary property.
 */
function lazily(target, name, load) {
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: true,
    get() {
      const value = load();
      define(target, name, value);
      return value;
    },
    set(value) {
      define(target, name, value);
    },
  });
}

module.exports = {
  hasStartedThreads,
  lazily,
  timers: { clearInterval, clearTimeout, setInterval, setTimeout },
};
