'use strict';
// ChildProcess: a child's life as events and properties, in Node's order. Starting it, its streams
// and its channel are done by process.js, stdio.js and lib/ipc.

const diagnostics = require('node:diagnostics_channel');
const EventEmitter = require('node:events');
const fs = require('node:fs');
const binding = require('../binding');
const { errnoException } = require('../errors');
const {
  signalNumber,
  validateArray,
  validateObject,
  validateOneOf,
  validateString,
} = require('../validators');
const { toBlock } = require('./environment');
const { requireChildPermission, requireStreamPermission } = require('./permission');
const { ESRCH, Process } = require('./process');
const {
  CHANNEL,
  PIPE,
  closeEnds,
  flushStreams,
  giveAway,
  isPipe,
  parentStream,
  parseStdio,
  toSlots,
} = require('./stdio');
const stock = require('./stock');

const EACCES = -13;
const EAGAIN = -11;
const EINVAL = -22;
const EMFILE = -24;
const ENFILE = -23;
const ENOENT = -2;
const ENOSYS = -38;

const SERIALIZATIONS = [undefined, 'json', 'advanced'];

/** Set on the options of spawn() when the child takes over this process's environment unread. */
const inheritEnv = Symbol('brood.inheritEnv');

/** Set by fork(): the child is Node, and may have brood. */
const offersUpgrade = Symbol('brood.offersUpgrade');

const created = diagnostics.channel('child_process');
const tracing = diagnostics.tracingChannel('child_process.spawn');

function ChildProcess() {
  EventEmitter.call(this);

  // 'close' comes when this many things have ended: the process, each readable pipe and the
  // channel.
  this._closesNeeded = 1;
  this._closesGot = 0;
  this.connected = false;

  this.signalCode = null;
  this.exitCode = null;
  this.killed = false;
  this.spawnfile = null;

  this._handle = new Process();
  this._handle.onexit = (exitCode, signalCode, usage) => {
    onExit(this, exitCode, signalCode, usage);
  };

  if (created.hasSubscribers) created.publish({ process: this });
}

// A child of either kind is an instance of either class.
Object.setPrototypeOf(ChildProcess.prototype, stock.ChildProcess.prototype);
Object.setPrototypeOf(ChildProcess, EventEmitter);
Object.defineProperty(ChildProcess, Symbol.hasInstance, {
  value(object) {
    const isOwn = Function.prototype[Symbol.hasInstance].call(this, object);
    return isOwn || (this === ChildProcess && object instanceof stock.ChildProcess);
  },
});

/** `exitCode` is a negative errno when the process never started. */
function onExit(child, exitCode, signalCode, usage) {
  if (signalCode) child.signalCode = signalCode;
  else child.exitCode = exitCode;
  if (usage !== undefined) child.resourceUsage = usage;

  if (child.stdin) child.stdin.destroy();
  child._handle.close();
  child._handle = null;

  if (exitCode < 0) child.emit('error', spawnError(child, exitCode));
  else child.emit('exit', child.exitCode, child.signalCode);

  // A tick later, so that a listener of 'exit' can still begin to read.
  process.nextTick(flushChild, child);
  maybeClose(child);
}

function spawnError(child, errno) {
  const { spawnfile } = child;
  const error = errnoException(errno, spawnfile ? `spawn ${spawnfile}` : 'spawn');
  if (spawnfile) error.path = spawnfile;
  error.spawnargs = child.spawnargs.slice(1);
  return error;
}

function flushChild(child) {
  flushStreams(child.stdio);
}

function maybeClose(child) {
  child._closesGot++;
  if (child._closesGot === child._closesNeeded) {
    child.emit('close', child.exitCode, child.signalCode);
  }
}

function emitSpawn(child) {
  const isGivenUp = child._handle === null;
  if (!isGivenUp) child.emit('spawn');
}

function reportFailure(child, errno) {
  const isGivenUp = child._handle === null;
  if (!isGivenUp) child._handle.onexit(errno);
}

