'use strict';
// In a cluster worker, where Node's own cluster goes on doing the rest: asks the primary, if it is
// one of brood's, for a lane, and learns which server belongs to which of the primary's listeners.

const cluster = require('node:cluster');
const binding = require('../binding');
const { debug } = require('../debug');
const { Lane } = require('./lane');
const { LANE_VERSION } = require('./lane_version');
const { QUIETLY } = require('../ipc/internal_message');

// The message that Node's own listener is about to handle.
let current;
let lane;

function tell(fields) {
  if (process.connected) process._send({ cmd: 'NODE_BROOD', ...fields }, undefined, QUIETLY);
}

function onInternalMessage(message, handle) {
  current = message;
  if (message.cmd === 'NODE_HANDLE' && !process.channel) refuseLate(message, handle);
  if (message.cmd === 'NODE_BROOD' && message.act === 'lane') openLane(handle);
}

/**
 * A handle, the lane as a rule, that came after this process has hung up. Node's own listener, which is
 * next, would acknowledge it on the closed channel, and that is an assertion error.
 */
function refuseLate(message, handle) {
  message.cmd = 'NODE_HANDLE_LATE';
  handle?.close();
}

/** The lane's socket has come as a handle of Node's; the addon reads it, not the event loop. */
function openLane(handle) {
  if (handle === undefined || handle === null) return;
  const fd = lane.isOpen ? -1 : binding.duplicateDescriptor(handle.fd);
  handle.close();
  const errno = fd < 0 ? fd : lane.open(fd);
  if (errno === 0) return;
  debug('the lane cannot be opened: %d', errno);
  tell({ act: 'no-lane' });
}

/** Stands before Node's _getServer, which calls `callback` while the primary's reply is `current`. */
function withListeners(getServer) {
  return function _getServer(server, options, callback) {
    return getServer.call(this, server, options, (errno, handle) => {
      const { listener, sockname } = current ?? {};
      callback(errno, handle);
      const isServing = !errno && Number.isInteger(listener) && handle?.onconnection !== undefined;
      if (!isServing) return;
      if (lane.isOpen) serve(listener, server, handle, sockname ? 'tcp' : 'pipe');
      // It was lost on the way, if there was one: it stood before the reply.
      else tell({ act: 'no-lane' });
    });
  };
}

function serve(listener, server, handle, kind) {
  lane.add(listener, server, handle, kind);
  const { close } = handle;
  handle.close = function (...args) {
    lane.remove(listener);
    return close.apply(this, args);
  };
  // Until this arrives no connection is sent: the lane might be faster than the reply.
  tell({ act: 'ready', listener });
}

/**
 * Takes the primary's offer out of the environment and accepts it, where there is one and this
 * process is a worker.
 */
function join() {
  const offer = process.env.BROOD_CLUSTER;
  delete process.env.BROOD_CLUSTER;
  if (offer !== String(LANE_VERSION) || !cluster.isWorker || !process.connected) return;
  if (cluster.worker.state === 'listening') return;
  lane = new Lane(() => tell({ act: 'no-lane' }));
  process.prependListener('internalMessage', onInternalMessage);
  process.once('disconnect', () => lane.close());
  cluster._getServer = withListeners(cluster._getServer);
  tell({ act: 'lane', version: LANE_VERSION });
}

module.exports = { join };
