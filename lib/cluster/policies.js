'use strict';
// The scheduling policies by number and by name, and which of them a listener gets. What they do is
// the dispatcher's.

const path = require('node:path');
const { ERR_INVALID_ARG_VALUE } = require('../errors');
const { validateObject } = require('../validators');

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

const NAMES = Object.fromEntries(Object.entries(NUMBERS).map(([name, number]) => [number, name]));

/** The number of a policy given by number or name; throws for anything else. */
function policyNumber(policy, argument) {
  if (typeof policy === 'string' && Object.hasOwn(NUMBERS, policy)) return NUMBERS[policy];
  if (typeof policy === 'number' && Object.hasOwn(NAMES, policy)) return policy;
  const known = Object.keys(NUMBERS).join("', '");
  throw new ERR_INVALID_ARG_VALUE(argument, policy, `must be one of: '${known}'`);
}

function policyName(number) {
  return NAMES[number];
}

/** The policy a process starts with; Node takes round robin for names it does not know. */
function initialPolicy(name = process.env.NODE_CLUSTER_SCHED_POLICY) {
  return Object.hasOwn(NUMBERS, name) ? NUMBERS[name] : POLICIES.SCHED_RR;
}

/** What a listener is called in the `scheduling` setting: its port, or its absolute path. */
function place({ fd, port, address }) {
  if (fd !== undefined) return `descriptor ${fd}`;
  return port === -1 ? path.resolve(address) : String(port);
}

/** Map of place -> number from an object of place -> policy; throws when it is not one. */
function policyTable(scheduling, argument) {
  const table = new Map();
  if (scheduling === undefined) return table;
  validateObject(scheduling, argument);
  for (const [key, policy] of Object.entries(scheduling)) {
    const at = /^\d+$/.test(key) ? key : path.resolve(key);
    table.set(at, policyNumber(policy, `${argument}['${key}']`));
  }
  return table;
}

module.exports = { POLICIES, initialPolicy, place, policyName, policyNumber, policyTable };