/** Failures that Node reports by an 'error' event; all others are thrown. */
function isReportedLater(errno) {
  return (
    errno === ENOENT || errno === EACCES || errno === EAGAIN || errno === EMFILE || errno === ENFILE
  );
}

let ipc;

/**
 * Loads the channel's code while there is no child yet. Returns 0, or a negative errno when no
 * descriptor is left to read it with: there would be none for the channel either.
 */
function loadChannel() {
  try {
    ipc ??= require('../ipc');
    return 0;
  } catch (error) {
    const errno = descriptorShortage();
    if (errno === 0) throw error;
    return errno;
  }
}

/** EMFILE or ENFILE when no descriptor is left, else 0. */
function descriptorShortage() {
  try {
    fs.closeSync(fs.openSync('/dev/null', 'r'));
  } catch ({ errno }) {
    if (errno === EMFILE || errno === ENFILE) return errno;
  }
  return 0;
}

/**
 * Tells the child of its channel: returns what the native side adds to an environment it takes over
 * unread.
 */
function announceChannel(options, ipcFd, serialization, offer) {
  const variables = [
    `NODE_CHANNEL_FD=${ipcFd}`,
    `NODE_CHANNEL_SERIALIZATION_MODE=${serialization}`,
  ];
  if (options[inheritEnv] === true) {
    return toBlock(offer === null ? variables : ipc.withOffer(variables, offer));
  }
  if (options.envPairs === undefined) options.envPairs = [];
  else validateArray(options.envPairs, 'options.envPairs');
  options.envPairs.push(...variables);
  if (offer !== null) options.envPairs = ipc.withOffer(options.envPairs, offer);
  return undefined;
}

/** The offer to speak brood's own framing that goes with the channel, or null. */
function offerFor(options) {
  // Without a descriptor to load the code with, the start fails a little later.
  if (options[offersUpgrade] !== true || loadChannel() !== 0) return null;
  return ipc.makeOffer(options.upgrade);
}

function environmentBlock(options) {
  return Array.isArray(options.envPairs) ? toBlock(options.envPairs) : null;
}

/**
 * Has the process started; returns 0 or a negative errno, with the parent's ends of the pipes in
 * `slots`.
 */
function start(child, options, slots, extraEnv) {
  requireChildPermission(options.file);
  if (slots === null) return EINVAL;
  if (slots.includes(PIPE)) requireStreamPermission();
  const errno = slots.includes(CHANNEL) ? loadChannel() : 0;
  if (errno !== 0) return errno;
  if (options.background) child._handle.onstart = (result) => onStart(child, result);
  const argv = toBlock(child.spawnargs);
  return child._handle.spawn(options, argv, environmentBlock(options), slots, extraEnv);
}

/** Makes the parent's streams and channel from the descriptors the native side returned. */
function openStreams(child, entries, slots) {
  const streams = [];
  for (let i = 0; i < entries.length; i++) {
    const stream = isPipe(entries[i]) ? openStream(child, entries, slots, streams) : null;
    if (stream !== null && i > 0) {
      child._closesNeeded++;
      stream.on('close', () => maybeClose(child));
    }
    streams.push(stream);
  }
  child.stdin = streams[0];
  child.stdout = streams[1];
  child.stderr = streams[2];
  child.stdio = streams;
}

/** The next stream behind `streams`. */
function openStream(child, entries, slots, streams) {
  const index = streams.length;
  try {
    return parentStream(slots[index], index);
  } catch (error) {
    const isLeft = (_, i) => i > index && (isPipe(entries[i]) || entries[i].ipc === true);
    closeEnds(slots.filter(isLeft));
    giveUp(child, streams);
    throw error;
  }
}

function openChannel(child, number, serialization, { busyPoll, maxMessageSize }, offer) {
  child._closesNeeded++;
  const onClose = () => maybeClose(child);
  try {
    const { native } = ipc.setupChannel(child, binding.claimEnd(number), serialization, {
      onClose,
      maxMessageSize: maxMessageSize ?? undefined,
      isRoomy: true,
      offer,
    });
    child._handle.setChannel(native.id);
    if (busyPoll > 0) child.channel.busyPoll(busyPoll);
  } catch (error) {
    // The kernel has no room for one more watched descriptor (ENOMEM, ENOSPC).
    giveUp(child, child.stdio);
    throw error;
  }
}

