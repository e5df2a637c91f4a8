'use strict';
// Node's error objects, made by brood: the same codes, messages and shapes as the running version
// of Node. The native side answers with negative errno numbers; `errnoException` turns those into
// errors.

const { format, getSystemErrorName, inspect } = require('node:util');
const nodeVersion = require('./node_version');

const LONGEST_INSPECTED_VALUE = 128;
const LONGEST_QUOTED_STRING = 28;
const PRIMITIVE_TYPES = new Set([
  'string',
  'function',
  'number',
  'object',
  'Function',
  'Object',
  'boolean',
  'bigint',
  'symbol',
]);
const CLASS_NAME = /^[A-Z][a-zA-Z0-9]*$/;

/** Makes the constructor of one error code; `message` receives the constructor's arguments. */
function errorClass(code, Base, message) {
  class NodeError extends Base {
    constructor(...args) {
      super(message(...args));
      this.code = code;
      writeStackHeader(this, code, NodeError);
    }

    // As in Node, the error looks like an instance of the plain class to whoever asks.
    get ['constructor']() {
      return Base;
    }

    toString() {
      return `${this.name} [${code}]: ${this.message}`;
    }
  }
  return NodeError;
}

/**
 * Lets the first line of the stack carry the code: Node writes it, from `name`, when the stack is
 * first looked at.
 */
function writeStackHeader(error, code, hideAbove) {
  Object.defineProperty(error, 'name', { value: `${error.name} [${code}]`, configurable: true });
  Error.captureStackTrace(error, hideAbove);
  void error.stack;
  delete error.name;
}

function formatList(words, conjunction) {
  if (words.length < 3) return words.join(` ${conjunction} `);
  return `${words.slice(0, -1).join(', ')}, ${conjunction} ${words[words.length - 1]}`;
}

/** The part of an ERR_INVALID_ARG_TYPE message between "must be" and "Received". */
function describeExpected(expected) {
  const types = [];
  const classes = [];
  const others = [];
  for (const name of expected) {
    if (PRIMITIVE_TYPES.has(name)) types.push(name.toLowerCase());
    else if (CLASS_NAME.test(name)) classes.push(name);
    else others.push(name);
  }
  const objectAt = types.indexOf('object');
  if (classes.length > 0 && objectAt !== -1) {
    types.splice(objectAt, 1);
    classes.push('Object');
  }
  const parts = [];
  if (types.length > 0) {
    parts.push(`${types.length > 1 ? 'one of type' : 'of type'} ${formatList(types, 'or')}`);
  }
  if (classes.length > 0) parts.push(`an instance of ${formatList(classes, 'or')}`);
  if (others.length > 1) parts.push(`one of ${formatList(others, 'or')}`);
  else if (others.length === 1) {
    parts.push(others[0].toLowerCase() === others[0] ? others[0] : `an ${others[0]}`);
  }
  return parts.join(' or ');
}

function describeObject(value) {
  const { constructor } = value;
  if (nodeVersion.strictConstructorNames) {
    const name = constructor?.name;
    if (typeof name === 'string' && name !== '') return `an instance of ${name}`;
  } else if (constructor && 'name' in constructor) {
    return `an instance of ${constructor.name}`;
  }
  return inspect(value, { depth: -1 });
}

function describeString(value) {
  const shown =
    value.length > LONGEST_QUOTED_STRING
      ? `${value.slice(0, LONGEST_QUOTED_STRING - 3)}...`
      : value;
  return shown.includes("'") ? JSON.stringify(shown) : `'${shown}'`;
}

/** What an error message says after "Received". */
function describeReceived(value) {
  if (value == null) return String(value);
  switch (typeof value) {
    case 'object':
      return describeObject(value);
    case 'function':
      return `function ${value.name}`;
    case 'string':
      return `type string (${describeString(value)})`;
    case 'bigint':
      return `type bigint (${value}n)`;
    case 'number':
      return `type number (${Object.is(value, -0) ? '-0' : value})`;
    default:
      return `type ${typeof value} (${String(value)})`;
  }
}

function argumentOrProperty(name) {
  return name.includes('.') ? 'property' : 'argument';
}

function invalidArgType(name, expected, actual) {
  const subject = name.endsWith(' argument') ? name : `"${name}" ${argumentOrProperty(name)}`;
  const wanted = describeExpected(Array.isArray(expected) ? expected : [expected]);
  return `The ${subject} must be ${wanted}. Received ${describeReceived(actual)}`;
}

function invalidArgValue(name, value, reason = 'is invalid') {
  let shown = inspect(value);
  if (shown.length > LONGEST_INSPECTED_VALUE) {
    shown = `${shown.slice(0, LONGEST_INSPECTED_VALUE)}...`;
  }
  return `The ${argumentOrProperty(name)} '${name}' ${reason}. Received ${shown}`;
}

/** 1234567 -> '1_234_567' */
function groupThousands(digits) {
  return digits.replace(/\B(?=(\d{3})+$)/g, '_');
}

function describeNumber(value) {
  if (typeof value === 'bigint') {
    const isLarge = value > 2n ** 32n || value < -(2n ** 32n);
    return `${isLarge ? groupThousands(String(value)) : value}n`;
  }
  if (Number.isInteger(value) && Math.abs(value) > 2 ** 32) return groupThousands(String(value));
  return inspect(value);
}

