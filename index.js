'use strict';
// brood's public face: everything node:child_process has, `cluster`, and what brood adds.

const { assertUsable } = require('./lib/addon');
const { lazily } = require('./lib/start');

assertUsable();

// One object, so that replacing a function on it is seen by the others, as with the built-in
// module.
const brood = require('./lib/child_process');

lazily(brood, 'cluster', () => require('./lib/cluster').currentCluster());
lazily(brood, 'diagnostics', () => require('./lib/diagnostics').diagnostics);
lazily(brood, 'sharedBuffer', () => require('./lib/ipc/shared_buffer').sharedBuffer);
lazily(brood, 'releaseBuffer', () => require('./lib/ipc/shared_buffer').releaseBuffer);
lazily(brood, 'adoptChannel', () => require('./lib/ipc/takeover').takeOverChannel);

// What a parent that has brood, too, offers a child stands in the child's environment.
if (process.env.BROOD_CHANNEL !== undefined && require('./lib/ipc/upgrade').takeOffer()) {
  require('./lib/ipc/takeover').takeUpOffer();
}
if (process.env.BROOD_CLUSTER !== undefined) require('./lib/cluster/join').joinCluster();

module.exports = brood;
