'use strict';
// brood's public face: everything node:child_process has, `cluster`, and what brood adds.

const { assertUsable } = require('./lib/addon');
const { joinCluster } = require('./lib/cluster/join');
const { takeOffer } = require('./lib/ipc/upgrade');
const { lazily } = require('./lib/lazy');

assertUsable();

// One object, so that replacing a function on it is seen by the others, as with the built-in
// module.
const brood = require('./lib/child_process');

lazily(brood, 'cluster', () => require('./lib/cluster').currentCluster());
lazily(brood, 'diagnostics', () => require('./lib/diagnostics').diagnostics);
lazily(brood, 'sharedBuffer', () => require('./lib/ipc/large_buffers').sharedBuffer);
lazily(brood, 'adoptChannel', () => require('./lib/ipc/takeover').takeOverChannel);

// In a child whose parent has brood, too.
if (takeOffer()) require('./lib/ipc/takeover').takeUpOffer();
joinCluster();

module.exports = brood;
