'use strict';
// spawnSync(), execSync() and execFileSync(): the native side starts the child, feeds it, gathers
// its output and waits.

const { types } = require('node:util');
const binding = require('../binding');
const { debug } = require('../debug');
const { ERR_INVALID_ARG_TYPE, errnoException, genericNodeError } = require('../errors');
const { noOutput } = require('../node_version');
const {
  signalName,
  validateKillSignal,
  validateMaxBuffer,
  validateTimeout,
} = require('../validators');
const { environmentPairs, inheritsEnvironment, toBlock } = require('./environment');
const { normalizeExec, normalizeExecFile, normalizeSpawn } = require('./normalize');
const { requireChildPermission } = require('./permission');
const { resourceUsage, spawnFlags } = require('./process');
const { parseStdio, toSlots } = require('./stdio');

const EINVAL = -22;
const SIGTERM = 15;

/** What the child reads from its standard input, as bytes. */
function inputBytes(input, encoding) {
  if (types.isArrayBufferView(input)) {
    return new Uint8Array(input.buffer, input.byteOffset, input.byteLength);
  }
  if (typeof input === 'string') return Buffer.from(input, encoding);
  throw new ERR_INVALID_ARG_TYPE(
    'options.stdio[0]',
    ['Buffer', 'TypedArray', 'DataView', 'string'],
    input,
  );
}

/**
 * Has the native side run the child; the answer of a child that could not even be described is made
 * here.
 */
function run(options, entries, input) {
  requireChildPermission(options.file);
  const slots = toSlots(entries);
  if (slots === null) {
    return { pid: 0, status: null, signal: 0, output: null, error: EINVAL, usage: undefined };
  }
  const { file, cwd, uid, gid, limits, timeout, maxBuffer, killSignal } = options;
  const isPiped = entries[0].type === 'pipe' || entries[0].type === 'overlapped';
  return binding.spawnSync(
    file,
    toBlock(options.args),
    options.envPairs === undefined ? null : toBlock(options.envPairs),
    cwd ?? null,
    Int32Array.from(slots),
    spawnFlags(options),
    uid ?? 0,
    gid ?? 0,
    limits,
    undefined,
    isPiped && input !== undefined ? [input] : [],
    timeout ?? 0,
    // As in Node, none at all is no limit.
    maxBuffer || Infinity,
    killSignal ?? SIGTERM,
  );
}

function decode(output, encoding) {
  if (output === null || !encoding || encoding === 'buffer') return output;
  return output.map((bytes) => (bytes === null ? null : bytes.toString(encoding)));
}

/** The native side's answer in the shape that Node gives it, property by property. */
function toResult(answer, options) {
  const result = {};
  if (answer.error !== 0) {
    const error = errnoException(answer.error, `spawnSync ${options.file}`);
    error.path = options.file;
    error.spawnargs = options.args.slice(1);
    result.error = error;
  }
  result.status = answer.status;
  result.signal = answer.signal === 0 ? null : signalName(answer.signal);
  result.output = decode(answer.output, options.encoding);
  result.pid = answer.pid;
  result.stdout = result.output === null ? noOutput : result.output[1];
  result.stderr = result.output === null ? noOutput : result.output[2];
  // Not enumerable, so that results compare as those of Node do.
  if (answer.usage) {
    Object.defineProperty(result, 'resourceUsage', { value: resourceUsage(answer.usage) });
  }
  return result;
}

function spawnSync(file, args, options) {
  const normalized = normalizeSpawn(file, args, options);
  if (!inheritsEnvironment(normalized)) {
    normalized.envPairs = environmentPairs(normalized);
  }
  debug('spawnSync', normalized);
  validateTimeout(normalized.timeout);
  validateMaxBuffer(normalized.maxBuffer);
  normalized.killSignal = validateKillSignal(normalized.killSignal);
  const { entries } = parseStdio(normalized.stdio || 'pipe', true);
  const input = normalized.input ? inputBytes(normalized.input, normalized.encoding) : undefined;
  return toResult(run(normalized, entries, input), normalized);
}

/** The error that a failed run is thrown as, undefined when it did not fail. */
function failure(result, command) {
  if (result.error) return Object.assign(result.error, result);
  if (result.status === 0) return undefined;
  const { stderr } = result;
  const output = stderr && stderr.length > 0 ? `\n${stderr.toString()}` : '';
  return genericNodeError(`Command failed: ${command}${output}`, result);
}

/**
 * Shows the child's standard error, unless the caller has said where it goes, and returns its
 * output or throws.
 */
function outputOf(result, options, command) {
  if (!options.stdio && result.stderr) process.stderr.write(result.stderr);
  const error = failure(result, command);
  if (error) throw error;
  return result.stdout;
}

function execFileSync(file, args, options) {
  ({ file, args, options } = normalizeExecFile(file, args, options));
  const result = spawnSync(file, args, options);
  return outputOf(result, options, [options.argv0 || file, ...args].join(' '));
}

function execSync(command, options) {
  const normalized = normalizeExec(command, options, null);
  const result = spawnSync(normalized.file, normalized.options);
  return outputOf(result, normalized.options, command);
}

module.exports = { execFileSync, execSync, spawnSync };
