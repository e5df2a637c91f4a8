'use strict';
// The worker's end of its lane: connections, or permits to accept them, come in batches from the
// primary's dispatcher and go to the server each is for; how busy the worker is goes back. Which
// servers there are says worker.js.

const { performance } = require('node:perf_hooks');
const binding = require('../binding');
const { calledByAddon } = require('../called_by_addon');
const { adoptConnection } = require('../ipc/native_handle');
const { hasDropMaxConnection, zeroMaxConnectionsRefuses } = require('../node_version');
const { OpenConnections } = require('./open_connections');
const { clearTimeout, setTimeout } = require('../start').timers;

// How old the measured utilisation may grow, and how old in a worker that is idle. One that gets no
// connections because it was busy has to tell soon that it is not any more.
const SAMPLE_AFTER_MS = 100;
const IDLE_SAMPLE_AFTER_MS = 1000;
const PERMILLE = 1000;
// What measuring itself comes to stays below.
const IDLE_PERMILLE = 20;
// Numbers of a batch that belong to one connection.
const ENTRY = 3;
// In the place of a descriptor: what is permitted is to be accepted.
const PERMIT = -1;
// Connections accepted before anything else is done: another worker may be quicker with the rest.
const MOST_ACCEPTED = 8;

let isCallbackSet = false;

function setCallback() {
  if (isCallbackSet) return;
  isCallbackSet = true;
  binding.setLaneCallback(
    calledByAddon(function onBatch(batch) {
      if (batch === null) this.ended();
      else this.deliver(batch);
    }),
  );
}

function snapshot() {
  return { at: performance.now(), loop: performance.eventLoopUtilization() };
}

class Lane {
  #id = 0;
  #onEnd;
  // Listener id -> { server, handle, kind }.
  #servers = new Map();
  #connections = new OpenConnections(() => this.#report());
  #utilization = 0;
  #sampled = snapshot();
  #timer;

  /** `onEnd()` is called when the primary has closed the lane. */
  constructor(onEnd) {
    this.#onEnd = onEnd;
  }

  /** Takes over the lane's socket; returns 0 or a negative errno. */
  open(fd) {
    setCallback();
    const id = binding.laneOpen(this, fd);
    if (id < 0) return id;
    this.#id = id;
    this.#sampleLater();
    return 0;
  }

  get isOpen() {
    return this.#id !== 0;
  }

  /** From here on `handle`, the one of `server`, gets the listener's connections. */
  add(listener, server, handle, kind) {
    this.#servers.set(listener, { server, handle, kind });
    binding.laneExpect(this.#id, listener);
    this.#connections.watch(server);
    this.#report();
  }

  remove(listener) {
    this.#servers.delete(listener);
    if (this.#id !== 0) binding.laneForget(this.#id, listener);
  }

  /** Called by the addon with [listener, token, fd, ...]; the descriptors are ours. */
  deliver(batch) {
    let at = 0;
    try {
      while (at < batch.length) {
        at += ENTRY;
        this.#deliverOne(batch[at - 3], batch[at - 2], batch[at - 1]);
      }
    } finally {
      // A listener has thrown, which may be the end of this worker: the rest is for another.
      for (; at < batch.length; at += ENTRY) {
        if (batch[at + 2] !== PERMIT) this.#decline(batch[at + 1], batch[at + 2]);
      }
    }
    if (performance.now() - this.#sampled.at >= SAMPLE_AFTER_MS) this.#sample();
  }

  #deliverOne(listener, token, fd) {
    if (fd === PERMIT) {
      this.#acceptFrom(listener);
      return;
    }
    const entry = this.#openEntry(listener);
    const connection = entry && adoptConnection(fd, entry.kind);
    if (connection) this.#pass(entry, connection);
    else this.#decline(token, fd);
  }

  /** Accepts what has come, as far as it is permitted. */
  #acceptFrom(listener) {
    for (let count = 0; count < MOST_ACCEPTED; count++) {
      const entry = this.#openEntry(listener);
      if (entry === undefined) {
        binding.laneRefuse(this.#id, listener);
        return;
      }
      const fd = binding.laneAccept(this.#id, listener);
      if (fd < 0) return;
      const connection = adoptConnection(fd, entry.kind);
      if (connection === null) binding.closeDescriptor(fd);
      else this.#pass(entry, connection);
    }
  }

  /** Gives a connection to the server; counted before, for its listener may take long. */
  #pass({ server, handle }, connection) {
    const counted = this.#connections.total + 1;
    this.#report(counted);
    try {
      handle.onconnection(0, connection);
    } finally {
      this.#connections.look(server);
      if (this.#connections.total !== counted) this.#report();
    }
  }

  /** What the listener's connections are for, if it takes any now. */
  #openEntry(listener) {
    const entry = this.#servers.get(listener);
    if (entry?.handle.onconnection === undefined || isFull(entry.server)) return undefined;
    return entry;
  }

  #decline(token, fd) {
    binding.laneDecline(this.#id, token);
    binding.closeDescriptor(fd);
  }

  #sample() {
    if (this.#id === 0) return;
    const now = snapshot();
    const { utilization } = performance.eventLoopUtilization(now.loop, this.#sampled.loop);
    this.#utilization = Math.round(utilization * PERMILLE);
    this.#sampled = now;
    this.#connections.lookAtAll();
    this.#report();
    this.#sampleLater();
  }

  #sampleLater() {
    const isIdle = this.#utilization <= IDLE_PERMILLE;
    const delay = isIdle ? IDLE_SAMPLE_AFTER_MS : SAMPLE_AFTER_MS;
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.#sample(), delay).unref();
  }

  #report(connections = this.#connections.total) {
    if (this.#id !== 0) binding.laneReport(this.#id, connections, this.#utilization);
  }

  /** Called by the addon when the primary has closed its end. */
  ended() {
    this.close();
    this.#onEnd();
  }

  close() {
    if (this.#id === 0) return;
    clearTimeout(this.#timer);
    binding.laneClose(this.#id);
    this.#id = 0;
  }
}

/** Whether the server's own limit sends the connection back, as Node's worker would. */
function isFull({ maxConnections, _connections, dropMaxConnection }) {
  const isLimited = zeroMaxConnectionsRefuses ? maxConnections != null : Boolean(maxConnections);
  const dropsThem = hasDropMaxConnection && dropMaxConnection;
  return isLimited && _connections >= maxConnections && !dropsThem;
}

module.exports = { Lane };
