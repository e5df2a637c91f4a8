'use strict';
// What users may say of scheduling policies: which they name, and for which port or path.

const path = require('node:path');
const { ERR_INVALID_ARG_VALUE } = require('../errors');
const { validateObject, validatePort, validateString } = require('../validators');
const { NUMBERS } = require('./policies');

const NAMES = Object.fromEntries(Object.entries(NUMBERS).map(([name, number]) => [number, name]));

// Those that a listener may change to.
const CHANGEABLE = Object.keys(NUMBERS).filter((name) => name !== 'none');

/** The number of a policy given by number or name; throws for what is none of `known`. */
function policyNumber(policy, argument, known = Object.keys(NUMBERS)) {
  const name = typeof policy === 'number' ? NAMES[policy] : policy;
  if (known.includes(name)) return NUMBERS[name];
  throw new ERR_INVALID_ARG_VALUE(argument, policy, `must be one of: '${known.join("', '")}'`);
}

function policyName(number) {
  return NAMES[number];
}

/** What a listener is called here: its port, or its absolute path. */
function place({ fd, port, address }) {
  if (fd !== undefined) return `descriptor ${fd}`;
  return port === -1 ? absolute(address) : String(port);
}

/** Names in the abstract namespace, which begin with a NUL, are no paths. */
function absolute(unixPath) {
  return unixPath.startsWith('\0') ? unixPath : path.resolve(unixPath);
}

/** The place a user means by { port } or { path }. */
function userPlace(at) {
  validateObject(at, 'at');
  if (at.path === undefined) return place({ port: validatePort(at.port, 'at.port') });
  if (at.port !== undefined) {
    throw new ERR_INVALID_ARG_VALUE('at', at, 'must have a port or a path, not both');
  }
  return place({ port: -1, address: validateSocketPath(at.path, 'at.path') });
}

function validateSocketPath(socketPath, argument) {
  validateString(socketPath, argument);
  if (socketPath === '') throw new ERR_INVALID_ARG_VALUE(argument, socketPath, 'must be a path');
  return socketPath;
}

/** Whether a word is meant for a port, for nobody calls a socket so: `8080`, `-1`, `0x50`, `80.5`. */
function looksLikePort(word) {
  return word === '' || !Number.isNaN(Number(word));
}

/** Map of place -> number from an object of place -> policy; throws when it is not one. */
function policyTable(scheduling, argument) {
  const table = new Map();
  if (scheduling === undefined) return table;
  validateObject(scheduling, argument);
  for (const [key, policy] of Object.entries(scheduling)) {
    const name = `${argument}['${key}']`;
    const isPort = looksLikePort(key);
    const at = place(isPort ? { port: validatePort(key, name) } : { port: -1, address: key });
    table.set(at, policyNumber(policy, name));
  }
  return table;
}

module.exports = {
  CHANGEABLE,
  absolute,
  looksLikePort,
  place,
  policyName,
  policyNumber,
  policyTable,
  userPlace,
};
