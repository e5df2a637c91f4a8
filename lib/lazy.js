'use strict';
// Properties that are loaded by whoever first reads them: requiring brood costs a program only what
// it uses. Once read or assigned, such a property is an ordinary one.

function define(target, name, value) {
  Object.defineProperty(target, name, {
    configurable: true,
    enumerable: true,
    value,
    writable: true,
  });
}

/** Gives `target` the property `name`, whose value is what `load()` returns at first need. */
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

module.exports = { lazily };
