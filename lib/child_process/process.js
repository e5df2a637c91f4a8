'use strict';
// The object behind `child._handle`: one process, by way of the native side. It knows nothing of
// streams or events; whoever owns it sets `onexit`.

const binding = require('../binding');
const { signalName } = require('../validators');

// Bits of the native side's `flags`.
const DETACHED = 1;
const SET_UID = 2;
const SET_GID = 4;
const DIE_WITH_PARENT = 8;
const REFERENCED = 16;

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
function onProcessExit(exitCode, signalNumber) {
  this.ended();
  this.onexit(exitCode, signalName(signalNumber), resourceUsage(usage));
}

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

  /**
   * Starts the process and returns 0 or a negative errno; `slots` then holds the parent's ends of
   * pipes.
   */
  spawn(options, argv, env, slots, extraEnv) {
    if (!isCallbackSet) {
      binding.setProcessCallback(onProcessExit, usage);
      isCallbackSet = true;
    }
    const { file, cwd, uid, gid, limits } = options;
    const flags = spawnFlags(options) | (this.#isReferenced ? REFERENCED : 0);
    const directory = typeof cwd === 'string' && cwd !== '' ? cwd : null;
    // No code but ours may run between here and the copy back: it could spawn, too.
    const native = slotArray(slots.length);
    for (let i = 0; i < slots.length; i++) native[i] = slots[i];
    const result = binding.spawn(
      this,
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
    );
    for (let i = 0; i < slots.length; i++) slots[i] = native[i];
    if (result < 0) return result;
    this.#isWatched = true;
    this.pid = result;
    return 0;
  }

  /** Sends a signal by number; returns 0 or a negative errno. */
  kill(signal) {
    return this.#isWatched ? binding.processKill(this.pid, signal) : ESRCH;
  }

  ref() {
    this.#isReferenced = true;
    if (this.#isWatched) binding.processRef(this.pid);
  }

  unref() {
    this.#isReferenced = false;
    if (this.#isWatched) binding.processUnref(this.pid);
  }

  hasRef() {
    return this.#isReferenced && this.#isWatched;
  }

  /** Stops watching: `onexit` will not be called. `callback` comes later, as with Node's handles. */
  close(callback) {
    if (this.#isWatched) binding.processClose(this.pid);
    this.#isWatched = false;
    if (typeof callback === 'function') process.nextTick(() => callback.call(this));
  }

  /** Ends a process that nobody is to hear of; it is reaped when the event loop comes to it. */
  abandon() {
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
