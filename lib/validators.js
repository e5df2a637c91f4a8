'use strict';
// Argument checks that throw what Node throws, in Node's words; each returns nothing unless its
// comment says so.

const { fileURLToPath } = require('node:url');
const { isUint8Array } = require('node:util').types;
const {
  ERR_INVALID_ARG_TYPE,
  ERR_INVALID_ARG_VALUE,
  ERR_OUT_OF_RANGE,
  ERR_SOCKET_BAD_PORT,
  ERR_UNKNOWN_SIGNAL,
} = require('./errors');
const { generalNumericValidators } = require('./node_version');

let signals;
let signalNames;

/** Loaded when the first signal is named or seen. */
function loadSignals() {
  ({ signals } = require('node:os').constants);
  signalNames = [];
  // Where several names have one number, the first is the one Node reports.
  for (const name of Object.keys(signals)) signalNames[signals[name]] ??= name;
}

function validateString(value, name) {
  if (typeof value !== 'string') throw new ERR_INVALID_ARG_TYPE(name, 'string', value);
}

function validateBoolean(value, name) {
  if (typeof value !== 'boolean') throw new ERR_INVALID_ARG_TYPE(name, 'boolean', value);
}

function validateFunction(value, name) {
  if (typeof value !== 'function') throw new ERR_INVALID_ARG_TYPE(name, 'Function', value);
}

function validateObject(value, name) {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new ERR_INVALID_ARG_TYPE(name, 'Object', value);
  }
}

function validateArray(value, name) {
  if (!Array.isArray(value)) throw new ERR_INVALID_ARG_TYPE(name, 'Array', value);
}

function validateNumber(value, name, min, max) {
  if (typeof value !== 'number') throw new ERR_INVALID_ARG_TYPE(name, 'number', value);
  const isBounded = min != null || max != null;
  if (!isBounded || (value >= (min ?? -Infinity) && value <= (max ?? Infinity))) return;
  const bounds = [];
  if (min != null) bounds.push(`>= ${min}`);
  if (max != null) bounds.push(`<= ${max}`);
  throw new ERR_OUT_OF_RANGE(name, bounds.join(' && '), value);
}

/** Returns a port given as number or string. */
function validatePort(port, name = 'Port') {
  const isText = typeof port === 'string' && port.trim() !== '';
  const number = isText || typeof port === 'number' ? Number(port) : NaN;
  if (number !== (number & 0xffff)) throw new ERR_SOCKET_BAD_PORT(name, port);
  return number;
}

function validateInteger(
  value,
  name,
  min = Number.MIN_SAFE_INTEGER,
  max = Number.MAX_SAFE_INTEGER,
) {
  if (typeof value !== 'number') throw new ERR_INVALID_ARG_TYPE(name, 'number', value);
  if (!Number.isInteger(value)) throw new ERR_OUT_OF_RANGE(name, 'an integer', value);
  if (value < min || value > max) {
    throw new ERR_OUT_OF_RANGE(name, `>= ${min} && <= ${max}`, value);
  }
}

function validateInt32(value, name, min = -2147483648, max = 2147483647) {
  validateInteger(value, name, min, max);
}

function validateOneOf(value, name, allowed) {
  if (allowed.includes(value)) return;
  const list = allowed.map((item) => (typeof item === 'string' ? `'${item}'` : String(item)));
  throw new ERR_INVALID_ARG_VALUE(name, value, `must be one of: ${list.join(', ')}`);
}

function validateAbortSignal(signal, name) {
  if (signal === undefined) return;
  if (signal === null || typeof signal !== 'object' || !('aborted' in signal)) {
    throw new ERR_INVALID_ARG_TYPE(name, 'AbortSignal', signal);
  }
}

/** Only strings are looked at: other values are converted later, by rules of their own. */
function validateNoNullBytes(value, name) {
  if (typeof value === 'string' && value.includes('\0')) {
    throw new ERR_INVALID_ARG_VALUE(name, value, 'must be a string without null bytes');
  }
}

function looksLikeURL(value) {
  if (value === null || typeof value !== 'object' || !value.href || !value.protocol) return false;
  // The objects that url.parse() makes have these two as well, and are no URLs.
  return value.auth === undefined && value.path === undefined;
}

/** Returns a path given as string, Uint8Array or file: URL; of a URL, the path it stands for. */
function validatePath(value, name) {
  const path = looksLikeURL(value) ? fileURLToPath(value) : value;
  const isString = typeof path === 'string';
  if (!isString && !isUint8Array(path)) {
    throw new ERR_INVALID_ARG_TYPE(name, ['string', 'Buffer', 'URL'], path);
  }
  if (isString ? path.includes('\0') : path.includes(0)) {
    const reason = 'must be a string, Uint8Array, or URL without null bytes';
    throw new ERR_INVALID_ARG_VALUE(name, path, reason);
  }
  return path;
}

/** A user or group number. */
function validateUserId(value, name) {
  if (generalNumericValidators) validateInt32(value, name);
  else if (value !== (value | 0)) throw new ERR_INVALID_ARG_TYPE(name, 'int32', value);
}

function validateTimeout(timeout) {
  if (timeout == null) return;
  if (generalNumericValidators) validateInteger(timeout, 'timeout', 0);
  else if (!Number.isInteger(timeout) || timeout < 0) {
    throw new ERR_OUT_OF_RANGE('timeout', 'an unsigned integer', timeout);
  }
}

function validateMaxBuffer(maxBuffer) {
  if (maxBuffer == null) return;
  if (generalNumericValidators) validateNumber(maxBuffer, 'options.maxBuffer', 0);
  else if (typeof maxBuffer !== 'number' || !(maxBuffer >= 0)) {
    throw new ERR_OUT_OF_RANGE('options.maxBuffer', 'a positive number', maxBuffer);
  }
}

/** Returns the number of a signal given by number or name (in any case). */
function signalNumber(signal) {
  if (signals === undefined) loadSignals();
  if (typeof signal === 'number' && signalNames[signal]) return signal;
  if (typeof signal === 'string') {
    const number = signals[signal.toUpperCase()];
    if (number) return number;
  }
  throw new ERR_UNKNOWN_SIGNAL(signal);
}

/**
 * Returns the name of a signal number, or '' for one without a name (0 and the real-time signals).
 */
function signalName(number) {
  if (number === 0) return '';
  if (signals === undefined) loadSignals();
  return signalNames[number] ?? '';
}

/** Returns the number of options.killSignal, undefined when it is not given. */
function validateKillSignal(killSignal) {
  if (typeof killSignal === 'string' || typeof killSignal === 'number') {
    return signalNumber(killSignal);
  }
  if (killSignal != null) {
    throw new ERR_INVALID_ARG_TYPE('options.killSignal', ['string', 'number'], killSignal);
  }
  return undefined;
}

module.exports = {
  signalName,
  signalNumber,
  validateAbortSignal,
  validateArray,
  validateBoolean,
  validateFunction,
  validateInteger,
  validateKillSignal,
  validateMaxBuffer,
  validateNoNullBytes,
  validateNumber,
  validateObject,
  validateOneOf,
  validatePath,
  validatePort,
  validateString,
  validateTimeout,
  validateUserId,
};
