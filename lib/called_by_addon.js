'use strict';
// What the addon calls when something has happened. An exception is reported where it is caught: the
// addon sees it only when the async context is left, and with it what AsyncLocalStorage, node:test
// and hooks go by.

const binding = require('./binding');

/** `handler` for the addon to call: what it throws is an uncaught exception in its async context. */
function calledByAddon(handler) {
  return function called(...values) {
    try {
      Reflect.apply(handler, this, values);
    } catch (error) {
      binding.reportUncaught(error);
      throw error; // nothing that follows a call which has returned may happen
    }
  };
}

module.exports = { calledByAddon };
