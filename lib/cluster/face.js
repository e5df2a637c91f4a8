'use strict';
// What a primary's cluster object has: Node's names, and those of brood. The work is primary.js's,
// which the first call of any function loads, so that having brood in a program costs next to
// nothing.

const { NUMBERS, POLICIES, initialPolicy } = require('./policies');
const { Worker } = require('./worker_class');

/** A property that may be set by name and is read as a number, as Node's. */
function policyByNumber() {
  let policy = initialPolicy();
  return {
    configurable: true,
    enumerable: true,
    get: () => policy,
    set(value) {
      policy = Object.hasOwn(NUMBERS, value) ? NUMBERS[value] : value;
    },
  };
}

/** Makes `cluster`, an event emitter, the cluster object of a primary, and returns it. */
function setUpPrimary(cluster) {
  let primary;
  const work = () => (primary ??= new (require('./primary').Primary)(cluster));
  const setupPrimary = (options) => work().setupPrimary(options);
  Object.defineProperty(cluster, 'schedulingPolicy', policyByNumber());
  return Object.assign(cluster, POLICIES, {
    isWorker: false,
    isMaster: true,
    isPrimary: true,
    Worker,
    workers: {},
    settings: {},
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
