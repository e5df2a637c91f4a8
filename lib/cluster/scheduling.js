'use strict';
// What users may say of scheduling policies: which they name, and for which port or path.

const path = require('node:path');
const { ERR_INVALID_ARG_VALUE } = require('../errors');
const { validateObject, validatePort, validateString } = require('../validators');
const { NUMBERS } = require('./policies');

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

/** What a listener is called here: its port, or its absolute path. */
function place({ fd, port, address }) {
  if (fd !== undefined) return `descriptor ${fd}`;
  return port === -1 ? path.resolve(address) : String(port);
}

/** The place a user means by { port } or { path }. */
function userPlace(at) {
  validateObject(at, 'at');
  if (at.path === undefined) return place({ port: validatePort(at.port, 'at.port') });
  validateString(at.path, 'at.path');
  return place({ port: -1, address: at.path });
}

/** Map of place -> number from an object of place -> policy; throws when it is not one. */
function policyTable(scheduling, argument) {
  const table = new Map();
  if (scheduling === undefined) return table;
  validateObject(scheduling, argument);
  for (const [key, policy] of Object.entries(scheduling)) {
    const name = `${argument}['${key}']`;
    const isPort = /^\d+$/.test(key);
    const at = place(isPort ? { port: validatePort(key, name) } : { port: -1, address: key });
    table.set(at, policyNumber(policy, name));
  }
  return table;
}

module.exports = { place, policyName, policyNumber, policyTable, userPlace };
