'use strict';

// Node's own TCP, Pipe and UDP objects, had without internal modules: told apart by the name of
// their constructor, and made from a descriptor through the public net and dgram.

const net = require('node:net');
const dgram = require('node:dgram');
const binding = require('../binding');

const TYPES = { Pipe: 'pipe', TTY: 'tty', TCP: 'tcp', UDP: 'udp' };

// 'pipe', 'tty', 'tcp' or 'udp' for one of Node's native handles, false for anything else.
function nativeHandleType(value) {
  if (value === null || typeof value !== 'object') return false;
  if (typeof value.getAsyncId !== 'function' || typeof value.close !== 'function') return false;
  return TYPES[value.constructor?.name] ?? false;
}

// The native handle inside a datagram socket stands under a symbol of Node's dgram module.
let datagramState;
function datagramHandle(socket) {
  datagramState ??= Object.getOwnPropertySymbols(socket).find(
    (symbol) => symbol.description === 'state symbol',
  );
  return socket[datagramState]?.handle ?? null;
}

const constructors = new Map();

// A native handle that owns `fd`, or null when the descriptor is no socket Node can use (it is
// closed then). What kind of socket it is the kernel says, never the sender.
function adoptDescriptor(fd) {
  const kind = binding.socketKind(fd);
  try {
    if (kind === 'udp') return adoptDatagram(fd);
    if (kind === 'tcp' || kind === 'pipe') return adoptStream(fd, kind);
  } catch {
    // Not one that Node can open; closed below.
  }
  binding.closeDescriptor(fd);
  return null;
}

function adoptStream(fd, kind) {
  const Native = constructors.get(kind);
  if (Native === undefined) return firstStream(fd, kind);
  const handle = new Native(0);
  if (handle.open(fd) !== 0) throw new Error('not a stream');
  return handle;
}

// net.Socket chooses the class; the socket itself is only the way to it.
function firstStream(fd, kind) {
  const socket = new net.Socket({ fd, readable: false, writable: false });
  const handle = socket._handle;
  socket._handle = null;
  delete handle[ownerSymbol(handle)];
  constructors.set(kind, handle.constructor);
  return handle;
}

function ownerSymbol(handle) {
  return Object.getOwnPropertySymbols(handle).find(
    (symbol) => symbol.description === 'owner_symbol',
  );
}

// Node's class of datagram handles.
function datagramConstructor() {
  let Native = constructors.get('udp');
  if (Native === undefined) {
    const socket = dgram.createSocket('udp4');
    Native = datagramHandle(socket).constructor;
    socket.close();
    constructors.set('udp', Native);
  }
  return Native;
}

function adoptDatagram(fd) {
  const Native = datagramConstructor();
  const handle = new Native();
  if (handle.open(fd) !== 0) throw new Error('not a datagram socket');
  return handle;
}

// As adoptDescriptor, for a connection that is known to be 'tcp' or 'pipe'; one that cannot be
// opened stays the caller's. It cannot where libuv believes to be watching the number already, for
// somebody has closed what it was behind libuv's back: then it gets another number.
function adoptConnection(fd, kind) {
  const handle = tryStream(fd, kind);
  if (handle !== null) return handle;
  const other = binding.duplicateDescriptor(fd);
  const second = other < 0 ? null : tryStream(other, kind);
  if (other >= 0) binding.closeDescriptor(second === null ? other : fd);
  return second;
}

function tryStream(fd, kind) {
  try {
    return adoptStream(fd, kind);
  } catch {
    return null;
  }
}

module.exports = {
  adoptConnection,
  adoptDescriptor,
  datagramConstructor,
  datagramHandle,
  nativeHandleType,
};
