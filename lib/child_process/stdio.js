'use strict';
// The `stdio` option: from all the shapes it may have to a list of entries, one for each descriptor
// of the child; from the entries to the numbers the native side takes; and from its answer
// to the parent's streams.

const { inspect, types } = require('node:util');
const net = require('node:net');
const binding = require('../binding');
const {
  ERR_INVALID_ARG_VALUE,
  ERR_INVALID_SYNC_FORK_INPUT,
  ERR_IPC_ONE_PIPE,
  ERR_IPC_SYNC_FORK,
  errnoException,
} = require('../errors');

// What the native side understands in place of a descriptor.
const DEV_NULL = -1;
const PIPE = -2;
const CHANNEL = -3;

// Of Node's Pipe: one that is no server's, and carries no handles.
const SOCKET = 0;

const usedByChild = Symbol('brood.usedByChild');

let handles;
/** Node's native handle classes are found only when an entry is an object that may hold one. */
function nativeHandleType(value) {
  handles ??= require('../ipc/native_handle');
  return handles.nativeHandleType(value);
}

/** 'pipe' -> ['pipe', 'pipe', 'pipe'], with the channel's entry behind when there is one. */
function expandStdio(stdio, channel) {
  let entries;
  if (stdio === 'ignore' || stdio === 'overlapped' || stdio === 'pipe') {
    entries = [stdio, stdio, stdio];
  } else if (stdio === 'inherit') {
    entries = [0, 1, 2];
  } else {
    throw new ERR_INVALID_ARG_VALUE('stdio', stdio);
  }
  if (channel) entries.push(channel);
  return entries;
}

/** Finds the native handle in a stream, a server or the handle itself. */
function nativeHandleOf(value) {
  if (nativeHandleType(value)) return value;
  if (nativeHandleType(value.handle)) return value.handle;
  if (nativeHandleType(value._handle)) return value._handle;
  return null;
}

/**
 * One entry of the option as an object with its `type`; null for input that only a synchronous call
 * ignores.
 */
function stdioEntry(value, fd, isSync) {
  if (value == null) value = fd < 3 ? 'pipe' : 'ignore';
  if (typeof value === 'number') {
    if (value < 0) return { type: 'pipe', readable: fd === 0, writable: fd !== 0 };
    return { type: 'fd', fd: value };
  }
  switch (value) {
    case 'pipe':
    case 'overlapped':
      return { type: value, readable: fd === 0, writable: fd !== 0 };
    case 'ignore':
      return { type: 'ignore' };
    case 'inherit':
      return { type: 'inherit', fd };
    case 'ipc':
      if (isSync) throw new ERR_IPC_SYNC_FORK();
      return { type: 'pipe', ipc: true };
  }
  if (typeof value.fd === 'number') return { type: 'fd', fd: value.fd };
  if (typeof value === 'string' || types.isArrayBufferView(value)) {
    if (isSync) return null;
    throw new ERR_INVALID_SYNC_FORK_INPUT(inspect(value));
  }
  const handle = nativeHandleOf(value);
  if (handle !== null) return { type: 'wrap', handle, _stdio: value };
  throw new ERR_INVALID_ARG_VALUE('stdio', value);
}

/**
 * Returns the entries, at least three, and the descriptor the channel has in the child (-1 without
 * channel).
 */
function parseStdio(stdio, isSync) {
  const values = typeof stdio === 'string' ? expandStdio(stdio) : stdio;
  if (!Array.isArray(values)) throw new ERR_INVALID_ARG_VALUE('stdio', stdio);
  const entries = [];
  let ipcFd = -1;
  const count = Math.max(values.length, 3);
  for (let fd = 0; fd < count; fd++) {
    const entry = stdioEntry(values[fd], fd, isSync);
    if (entry === null) continue;
    if (entry.ipc === true) {
      if (ipcFd !== -1) throw new ERR_IPC_ONE_PIPE();
      ipcFd = fd;
    }
    entries.push(entry);
  }
  return { entries, ipcFd };
}

/** Whether the parent gets a stream for an entry. */
function isPipe({ type, ipc }) {
  return (type === 'pipe' || type === 'overlapped') && ipc !== true;
}

/**
 * What the native side is told about one entry, or undefined when the entry names no usable
 * descriptor.
 */
function slotOf(entry) {
  if (entry.type === 'ignore') return DEV_NULL;
  if (entry.ipc === true) return CHANNEL;
  if (isPipe(entry)) return PIPE;
  const fd = (entry.type === 'wrap' ? entry.handle.fd : entry.fd) | 0;
  return fd >= 0 ? fd : undefined;
}

/** Returns the numbers for the native side, null when an entry names no usable descriptor. */
function toSlots(entries) {
  const slots = [];
  for (let i = 0; i < entries.length; i++) {
    const slot = slotOf(entries[i]);
    if (slot === undefined) return null;
    slots.push(slot);
  }
  return slots;
}

// Node's class of handles for our ends, once one has been seen.
let Pipe;

/** The parent's end of a pipe as a stream; the child's standard input is not for reading. */
function parentStream(number, index) {
  const options = { readable: index > 0, writable: true };
  // At once: in a thread that is terminated in between nobody would close it.
  const fd = binding.claimEnd(number);
  if (Pipe === undefined) {
    const stream = firstStream(fd, options);
    Pipe = stream._handle.constructor;
    return stream;
  }
  const handle = new Pipe(SOCKET);
  const errno = handle.open(fd);
  if (errno) {
    binding.closeDescriptor(fd);
    throw errnoException(errno, 'open');
  }
  try {
    return new net.Socket({ handle, ...options });
  } catch (error) {
    handle.close();
    throw error;
  }
}

function firstStream(fd, options) {
  try {
    return new net.Socket({ fd, ...options });
  } catch (error) {
    // Else it is the handle's by now.
    if (error.syscall === 'open') binding.closeDescriptor(fd);
    throw error;
  }
}

/** Closes ends of ours that nothing is made of. */
function closeEnds(numbers) {
  for (const number of numbers) binding.closeDescriptor(binding.claimEnd(number));
}

/** A stream handed to a child is read by the child alone from now on. */
function giveAway({ handle, _stdio: stream }) {
  handle.reading = false;
  handle.readStop?.();
  stream.pause?.();
  if (stream._readableState) {
    stream.readableFlowing = false;
    stream._readableState.reading = false;
  }
  stream[usedByChild] = true;
}

/** Drains what nobody reads, so that the streams end and the child can emit 'close'. */
function flushStreams(streams) {
  if (streams == null) return;
  for (const stream of streams) {
    if (stream?.readable && !stream[usedByChild]) stream.resume();
  }
}

module.exports = {
  CHANNEL,
  PIPE,
  closeEnds,
  expandStdio,
  flushStreams,
  giveAway,
  isPipe,
  parentStream,
  parseStdio,
  toSlots,
};
