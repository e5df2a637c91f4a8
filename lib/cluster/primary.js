'use strict';
// The primary at work: what happens to workers and what they say becomes states and events, in
// Node's order. Sockets are listeners.js's, the way to one worker is link.js's.

const EventEmitter = require('node:events');
const { channelOf, checkMessage } = require('../ipc');
const { ERR_INVALID_ARG_VALUE } = require('../errors');
const { nameActivated } = require('./activation');
const { Link } = require('./link');
const { Listeners } = require('./listeners');
const { normalized, requestOf } = require('./messages');
const { POLICIES } = require('./policies');
const { CHANGEABLE, policyNumber, userPlace } = require('./scheduling');
const { mergeSettings } = require('./settings');
const { collect } = require('./stats');
const { Worker, links } = require('./worker_class');
const { forkWorker } = require('./worker_process');
const { clearTimeout, setTimeout } = require('../start').timers;

// How long the end of a channel may come after the end of its process, in milliseconds.
const CHANNEL_END_MS = 100;

class Primary {
  #cluster;
  #intercom = new EventEmitter();
  #listeners;
  #isSetUp = false;
  #lastId = 0;

  constructor(cluster) {
    this.#cluster = cluster;
    this.#listeners = new Listeners(() => cluster.settings);
  }

  setupPrimary(options) {
    const cluster = this.#cluster;
    const settings = mergeSettings(cluster.settings, options);
    nameActivated(settings.activation);
    cluster.settings = settings;
    if (!this.#isSetUp) this.#setUpOnce();
    process.nextTick(() => cluster.emit('setup', settings));
  }

  // The policy is settled here: a later assignment to schedulingPolicy has no effect.
  #setUpOnce() {
    const { schedulingPolicy } = this.#cluster;
    this.#listeners.defaultPolicy = policyNumber(schedulingPolicy, 'cluster.schedulingPolicy');
    process.on('internalMessage', ({ cmd }) => this.#onOwnParent(cmd));
    this.#isSetUp = true;
  }

  // Only our own parent, if there is one, speaks to `process`.
  #onOwnParent(cmd) {
    if (cmd !== 'NODE_DEBUG_ENABLED') return;
    for (const worker of Object.values(this.#cluster.workers)) {
      const debug = () => process._debugProcess(worker.process.pid);
      if (worker.state === 'online' || worker.state === 'listening') debug();
      else worker.once('online', debug);
    }
  }

  fork(env) {
    const cluster = this.#cluster;
    this.setupPrimary();
    const id = ++this.#lastId;
    const { uid } = cluster.settings;
    const worker = new Worker({ id, process: forkWorker(id, cluster.settings, env) });
    const isForeign = uid != null && uid !== process.geteuid();
    const link = new Link(worker, isForeign, () => this.#sendAway(link));
    links.set(worker, link);

    worker.on('message', (message, handle) => cluster.emit('message', worker, message, handle));
    worker.process.once('exit', (code, signal) => this.#onExit(link, code, signal));
    worker.process.once('disconnect', () => this.#onDisconnect(link));
    worker.process.on('internalMessage', (message, handle) => {
      this.#onInternalMessage(link, message, handle);
    });
    process.nextTick(() => cluster.emit('fork', worker));
    cluster.workers[id] = worker;
    return worker;
  }

  // The sockets are given up at once. The worker's events wait for the end of its channel, which is
  // theirs in Node's order; the dispatcher has had it until now. Only if a process that the worker
  // has left behind holds it open do they come first.
  #onExit(link, code, signal) {
    const { worker } = link;
    this.#removeFromListeners(link);
    // The channel may have ended before it was known how the process would.
    if (leavesOnPurpose(worker)) this.#listeners.hasNotCrashed(link);
    link.end();
    if (!worker.isConnected()) {
      this.#emitExit(worker, code, signal);
      return;
    }
    link.isExiting = true;
    const finish = () => {
      clearTimeout(timer);
      link.isExiting = false;
      worker.process.removeListener('disconnect', finish);
      this.#emitExit(worker, code, signal);
    };
    const timer = setTimeout(finish, CHANNEL_END_MS);
    worker.process.once('disconnect', finish);
  }

  #emitExit(worker, code, signal) {
    if (!worker.isConnected()) this.#remove(worker);
    worker.exitedAfterDisconnect = Boolean(worker.exitedAfterDisconnect);
    worker.state = 'dead';
    worker.emit('exit', code, signal);
    this.#cluster.emit('exit', worker, code, signal);
  }

  #onDisconnect(link) {
    const { worker } = link;
    this.#removeFromListeners(link);
    if (worker.isDead() && !link.isExiting) this.#remove(worker);
    worker.exitedAfterDisconnect = Boolean(worker.exitedAfterDisconnect);
    worker.state = 'disconnected';
    worker.emit('disconnect');
    this.#cluster.emit('disconnect', worker);
  }

  #removeFromListeners(link) {
    this.#listeners.removeWorker(link, !leavesOnPurpose(link.worker));
  }

