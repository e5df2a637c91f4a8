'use strict';
// options.limits and options.dieWithParent, which Node does not have: checked here, applied by the
// native side in the child before it becomes the new program.

const { ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE, ERR_OUT_OF_RANGE } = require('../errors');
const {
  validateArray,
  validateInteger,
  validateNoNullBytes,
  validateObject,
  validateString,
} = require('../validators');

// Linux's numbers of the resources of setrlimit(2), by the names brood gives them.
const RESOURCES = {
  cpuSeconds: 0,
  fileSize: 1,
  core: 4,
  processes: 6,
  openFiles: 7,
  memory: 9,
};

const HIGHEST_CPU = 8191;

function validateAmount(value, name) {
  if (typeof value !== 'number') throw new ERR_INVALID_ARG_TYPE(name, 'number', value);
  if (value === Infinity) return;
  if (!Number.isSafeInteger(value) || value < 0) {
    throw new ERR_OUT_OF_RANGE(name, 'a non-negative integer or Infinity', value);
  }
}

/** A limit is one number, or { soft, hard } where the one left out equals the other. */
function rlimit(resource, value, name) {
  if (typeof value !== 'object' || value === null) {
    validateAmount(value, name);
    return [resource, value, value];
  }
  const { hard = value.soft, soft = hard } = value;
  validateAmount(soft, `${name}.soft`);
  validateAmount(hard, `${name}.hard`);
  if (soft > hard) throw new ERR_OUT_OF_RANGE(`${name}.soft`, `<= ${hard}`, soft);
  return [resource, soft, hard];
}

function cpuAffinity(value, name) {
  validateArray(value, name);
  if (value.length === 0) {
    throw new ERR_INVALID_ARG_VALUE(name, value, 'must name at least one processor');
  }
  value.forEach((cpu, i) => validateInteger(cpu, `${name}[${i}]`, 0, HIGHEST_CPU));
  return value.slice();
}

function cgroup(value, name) {
  validateString(value, name);
  validateNoNullBytes(value, name);
  if (!value.startsWith('/')) {
    throw new ERR_INVALID_ARG_VALUE(name, value, 'must be an absolute path');
  }
  return value;
}

function integerBetween(min, max) {
  return (value, name) => {
    validateInteger(value, name, min, max);
    return value;
  };
}

const OTHERS = {
  nice: integerBetween(-20, 19),
  oomScoreAdj: integerBetween(-1000, 1000),
  cpuAffinity,
  cgroup,
};

/** Returns options.limits in the form the native side takes. */
function validateLimits(limits) {
  validateObject(limits, 'options.limits');
  const rlimits = [];
  const native = {};
  for (const key of Object.keys(limits)) {
    const value = limits[key];
    if (value === undefined) continue;
    const name = `options.limits.${key}`;
    if (Object.hasOwn(RESOURCES, key)) rlimits.push(rlimit(RESOURCES[key], value, name));
    else if (Object.hasOwn(OTHERS, key)) native[key] = OTHERS[key](value, name);
    else throw new ERR_INVALID_ARG_VALUE('options.limits', limits, `has no limit named '${key}'`);
  }
  if (rlimits.length > 0) native.rlimits = rlimits;
  return native;
}

module.exports = { validateLimits };
