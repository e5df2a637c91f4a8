'use strict';
// What a child's environment and argument list become: blocks of strings separated by NUL, or nothing at all when the
// child takes over this process's environment as it is (reading process.env in JavaScript costs more than the spawn's
// whole share of the event loop).

const { isProxy } = require('node:util').types;
const { isMainThread } = require('node:worker_threads');
const { validateNoNullBytes } = require('../validators');
const { hasPermissionModel, withPermissionFlags } = require('./permission');

const hasOwn = Object.prototype.hasOwnProperty;

// The channel's variables belong to one process: what this one was given is not for its children.
const PRIVATE_VARIABLE = 'BROOD_CHANNEL';

// process.env, when it writes through to the environment of the process: not in worker threads, which have a copy, and
// not when somebody has put an object of theirs in its place.
const systemEnv = isMainThread && writesThrough(process.env) ? process.env : undefined;

/** Only the genuine process.env refuses a property that is not enumerable. */
function writesThrough(env) {
  if (isProxy(env)) return false;
  const probe = 'BROOD_PROBE';
  try {
    Object.defineProperty(env, probe, { value: '', configurable: true });
  } catch {
    return true;
  }
  delete env[probe];
  return false;
}

function hasInheritedKeys() {
  for (const key in {}) return key !== undefined;
  return false;
}

/** Whether a child with these options has exactly the environment of this process. */
function inheritsEnvironment(options) {
  return (
    !options.env && process.env === systemEnv && !hasPermissionModel && !hasInheritedKeys()
  );
}

/** Variables that hold whatever the caller's environment says, or null. */
function forcedVariables(env, isGiven, args) {
  let forced = null;
  const coverage = process.env.NODE_V8_COVERAGE;
  if (isGiven && coverage && !hasOwn.call(env, 'NODE_V8_COVERAGE')) {
    forced = { NODE_V8_COVERAGE: coverage };
  }
  if (hasPermissionModel) {
    const nodeOptions = withPermissionFlags(env.NODE_OPTIONS, args);
    if (nodeOptions !== env.NODE_OPTIONS) forced = { ...forced, NODE_OPTIONS: nodeOptions };
  }
  return forced;
}

/** The environment of a child as KEY=VALUE strings; inherited properties count, as they do in Node. */
function environmentPairs(options, args) {
  const env = options.env || process.env;
  const forced = forcedVariables(env, Boolean(options.env), args);
  const pairs = [];
  for (const key in env) {
    if (key === PRIVATE_VARIABLE || (forced !== null && key in forced)) continue;
    const value = env[key];
    if (value === undefined) continue;
    validateNoNullBytes(key, `options.env['${key}']`);
    validateNoNullBytes(value, `options.env['${key}']`);
    pairs.push(`${key}=${value}`);
  }
  for (const key in forced) pairs.push(`${key}=${forced[key]}`);
  return pairs;
}

/** Joins strings into one block. What follows a NUL in one of them is lost, as in every C string. */
function toBlock(strings) {
  let block = '';
  for (let i = 0; i < strings.length; i++) {
    const string = `${strings[i]}`;
    const end = string.indexOf('\0');
    if (i > 0) block += '\0';
    block += end === -1 ? string : string.slice(0, end);
  }
  return block;
}

module.exports = { environmentPairs, inheritsEnvironment, toBlock };
