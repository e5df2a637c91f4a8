'use strict';
// brood's public face: everything node:child_process has, `cluster`, and what brood adds.

const childProcess = require('./lib/child_process');

// One object, so that replacing a function on it is seen by the others, as with the built-in
// module.
module.exports = childProcess;

Object.defineProperty(module.exports, 'cluster', {
  configurable: true,
  enumerable: true,
  get() {
    return require('node:cluster');
  },
});

// Loaded at first use only: most programs never ask.
Object.defineProperty(module.exports, 'diagnostics', {
  configurable: true,
  enumerable: true,
  get() {
    return require('./lib/diagnostics').diagnostics;
  },
});

Object.defineProperty(module.exports, 'adoptChannel', {
  configurable: true,
  enumerable: true,
  get() {
    return require('./lib/ipc/takeover').takeOverChannel;
  },
});