/** Ends a child whose start has failed after all: the caller of spawn() never gets to see it. */
function giveUp(child, streams) {
  for (const stream of streams) stream?.destroy();
  child._handle.abandon();
  child._handle = null;
  child.pid = undefined;
}

function publishStart(child, errno) {
  if (errno === 0) {
    if (tracing.end.hasSubscribers) tracing.end.publish({ process: child });
  } else if (tracing.error.hasSubscribers) {
    tracing.error.publish({ process: child, error: errnoException(errno, 'spawn') });
  }
}

/** What is known of the start at once; the events come a tick later. */
function reportStart(child, errno, isInBackground) {
  const isBegun = errno === 0 && isInBackground;
  if (isBegun) return;
  const isThrown = errno !== 0 && !isReportedLater(errno) && !isInBackground;
  if (isThrown) child._handle = null;
  publishStart(child, errno);
  if (errno === 0) {
    process.nextTick(emitSpawn, child);
    return;
  }
  if (isThrown) throw errnoException(errno, 'spawn');
  process.nextTick(reportFailure, child, errno);
}

/** The end of a start in the background. */
function onStart(child, errno) {
  publishStart(child, errno);
  if (errno === 0) {
    child.pid = child._handle.pid;
    child.emit('spawn');
  } else {
    reportFailure(child, errno);
  }
}

function setCommand(child, { file, args }) {
  validateString(file, 'options.file');
  child.spawnfile = file;
  if (args !== undefined) validateArray(args, 'options.args');
  child.spawnargs = args ?? [];
}

ChildProcess.prototype.spawn = function spawn(options) {
  validateObject(options, 'options');
  const { entries, ipcFd } = parseStdio(options.stdio || 'pipe', false);
  options.stdio = entries;
  validateOneOf(options.serialization, 'options.serialization', SERIALIZATIONS);
  const serialization = options.serialization || 'json';
  const offer = ipcFd === -1 ? null : offerFor(options);
  const extraEnv = ipcFd === -1 ? undefined : announceChannel(options, ipcFd, serialization, offer);
  setCommand(this, options);

  if (tracing.start.hasSubscribers) tracing.start.publish({ process: this, options });
  const slots = toSlots(entries);
  const errno = start(this, options, slots, extraEnv);
  const isInBackground = Boolean(options.background);
  reportStart(this, errno, isInBackground);
  // There are no pipes to make streams of.
  if (errno === EMFILE || errno === ENFILE || (errno !== 0 && isInBackground)) return errno;

  this.pid = this._handle.pid;
  openStreams(this, entries, slots);
  if (ipcFd !== -1) openChannel(this, slots[ipcFd], serialization, options, offer);
  for (const entry of entries) {
    if (entry.type === 'wrap') giveAway(entry);
  }
  return errno;
};

ChildProcess.prototype.kill = function kill(sig) {
  const signal = sig === 0 ? sig : signalNumber(sig === undefined ? 'SIGTERM' : sig);
  if (!this._handle) return false;

  const errno = this._handle.kill(signal);
  if (errno === 0) {
    this.killed = true;
    return true;
  }
  if (errno === EINVAL || errno === ENOSYS) throw errnoException(errno, 'kill');
  if (errno !== ESRCH) this.emit('error', errnoException(errno, 'kill'));
  return false;
};

ChildProcess.prototype.ref = function ref() {
  if (this._handle) this._handle.ref();
};

ChildProcess.prototype.unref = function unref() {
  if (this._handle) this._handle.unref();
};

ChildProcess.prototype[stock.dispose] = function () {
  if (!this.killed) this.kill();
};

module.exports = { ChildProcess, inheritEnv, offersUpgrade, tracing };
