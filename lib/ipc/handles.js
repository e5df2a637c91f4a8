'use strict';

// The one table of what send(message, handle) can carry. For each kind: how to tell it, how the
// sender lets go of it, and how the receiver makes one again from a native handle.

const net = require('node:net');
const dgram = require('node:dgram');
const { nativeHandleType, datagramHandle } = require('./native_handle');
const { socketList } = require('./socket_list');
const { ERR_INVALID_HANDLE_TYPE } = require('../errors');

const nothing = () => {};

// `detach(channel, message, handle, options)` returns the native handle whose descriptor travels,
// or a falsy value when there is none any more. `closesSource` says that the sender's own handle
// is closed once the descriptor is safely duplicated. `revive(channel, message, native, done,
// failed)` calls `done(handle)` or `failed(error)`.
const kinds = {
  'net.Socket': {
    matches: (handle) => handle instanceof net.Socket,
    detach: detachSocket,
    closesSource: true,
    revive(channel, message, native, done) {
      const socket = new net.Socket({ handle: native, readable: true, writable: true });
      if (message.key) {
        socketList(channel.sockets, 'got', channel.target, message.key).add({ socket });
      }
      done(socket);
    },
  },

  'net.Server': {
    matches: (handle) => handle instanceof net.Server,
    detach: (channel, message, server) => server._handle,
    closesSource: false,
    revive(channel, message, native, done, failed) {
      const server = new net.Server().once('error', failed);
      server.listen(native, () => done(server.off('error', failed)));
    },
  },

  'net.Native': {
    matches: (handle) => ['tcp', 'pipe'].includes(nativeHandleType(handle)),
    detach: (channel, message, native) => native,
    closesSource: false,
    revive: (channel, message, native, done) => done(native),
  },

  'net.BoundSocket': {
    matches: (handle) => net.BoundSocket !== undefined && handle instanceof net.BoundSocket,
    detach: detachBoundSocket,
    closesSource: true,
    revive(channel, message, native, done) {
      if (net._TransferredBoundSocket === undefined) return done(native);
      const bound = new net._TransferredBoundSocket();
      bound[symbolNamed(bound, 'messaging_deserialize_symbol')]({ handle: native });
      return done(bound);
    },
  },

  'dgram.Socket': {
    matches: (handle) => handle instanceof dgram.Socket,
    detach(channel, message, socket) {
      message.dgramType = socket.type;
      return datagramHandle(socket);
    },
    closesSource: false,
    revive(channel, message, native, done, failed) {
      const socket = dgram.createSocket(message.dgramType === 'udp6' ? 'udp6' : 'udp4');
      socket.once('error', failed);
      socket.bind(native, () => done(socket.off('error', failed)));
    },
  },

  'dgram.Native': {
    matches: (handle) => nativeHandleType(handle) === 'udp',
    detach: (channel, message, native) => native,
    closesSource: false,
    revive: (channel, message, native, done) => done(native),
  },
};

// The name of a handle's kind, as NODE_HANDLE carries it.
function kindOf(handle) {
  for (const name of Object.keys(kinds)) {
    if (kinds[name].matches(handle)) return name;
  }
  throw new ERR_INVALID_HANDLE_TYPE();
}

function detachSocket(channel, message, socket, options) {
  const native = socket._handle;
  if (!native) return null;
  // A TLS connection is more than its descriptor.
  if (!['tcp', 'pipe'].includes(nativeHandleType(native))) throw new ERR_INVALID_HANDLE_TYPE();
  if (socket.server) trackSocket(channel, message, socket, options);
  if (options.keepOpen) return native;
  native.onread = nothing;
  socket._handle = null;
  socket.setTimeout(0);
  if (socket.parser) releaseParser(socket);
  return native;
}

// A socket that a net.Server accepted: the server goes on counting it while the child holds it.
function trackSocket(channel, message, socket, options) {
  const { server } = socket;
  message.key = server._connectionKey;
  const known = channel.sockets.send[message.key] !== undefined;
  const list = socketList(channel.sockets, 'send', channel.target, message.key);
  if (!known) server._setupWorker(list);
  if (!options.keepOpen) server._connections--;
}

// An HTTP server's connection: its parser goes back to Node's pool, its response lets go of it.
function releaseParser(socket) {
  const { freeParser, HTTPParser } = require('_http_common');
  if (!(socket.parser instanceof HTTPParser)) return;
  freeParser(socket.parser, null, socket);
  socket._httpMessage?.detachSocket(socket);
}

function detachBoundSocket(channel, message, bound) {
  if (bound.isPipe) throw new ERR_INVALID_HANDLE_TYPE();
  return bound[symbolNamed(bound, 'messaging_transfer_symbol')]().data.handle;
}

function symbolNamed(object, name) {
  return Object.getOwnPropertySymbols(Object.getPrototypeOf(object)).find(
    (symbol) => symbol.description === name,
  );
}

module.exports = { kinds, kindOf };
