'use strict';
// The many shapes of arguments that child_process takes, brought into one: a fresh options object
// that the rest reads without looking at what the caller gave. Every error here is thrown before
// anything is started.

const { ERR_INVALID_ARG_TYPE, ERR_INVALID_ARG_VALUE } = require('../errors');
const { warnsOnShellArguments } = require('../node_version');
const {
  validateBoolean,
  validateFunction,
  validateInteger,
  validateNoNullBytes,
  validateNumber,
  validateObject,
  validatePath,
  validateString,
  validateUserId,
} = require('../validators');

const DEFAULT_MAX_BUFFER = 1024 * 1024;

// What the native side takes from a peer in one piece.
const LARGEST_MESSAGE = 2 ** 30;

// Without prototype: nothing can be read from it.
const NO_OPTIONS = Object.freeze({ __proto__: null });

/**
 * The caller's own options over a default for each known one. With every name present nothing can
 * come in by way of Object.prototype, and the object's shape is always the same, which an object
 * without prototype would not be.
 */
function ownOptions(options) {
  return {
    file: undefined,
    args: undefined,
    argv0: undefined,
    cwd: undefined,
    env: undefined,
    envPairs: undefined,
    stdio: undefined,
    shell: undefined,
    detached: undefined,
    uid: undefined,
    gid: undefined,
    serialization: undefined,
    signal: undefined,
    timeout: undefined,
    killSignal: undefined,
    maxBuffer: DEFAULT_MAX_BUFFER,
    encoding: undefined,
    input: undefined,
    windowsHide: undefined,
    windowsVerbatimArguments: undefined,
    execPath: undefined,
    execArgv: undefined,
    silent: undefined,
    dieWithParent: undefined,
    limits: undefined,
    background: undefined,
    maxMessageSize: undefined,
    upgrade: undefined,
    busyPoll: undefined,
    ...options,
  };
}

function validateList(strings, name) {
  for (let i = 0; i < strings.length; i++) {
    const string = strings[i];
    if (typeof string === 'string' && string.includes('\0')) {
      validateNoNullBytes(string, `${name}[${i}]`);
    }
  }
}

function validateArgv0(argv0) {
  validateString(argv0, 'options.argv0');
  validateNoNullBytes(argv0, 'options.argv0');
}

function validateShell(shell) {
  if (typeof shell !== 'boolean' && typeof shell !== 'string') {
    throw new ERR_INVALID_ARG_TYPE('options.shell', ['boolean', 'string'], shell);
  }
}

/** Whether brood's own framing may be used, or its newest version to use. */
function validateUpgrade(upgrade) {
  if (typeof upgrade === 'boolean') return;
  if (typeof upgrade !== 'number') {
    throw new ERR_INVALID_ARG_TYPE('options.upgrade', ['boolean', 'number'], upgrade);
  }
  validateInteger(upgrade, 'options.upgrade', 0);
}

/** A working directory as the string the native side takes. */
function directoryPath(cwd) {
  const path = validatePath(cwd, 'options.cwd');
  return typeof path === 'string' ? path : Buffer.from(path).toString();
}

function validateSpawnOptions(options) {
  if (options.cwd != null) options.cwd = directoryPath(options.cwd);
  if (options.detached != null) validateBoolean(options.detached, 'options.detached');
  if (options.uid != null) validateUserId(options.uid, 'options.uid');
  if (options.gid != null) validateUserId(options.gid, 'options.gid');
  if (options.shell != null) validateShell(options.shell);
  if (options.argv0 != null) validateArgv0(options.argv0);
  if (options.windowsHide != null) validateBoolean(options.windowsHide, 'options.windowsHide');
  if (options.windowsVerbatimArguments != null) {
    validateBoolean(options.windowsVerbatimArguments, 'options.windowsVerbatimArguments');
  }
  if (options.dieWithParent != null) {
    validateBoolean(options.dieWithParent, 'options.dieWithParent');
  }
  if (options.background != null) validateBoolean(options.background, 'options.background');
  if (options.maxMessageSize != null) {
    validateInteger(options.maxMessageSize, 'options.maxMessageSize', 1, LARGEST_MESSAGE);
  }
  if (options.busyPoll != null) validateNumber(options.busyPoll, 'options.busyPoll', 0, 1_000_000);
  if (options.upgrade != null) validateUpgrade(options.upgrade);
  if (options.limits != null) options.limits = require('./limits').validateLimits(options.limits);
}

let hasWarnedOnShellArguments = false;

function warnOnShellArguments() {
  if (!warnsOnShellArguments || hasWarnedOnShellArguments) return;
  hasWarnedOnShellArguments = true;
  process.emitWarning(
    'Passing args to a child process with shell option true can lead to security ' +
      'vulnerabilities, as the arguments are not escaped, only concatenated.',
    'DeprecationWarning',
    'DEP0190',
  );
}

/** Makes `options.file` and `args` a command for the shell. */
function throughShell(options, args) {
  const { shell, file } = options;
  validateNoNullBytes(shell, 'options.shell');
  if (args.length > 0) warnOnShellArguments();
  const command = args.length > 0 ? `${file} ${args.join(' ')}` : file;
  options.file = typeof shell === 'string' ? shell : '/bin/sh';
  return ['-c', command];
}

/**
 * The arguments of spawn() and spawnSync() as one object of our own; the environment is left to
 * environment.js.
 */
function normalizeSpawn(file, args, options) {
  validateString(file, 'file');
  validateNoNullBytes(file, 'file');
  if (file.length === 0) throw new ERR_INVALID_ARG_VALUE('file', file, 'cannot be empty');

  let list;
  if (Array.isArray(args)) {
    list = args.slice();
  } else if (args == null) {
    list = [];
  } else if (typeof args === 'object') {
    options = args;
    list = [];
  } else {
    throw new ERR_INVALID_ARG_TYPE('args', 'object', args);
  }
  validateList(list, 'args');

  if (options !== undefined) validateObject(options, 'options');
  const result = ownOptions(options);
  result.file = file;
  // What a caller gives under this name is overwritten in Node.
  result.envPairs = undefined;
  validateSpawnOptions(result);
  if (result.shell) list = throughShell(result, list);
  list.unshift(result.argv0 ?? result.file);

  result.args = list;
  result.detached = Boolean(result.detached);
  result.windowsHide = Boolean(result.windowsHide);
  result.windowsVerbatimArguments = Boolean(result.windowsVerbatimArguments);
  return result;
}

/**
 * The arguments of execFile() and execFileSync(): `args`, `options` and `callback` may each be left
 * out.
 */
function normalizeExecFile(file, args, options, callback) {
  if (Array.isArray(args)) {
    args = args.slice();
  } else if (args != null && typeof args === 'object') {
    callback = options;
    options = args;
    args = null;
  } else if (typeof args === 'function') {
    callback = args;
    options = null;
    args = null;
  }
  if (typeof options === 'function') callback = options;
  else if (options != null) validateObject(options, 'options');
  if (callback != null) validateFunction(callback, 'callback');

  options ??= NO_OPTIONS;
  if (options.argv0 != null) validateArgv0(options.argv0);
  return { file, args: args ?? [], options, callback };
}

/** The arguments of exec() and execSync(). */
function normalizeExec(command, options, callback) {
  validateString(command, 'command');
  validateNoNullBytes(command, 'command');
  if (typeof options === 'function') {
    callback = options;
    options = undefined;
  }
  const result = { ...options };
  result.shell = typeof result.shell === 'string' ? result.shell : true;
  return { file: command, options: result, callback };
}

module.exports = { normalizeExec, normalizeExecFile, normalizeSpawn, ownOptions, validateList };
