'use strict';
// exec() and execFile(): a child whose output is gathered and handed to one callback, and their
// promise forms.

const { getSystemErrorName } = require('node:util');
const { ERR_CHILD_PROCESS_STDIO_MAXBUFFER, genericNodeError } = require('../errors');
const { validateKillSignal, validateMaxBuffer, validateTimeout } = require('../validators');
const { normalizeExec, normalizeExecFile, ownOptions } = require('./normalize');
const { spawn } = require('./spawn');
const { clearTimeout, setTimeout } = require('../start').timers;

/** Gathers what one of the child's streams says, up to a limit. */
class Output {
  #stream;
  #encoding;
  #chunks = [];
  #length = 0;

  constructor(stream, encoding) {
    this.#stream = stream;
    this.#encoding = encoding;
  }

  /** Calls `onOverflow` when more than `limit` bytes have come; the rest is not kept. */
  gather(limit, onOverflow) {
    const stream = this.#stream;
    if (!stream) return;
    if (this.#encoding) stream.setEncoding(this.#encoding);
    stream.on('data', (chunk) => {
      if (limit === Infinity) {
        this.#chunks.push(chunk);
        return;
      }
      const before = this.#length;
      this.#length += byteLength(chunk, stream.readableEncoding);
      if (this.#length <= limit) {
        this.#chunks.push(chunk);
        return;
      }
      this.#chunks.push(chunk.slice(0, limit - before));
      onOverflow();
    });
  }

  /**
   * Everything that came, as text where there is an encoding, ours or one that the caller set on
   * the stream.
   */
  value() {
    const isText = this.#encoding || this.#stream?.readableEncoding;
    return isText ? this.#chunks.join('') : Buffer.concat(this.#chunks);
  }

  destroy() {
    if (this.#stream) this.#stream.destroy();
  }
}

function byteLength(chunk, encoding) {
  return encoding ? Buffer.byteLength(chunk, encoding) : chunk.length;
}

/** One run of execFile(): watches the child and calls the callback once. */
class Run {
  #child;
  #command;
  #args;
  #killSignal;
  #callback;
  #stdout;
  #stderr;
  #timer;
  #error = null;
  #isKilled = false;
  #isOver = false;

  constructor(child, file, args, options, callback) {
    const { encoding, killSignal, maxBuffer, timeout } = options;
    const decodeAs = encoding !== 'buffer' && Buffer.isEncoding(encoding) ? encoding : null;
    this.#child = child;
    this.#command = file;
    this.#args = args;
    this.#killSignal = killSignal;
    this.#callback = callback;
    this.#stdout = new Output(child.stdout, decodeAs);
    this.#stderr = new Output(child.stderr, decodeAs);
    if (timeout > 0) this.#timer = setTimeout(() => this.#kill(), timeout);
    // Given as undefined there is no limit; left out there is the default.
    const limit = maxBuffer === undefined ? Infinity : maxBuffer;
    this.#stdout.gather(limit, () => this.#overflow('stdout'));
    this.#stderr.gather(limit, () => this.#overflow('stderr'));
    child.addListener('close', (code, signal) => this.#finish(code, signal));
    child.addListener('error', (error) => this.#fail(error));
  }

  #overflow(name) {
    this.#error = new ERR_CHILD_PROCESS_STDIO_MAXBUFFER(name);
    this.#kill();
  }

  #closeOutput() {
    this.#stdout.destroy();
    this.#stderr.destroy();
  }

  #kill() {
    this.#closeOutput();
    this.#isKilled = true;
    try {
      this.#child.kill(this.#killSignal);
    } catch (error) {
      this.#error = error;
      this.#finish();
    }
  }

  #fail(error) {
    this.#error = error;
    this.#closeOutput();
    this.#finish();
  }

  #finish(code, signal) {
    if (this.#isOver) return;
    this.#isOver = true;
    clearTimeout(this.#timer);
    if (!this.#callback) return;

    const stdout = this.#stdout.value();
    const stderr = this.#stderr.value();
    if (this.#error === null && code === 0 && signal === null) {
      this.#callback(null, stdout, stderr);
      return;
    }
    const command = [this.#command, ...this.#args].join(' ');
    const error = this.#error ?? this.#commandFailed(command, stderr, code, signal);
    error.cmd = command;
    this.#callback(error, stdout, stderr);
  }

  #commandFailed(command, stderr, code, signal) {
    return genericNodeError(`Command failed: ${command}\n${stderr}`, {
      code: code < 0 ? getSystemErrorName(code) : code,
      killed: this.#child.killed || this.#isKilled,
      signal,
    });
  }
}

function execFile(file, args, options, callback) {
  ({ file, args, options, callback } = normalizeExecFile(file, args, options, callback));
  options = ownOptions({
    encoding: 'utf8',
    timeout: 0,
    killSignal: 'SIGTERM',
    ...options,
  });
  validateTimeout(options.timeout);
  validateMaxBuffer(options.maxBuffer);
  options.killSignal = validateKillSignal(options.killSignal);

  const child = spawn(file, args, {
    cwd: options.cwd,
    env: options.env,
    gid: options.gid,
    shell: options.shell,
    signal: options.signal,
    uid: options.uid,
    windowsHide: Boolean(options.windowsHide),
    windowsVerbatimArguments: Boolean(options.windowsVerbatimArguments),
    dieWithParent: options.dieWithParent,
    limits: options.limits,
    background: options.background,
  });
  new Run(child, file, args, options, callback);
  return child;
}

// The object whose execFile exec() calls: people replace that function to watch or to mock, and
// exec() must notice.
let facade = require('./index');

/** Names the object that users see as the module, when it is another one. */
function setFacade(exports) {
  facade = exports;
}

function exec(command, options, callback) {
  const normalized = normalizeExec(command, options, callback);
  return facade.execFile(normalized.file, normalized.options, normalized.callback);
}

/** What the promise forms of exec() and execFile() do: a promise that has the child as a property. */
function promised(run, args) {
  let settle;
  const promise = new Promise((resolve, reject) => {
    settle = (error, stdout, stderr) => {
      if (error === null) resolve({ stdout, stderr });
      else reject(Object.assign(error, { stdout, stderr }));
    };
  });
  // Outside the promise: bad arguments are thrown, not rejected.
  promise.child = run(...args, settle);
  return promise;
}

module.exports = { exec, execFile, promised, setFacade };