  #remove(worker) {
    const { workers } = this.#cluster;
    delete workers[worker.id];
    if (Object.keys(workers).length === 0) this.#intercom.emit('disconnect');
  }

  // worker.disconnect()
  #sendAway(link) {
    link.worker.exitedAfterDisconnect = true;
    link.send({ act: 'disconnect' });
    this.#removeFromListeners(link);
    this.#remove(link.worker);
  }

  disconnect(callback) {
    const workers = Object.values(this.#cluster.workers);
    if (workers.length === 0) process.nextTick(() => this.#intercom.emit('disconnect'));
    for (const worker of workers) {
      if (worker.isConnected()) worker.disconnect();
    }
    this.#listeners.closeKept();
    if (typeof callback === 'function') this.#intercom.once('disconnect', callback);
  }

  #onInternalMessage(link, message, handle) {
    if (message.cmd === 'NODE_CLUSTER') this.#onRequest(link, message);
    else if (message.cmd === 'NODE_BROOD') this.#onLaneMessage(link, message);
    else return;
    // No request comes with a handle.
    (handle?.destroy ?? handle?.close)?.call(handle);
  }

  #onRequest(link, message) {
    switch (requestOf(message)) {
      case 'online':
        return this.#setState(link, 'online');
      case 'listening':
        return this.#setState(link, 'listening', describe(message));
      case 'queryServer':
        return this.#query(link, message);
      case 'close':
        return this.#listeners.close(link, message.key);
      case 'exitedAfterDisconnect':
        link.worker.exitedAfterDisconnect = true;
        return link.answer(message);
      case false:
        return link.cutOff(`a cluster message of kind "${message.act}" is malformed`);
      default:
        return undefined;
    }
  }

  #setState(link, state, ...details) {
    const { worker } = link;
    worker.state = state;
    worker.emit(state, ...details);
    this.#cluster.emit(state, worker, ...details);
  }

  #query(link, message) {
    // A worker that is leaving, or has left, has no use for a socket any more.
    if (link.worker.exitedAfterDisconnect || link.worker.isDead()) return;
    this.#listeners.query(link, normalized(message), (fields, handle) => {
      link.answer(message, fields, handle);
    });
  }

  #onLaneMessage(link, { act, version, listener }) {
    // A worker that listens already does so without knowing which listener is which.
    if (act === 'lane' && !this.#listeners.has(link)) link.offerLane(version);
    else if (act === 'ready') this.#listeners.ready(link, listener);
    else if (act === 'no-lane' && link.hasLane) this.#dropLane(link);
  }

  #dropLane(link) {
    link.dropLane();
    this.#listeners.readmit(link);
  }

  stats() {
    return collect(this.#links(), (link) => this.#listeners.sharesSocket(link));
  }

  listeningSockets() {
    return this.#listeners.describe();
  }

  #links() {
    const workers = Object.values(this.#cluster.workers);
    return workers.map((worker) => links.get(worker)).filter((link) => link !== undefined);
  }

  // Serialised once for each codec in use, which is one unless the settings have changed meanwhile,
  // and for all of them before anybody gets it.
  broadcast(message) {
    checkMessage(message);
    const connected = this.#links().filter(({ worker }) => worker.isConnected());
    const channels = connected.map(({ worker }) => channelOf(worker.process));
    const codecs = new Set(channels.map(({ native }) => native.codec));
    const encoded = new Map(Array.from(codecs, (codec) => [codec, codec.encode(message)]));
    const write = (channel) => channel.writeEncoded(encoded.get(channel.native.codec));
    return channels.filter(write).length;
  }

  // For all listeners, or for those at one port or path, now and in future.
  setScheduler(policy, at) {
    if (policy === 'none' || policy === POLICIES.SCHED_NONE) {
      const reason = 'is settled when a socket is bound: use the scheduling setting';
      throw new ERR_INVALID_ARG_VALUE('policy', policy, reason);
    }
    const number = policyNumber(policy, 'policy', CHANGEABLE);
    if (at === undefined) {
      this.#cluster.schedulingPolicy = number;
      this.#listeners.setPolicy(number);
    } else {
      this.#listeners.setPolicyAt(userPlace(at), number);
    }
  }
}

/** Whether a worker has been sent away, has said that it leaves, or has ended without an error. */
function leavesOnPurpose({ exitedAfterDisconnect, process }) {
  return Boolean(exitedAfterDisconnect) || process.exitCode === 0;
}

/** What 'listening' says of a server. */
function describe({ addressType, address, port, fd }) {
  return { addressType, address, port, fd };
}

module.exports = { Primary };
