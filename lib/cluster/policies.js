'use strict';
// The scheduling policies by number and by name. What they do is the dispatcher's; which listener
// gets which is scheduling.js's.

// The first two numbers are Node's.
const POLICIES = {
  SCHED_NONE: 1,
  SCHED_RR: 2,
  SCHED_RR_STRICT: 3,
  SCHED_LEAST_CONNECTIONS: 4,
  SCHED_POWER_OF_TWO: 5,
  SCHED_STICKY: 6,
};

const NUMBERS = {
  none: POLICIES.SCHED_NONE,
  rr: POLICIES.SCHED_RR,
  'rr-strict': POLICIES.SCHED_RR_STRICT,
  'least-connections': POLICIES.SCHED_LEAST_CONNECTIONS,
  'power-of-two': POLICIES.SCHED_POWER_OF_TWO,
  sticky: POLICIES.SCHED_STICKY,
};

/** The policy a process starts with; Node takes round robin for names it does not know. */
function initialPolicy(name = process.env.NODE_CLUSTER_SCHED_POLICY) {
  return Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : POLICIES.SCHED_RR;
}

module.exports = { NUMBERS, POLICIES, initialPolicy };
