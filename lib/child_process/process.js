'use strict';
// The object behind `child._handle`: one process, by way of the native side. It knows nothing of
// streams or events; whoever owns it sets `onexit`.

const binding = require('../binding');
const { calledByAddon } = require('../called_by_addon');
const { flushGathered } = require('../ipc/gathering');
const { signalName } = require('../validators');

// Bits of the native side's `flags`.
const DETACHED = 1;
const SET_UID = 2;
const SET_GID = 4;
const DIE_WITH_PARENT = 8;
const REFERENCED = 16;
const BACKGROUND = 32;

const ESRCH = -3;
const SIGKILL = 9;

// Filled by the native side before it reports an exit, in the order of process.resourceUsage().
const usage = new Float64Array(16);
let usageFields;

let isCallbackSet = false;

// The arrays that the native side reads the slots from and writes them to, one for each length.
// Making a typed array for every spawn would cost more than all else that is done here.
const slotArrays = [];
const LONGEST_KEPT = 8;

function slotArray(length) {
  if (length > LONGEST_KEPT) return new Int32Array(length);
  return (slotArrays[length] ??= new Int32Array(length));
}

/** What the native side calls when a process has ended, with its Process as `this`. */
const onProcessExit = calledByAddon(function onProcessExit(exitCode, signalNumber) {
  this.ended();
  this.onexit(exitCode, signalName(signalNumber), resourceUsage(usage));
});

/** What it calls when a start in the background is over: with the process's number or an errno. */
const onProcessStart = calledByAddon(function onProcessStart(result) {
  this.started(result);
});

/** The native side's numbers as an object like the one of process.resourceUsage(). */
function resourceUsage(numbers) {
  usageFields ??= Object.keys(process.resourceUsage());
  const result = {};
  for (let i = 0; i < usageFields.length; i++) result[usageFields[i]] = numbers[i];
  return result;
}

/** The flags that starting a process takes, synchronously or not. */
function spawnFlags(options) {
  let flags = 0;
  if (options.detached) flags |= DETACHED;
  if (options.uid != null) flags |= SET_UID;
  if (options.gid != null) flags |= SET_GID;
  if (options.dieWithParent) flags |= DIE_WITH_PARENT;
  return flags;
}

class Process {
  #isReferenced = true;
  #isWatched = false;
  // The number of a start in the background that is not over.
  #launch = 0;
  #channel = 0;

  /**
   * Starts the process and returns 0 or a negative errno; `slots` then holds the parent's ends of
   * pipes. In the background it is only begun, and `onstart` gets 0 or a negative errno.
   */
  spawn(options, argv, env, slots, extraEnv) {
    if (!isCallbackSet) {
      binding.setProcessCallbacks(onProcessExit, onProcessStart, usage);
      isCallbackSet = true;
    }
    const { file, cwd, uid, gid, limits } = options;
    let flags = spawnFlags(options);
    if (this.#isReferenced) flags |= REFERENCED;
    if (options.background) flags |= BACKGROUND;
    const directory = typeof cwd === 'string' && cwd !== '' ? cwd : null;
    // No code but ours may run between here and the copy back: it could spawn, too.
    const native = slotArray(slots.length);
    for (let i = 0; i < slots.length; i++) native[i] = slots[i];
    const result = binding.spawn(
      file,
      argv,
      env,
      directory,
      native,
      flags,
      uid ?? 0,
      gid ?? 0,
      limits,
      extraEnv,
      this,
    );
    for (let i = 0; i < slots.length; i++) slots[i] = native[i];
    if (result < 0) return result;
    if (options.background) this.#launch = result;
    else this.#watch(result);
    return 0;
  }

  #watch(pid) {
    this.#isWatched = true;
    this.pid = pid;
    this.#connect();
  }

  /** The number of its IPC channel, which is read to its end before `onexit` is called. */
  setChannel(number) {
    this.#channel = number;
    this.#connect();
  }

  #connect() {
    if (this.#isWatched && this.#channel !== 0) binding.processChannel(this.pid, this.#channel);
  }

  /** The start in the background is over. */
  started(result) {
    this.#launch = 0;
    if (result > 0) this.#watch(result);
    this.onstart(Math.min(result, 0));
  }

  /** Sends a signal by number; returns 0 or a negative errno. */
  kill(signal) {
    flushGathered();
    if (this.#launch !== 0) return binding.launchKill(this.#launch, signal);
    return this.#isWatched ? binding.processKill(this.pid, signal) : ESRCH;
  }

  ref() {
    this.#isReferenced = true;
    if (this.#launch !== 0) binding.launchRef(this.#launch, true);
    if (this.#isWatched) binding.processRef(this.pid);
  }

  unref() {
    this.#isReferenced = false;
    if (this.#launch !== 0) binding.launchRef(this.#launch, false);
    if (this.#isWatched) binding.processUnref(this.pid);
  }

  hasRef() {
    return this.#isReferenced && (this.#isWatched || this.#launch !== 0);
  }

  /**
   * Stops watching: neither `onexit` nor `onstart` will be called. `callback` comes later, as with
   * Node's handles.
   */
  close(callback) {
    if (this.#launch !== 0) binding.launchClose(this.#launch);
    this.#launch = 0;
    if (this.#isWatched) binding.processClose(this.pid);
    this.#isWatched = false;
    if (typeof callback === 'function') process.nextTick(() => callback.call(this));
  }

  /** Ends a process that nobody is to hear of; it is reaped when the event loop comes to it. */
  abandon() {
    this.onstart = () => {};
    this.onexit = () => {};
    this.unref();
    this.kill(SIGKILL);
  }

  /** The native side has reaped the process; its number may belong to another one by now. */
  ended() {
    this.#isWatched = false;
  }
}

module.exports = { ESRCH, Process, resourceUsage, spawnFlags };
