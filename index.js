'use strict';
// brood's public face: everything node:child_process has, `cluster`, and what brood adds.

// One object, so that replacing a function on it is seen by the others, as with the built-in
// module.
module.exports = require('./lib/child_process');

/** Adds what most programs never use, to be loaded by those that do. */
function addLazily(name, load) {
  Object.defineProperty(module.exports, name, { configurable: true, enumerable: true, get: load });
}

addLazily('cluster', () => require('node:cluster'));
addLazily('diagnostics', () => require('./lib/diagnostics').diagnostics);
addLazily('adoptChannel', () => require('./lib/ipc/takeover').takeOverChannel);
