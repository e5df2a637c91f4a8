'use strict';
// What a child's environment and argument list become: blocks of strings separated by NUL, or
// nothing at all when the child takes over this process's environment as it is (reading process.env
// in JavaScript costs more than the spawn's whole share of the event loop).

const { isProxy } = require('node:util').types;
const { validateNoNullBytes } = require('../validators');
const { hasPermissionModel, withPermissionFlags } = require('./permission');
const { hasStartedThreads } = require('../start');

let systemEnv;

/**
 * process.env when it writes through to the environment of the process; null in worker threads,
 * which have a copy, and when somebody has put an object of theirs in its place.
 */
function findSystemEnv() {
  const { isMainThread } = require('node:worker_threads');
  return isMainThread && writesThrough(process.env) ? process.env : null;
}

/** Only the genuine process.env refuses a property that is not enumerable. */
function writesThrough(env) {
  if (isProxy(env) || !Object.isExtensible(env)) return false;
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
  if (options.env || hasPermissionModel || hasInheritedKeys()) return false;
  // One that shares the environment may change it at any time: Node's own readers and writers of it
  // keep each other waiting, and ours cannot.
  if (hasStartedThreads()) return false;
  if (systemEnv === undefined) systemEnv = findSystemEnv();
  return process.env === systemEnv;
}

/** Variables a child has whatever the caller's environment says, without prototype; or null. */
function forcedVariables(env, isGiven, args) {
  let forced = null;
  const coverage = process.env.NODE_V8_COVERAGE;
  if (isGiven && coverage && !Object.hasOwn(env, 'NODE_V8_COVERAGE')) {
    forced = { __proto__: null, NODE_V8_COVERAGE: coverage };
  }
  if (hasPermissionModel) {
    const nodeOptions = withPermissionFlags(env.NODE_OPTIONS, args);
    forced = { __proto__: null, ...forced, NODE_OPTIONS: nodeOptions };
  }
  return forced;
}

function refuseNullBytes(key, value) {
  if (key.includes('\0') || (typeof value === 'string' && value.includes('\0'))) {
    validateNoNullBytes(key, `options.env['${key}']`);
    validateNoNullBytes(value, `options.env['${key}']`);
  }
}

/**
 * The environment of a child as KEY=VALUE strings; inherited properties of the caller's count, as
 * they do in Node, and not those of what somebody has put in the place of process.env.
 */
function environmentPairs(options) {
  const env = options.env || { ...process.env };
  const forced = forcedVariables(env, Boolean(options.env), options.args);
  const pairs = [];
  for (const key in env) {
    if (forced !== null && key in forced) continue;
    const value = env[key];
    if (value === undefined) continue;
    refuseNullBytes(key, value);
    pairs.push(`${key}=${value}`);
  }
  for (const key in forced) {
    if (forced[key] !== undefined) pairs.push(`${key}=${forced[key]}`);
  }
  return pairs;
}

/**
 * Joins strings into one block. What follows a NUL in one of them is lost, as in every C string.
 */
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
