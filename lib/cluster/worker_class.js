'use strict';
// cluster.Worker as the primary sees it: one worker with its process, its state and its events.

const EventEmitter = require('node:events');
const { Worker: StockWorker } = require('node:cluster');

// What the primary keeps of each worker; a Worker that somebody else has made has none.
const links = new WeakMap();

/** Callable without `new`, as Node's. */
function Worker(options) {
  if (!(this instanceof Worker)) return new Worker(options);
  EventEmitter.call(this);
  const { id, process, state } = options !== null && typeof options === 'object' ? options : {};
  this.exitedAfterDisconnect = undefined;
  this.state = state || 'none';
  this.id = id | 0;
  if (process) {
    this.process = process;
    process.on('error', (...details) => forwardError(this, details));
    process.on('message', (message, handle) => this.emit('message', message, handle));
  }
}

// A worker of either kind is an instance of Node's class, too.
Object.setPrototypeOf(Worker.prototype, StockWorker.prototype);
Object.setPrototypeOf(Worker, EventEmitter);

// What a worker can bring about by what it says.
const OF_THE_WORKER = ['ERR_BROOD_IPC_MESSAGE', 'ERR_BROOD_IPC_PROTOCOL'];

/** A worker that breaks the protocol may end itself, never a primary that does not listen. */
function forwardError(worker, [error, ...details]) {
  const isOfTheWorker = OF_THE_WORKER.includes(error?.code);
  if (isOfTheWorker && worker.listenerCount('error') === 0) {
    process.emitWarning(error.message, { code: error.code });
  } else {
    worker.emit('error', error, ...details);
  }
}

Worker.prototype.kill = function (...args) {
  return this.destroy(...args);
};

Worker.prototype.destroy = function (signal) {
  this.process.kill(signal || 'SIGTERM');
};

Worker.prototype.send = function (...args) {
  return this.process.send(...args);
};

Worker.prototype.isDead = function () {
  return this.process.exitCode != null || this.process.signalCode != null;
};

Worker.prototype.isConnected = function () {
  return this.process.connected;
};

Worker.prototype.disconnect = function () {
  links.get(this)?.leave();
  return this;
};

Object.defineProperties(Worker.prototype, {
  /** How many connections the worker gets compared with others, from 1 to 65535. */
  weight: {
    configurable: true,
    get() {
      return links.get(this)?.weight;
    },
    set(weight) {
      links.get(this)?.setWeight(weight);
    },
  },
  /** A draining worker keeps its connections and gets no new ones. */
  draining: {
    configurable: true,
    get() {
      return links.get(this)?.draining;
    },
    set(draining) {
      links.get(this)?.setDraining(draining);
    },
  },
});

module.exports = { Worker, links };
