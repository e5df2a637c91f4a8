'use strict';
// What a primary's cluster object has: Node's names, and those of brood. The work is primary.js's,
// which the first call of any function loads, so that having brood in a program costs next to
// nothing.

const { POLICIES, initialPolicy } = require('./policies');
const { Worker } = require('./worker_class');

/** Makes `cluster`, an event emitter, the cluster object of a primary, and returns it. */
function setUpPrimary(cluster) {
  let primary;
  const work = () => (primary ??= new (require('./primary').Primary)(cluster));
  const setupPrimary = (options) => work().setupPrimary(options);
  return Object.assign(cluster, POLICIES, {
    isWorker: false,
    isMaster: true,
    isPrimary: true,
    Worker,
    workers: {},
    settings: {},
    schedulingPolicy: initialPolicy(),
    setupPrimary,
    setupMaster: setupPrimary,
    fork: (env) => work().fork(env),
    disconnect: (callback) => work().disconnect(callback),
    broadcast: (message) => work().broadcast(message),
    stats: () => work().stats(),
    listeningSockets: () => work().listeningSockets(),
    setScheduler: (policy, at) => work().setScheduler(policy, at),
  });
}

module.exports = { setUpPrimary };