function outOfRange(name, range, value) {
  return `The value of "${name}" is out of range. It must be ${range}. Received ${describeNumber(value)}`;
}

function missingArgs(...names) {
  const quote = (name) => `"${name}"`;
  const quoted = names.map((name) =>
    Array.isArray(name) ? name.map(quote).join(' or ') : quote(name),
  );
  return `The ${formatList(quoted, 'and')} argument${names.length > 1 ? 's' : ''} must be specified`;
}

const AccessDenied = errorClass('ERR_ACCESS_DENIED', Error, (message) => message);

/**
 * Thrown when the permission model forbids what was asked for; says which permission and for what.
 */
class ERR_ACCESS_DENIED extends AccessDenied {
  constructor(message, permission = '', resource = '') {
    super(message);
    this.permission = permission;
    this.resource = resource;
    // The native code of Node that throws this one puts no code into the first line of the stack.
    Error.captureStackTrace(this, ERR_ACCESS_DENIED);
  }

  toString() {
    return `${this.name}: ${this.message}`;
  }
}

/** What an aborted AbortSignal causes; `options.cause` holds the signal's reason. */
class AbortError extends Error {
  constructor(message = 'The operation was aborted', options = undefined) {
    super(message, options);
    this.code = 'ABORT_ERR';
    this.name = 'AbortError';
  }
}

/**
 * The error of a failed system call: `err` is a negative errno, `original` more to say in the
 * message.
 */
function errnoException(err, syscall, original) {
  const code = getSystemErrorName(err);
  const error = new Error(original ? `${syscall} ${code} ${original}` : `${syscall} ${code}`);
  error.errno = err;
  error.code = code;
  error.syscall = syscall;
  Error.captureStackTrace(error, errnoException);
  return error;
}

/** A plain Error with more properties. */
function genericNodeError(message, properties) {
  const error = new Error(message);
  Object.assign(error, properties);
  Error.captureStackTrace(error, genericNodeError);
  return error;
}

module.exports = {
  AbortError,
  ERR_ACCESS_DENIED,
  // brood's own: a message cannot be read, or a peer does not keep to the protocol.
  ERR_BROOD_IPC_MESSAGE: errorClass(
    'ERR_BROOD_IPC_MESSAGE',
    Error,
    (why) => `A message was lost: it could not be decoded: ${why}`,
  ),
  ERR_BROOD_IPC_PROTOCOL: errorClass(
    'ERR_BROOD_IPC_PROTOCOL',
    Error,
    (what) => `The IPC channel was cut off: ${what}`,
  ),
  ERR_CHILD_CLOSED_BEFORE_REPLY: errorClass(
    'ERR_CHILD_CLOSED_BEFORE_REPLY',
    Error,
    () => 'Child closed before reply received',
  ),
  ERR_CHILD_PROCESS_IPC_REQUIRED: errorClass(
    'ERR_CHILD_PROCESS_IPC_REQUIRED',
    Error,
    (name) => `Forked processes must have an IPC channel, missing value 'ipc' in ${name}`,
  ),
  ERR_CHILD_PROCESS_STDIO_MAXBUFFER: errorClass(
    'ERR_CHILD_PROCESS_STDIO_MAXBUFFER',
    RangeError,
    (name) => `${name} maxBuffer length exceeded`,
  ),
  ERR_INVALID_ARG_TYPE: errorClass('ERR_INVALID_ARG_TYPE', TypeError, invalidArgType),
  ERR_INVALID_ARG_VALUE: errorClass('ERR_INVALID_ARG_VALUE', TypeError, invalidArgValue),
  ERR_INVALID_HANDLE_TYPE: errorClass(
    'ERR_INVALID_HANDLE_TYPE',
    TypeError,
    () => 'This handle type cannot be sent',
  ),
  ERR_INVALID_SYNC_FORK_INPUT: errorClass(
    'ERR_INVALID_SYNC_FORK_INPUT',
    TypeError,
    (input) =>
      `Asynchronous forks do not support Buffer, TypedArray, DataView or string input: ${input}`,
  ),
  ERR_IPC_CHANNEL_CLOSED: errorClass('ERR_IPC_CHANNEL_CLOSED', Error, () => 'Channel closed'),
  ERR_IPC_DISCONNECTED: errorClass(
    'ERR_IPC_DISCONNECTED',
    Error,
    () => 'IPC channel is already disconnected',
  ),
  ERR_IPC_ONE_PIPE: errorClass(
    'ERR_IPC_ONE_PIPE',
    Error,
    () => 'Child process can have only one IPC pipe',
  ),
  ERR_IPC_SYNC_FORK: errorClass(
    'ERR_IPC_SYNC_FORK',
    Error,
    () => 'IPC cannot be used with synchronous forks',
  ),
  ERR_MISSING_ARGS: errorClass('ERR_MISSING_ARGS', TypeError, missingArgs),
  ERR_OUT_OF_RANGE: errorClass('ERR_OUT_OF_RANGE', RangeError, outOfRange),
  ERR_SOCKET_BAD_PORT: errorClass(
    'ERR_SOCKET_BAD_PORT',
    RangeError,
    (name, port) => `${name} should be >= 0 and < 65536. Received ${describeReceived(port)}.`,
  ),
  ERR_UNKNOWN_SIGNAL: errorClass('ERR_UNKNOWN_SIGNAL', TypeError, (signal) =>
    format('Unknown signal: %s', signal),
  ),
  errnoException,
  genericNodeError,
};
