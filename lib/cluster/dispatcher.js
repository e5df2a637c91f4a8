'use strict';
// Every call the primary makes of the native dispatcher, by name. Results are numbers, negative
// ones errnos; who is a worker and when it may have connections is decided by the callers.

const binding = require('../binding');

const WORKER_FIELDS = 8;
const LISTENER_FIELDS = 4;

/** The number of each field in the rows of dispatcherStats(). */
const WORKER = {
  lane: 1,
  accepted: 2,
  inFlight: 3,
  waiting: 4,
  handedBack: 5,
  utilization: 6,
};

let lastWorkerId = 0;

/** A number for a worker that no other cluster of this thread has given to one of its own. */
function newWorkerId() {
  return ++lastWorkerId;
}

/** Listens on a duplicate of `fd`; returns the listener's id. Nothing is accepted before `add`. */
function listen(fd, key, policy, backlog) {
  return binding.dispatcherListen(fd, key, policy, backlog);
}

/** `isOwn`: nobody but workers has the socket, too, and they lose it. */
function close(listenerId, isOwn) {
  binding.dispatcherClose(listenerId, isOwn);
}

/** Lets a worker have the listener's connections. */
function add(listenerId, workerId, channelId) {
  return binding.dispatcherAdd(listenerId, workerId, channelId);
}

function remove(listenerId, workerId) {
  binding.dispatcherRemove(listenerId, workerId);
}

function setPolicy(listenerId, policy) {
  binding.dispatcherPolicy(listenerId, policy);
}

function setWorker(workerId, weight, draining) {
  binding.dispatcherWorker(workerId, weight, draining);
}

/**
 * Opens a lane to a worker; returns the descriptor of the worker's end, which is the caller's.
 * `mayAccept`: the worker may have the listening sockets themselves.
 */
function openLane(workerId, mayAccept) {
  return binding.dispatcherLane(workerId, mayAccept);
}

/** The worker's lane has ended, and the worker may live on. */
function forget(workerId) {
  binding.dispatcherForget(workerId);
}

/** The worker has ended. */
function bury(workerId) {
  binding.dispatcherBury(workerId);
}

/** Map of worker id -> what the dispatcher knows of it; null stands for what it cannot know. */
function workerStats() {
  const rows = binding.dispatcherStats();
  const found = new Map();
  for (let at = 0; at + WORKER_FIELDS <= rows.length; at += WORKER_FIELDS) {
    const known = (field) => (rows[at + field] < 0 ? null : rows[at + field]);
    const permille = known(WORKER.utilization);
    found.set(rows[at], {
      lane: rows[at + WORKER.lane] === 1,
      accepted: known(WORKER.accepted),
      inFlight: known(WORKER.inFlight),
      waiting: known(WORKER.waiting),
      handedBack: known(WORKER.handedBack),
      eventLoopUtilization: permille === null ? null : permille / 1000,
    });
  }
  return found;
}

/** Map of listener id -> { accepted, waiting, workers }. */
function listenerStats() {
  const rows = binding.dispatcherListeners();
  const found = new Map();
  for (let at = 0; at + LISTENER_FIELDS <= rows.length; at += LISTENER_FIELDS) {
    const [id, accepted, waiting, workers] = rows.slice(at, at + LISTENER_FIELDS);
    found.set(id, { accepted, waiting, workers });
  }
  return found;
}

module.exports = {
  add,
  bury,
  close,
  forget,
  listen,
  listenerStats,
  newWorkerId,
  openLane,
  remove,
  setPolicy,
  setWorker,
  workerStats,
};
