'use strict';

// Large buffers inside 'advanced' messages travel beside the stream, as sealed memory, where both
// ends are brood's: the two halves of that, and the allocation a sender fills in place. What is
// sealed and how it is checked is the addon's.

const { Buffer } = require('node:buffer');
const binding = require('../binding');
const { errnoException } = require('../errors');
const { validateInteger } = require('../validators');

// Below this many bytes a copy through the socket is cheaper than a mapping.
const THRESHOLD = 256 * 1024;
// More than this in one message go through the socket.
const MOST = 16;
const LARGEST = 2 ** 32;

const VIEWS = [
  'Buffer',
  'Int8Array',
  'Uint8Array',
  'Uint8ClampedArray',
  'Int16Array',
  'Uint16Array',
  'Int32Array',
  'Uint32Array',
  'Float32Array',
  'Float64Array',
  'DataView',
  'BigInt64Array',
  'BigUint64Array',
];

// The numbers by which the addon knows the memory of buffers made by sharedBuffer().
const regions = new WeakMap();

function kindOf(view) {
  if (view.constructor === Buffer) return 0;
  return VIEWS.indexOf(Object.prototype.toString.call(view).slice(8, -1));
}

/** A descriptor with the view's bytes, or -1 when they have to be copied into the message. */
function seal(view) {
  const number = regions.get(view.buffer);
  if (number !== undefined && view.byteLength === view.buffer.byteLength) {
    regions.delete(view.buffer);
    return binding.handOver(view.buffer, number);
  }
  return binding.sealBytes(view);
}

/**
 * Puts a large view into `files` and returns how the message refers to it, or null when it is to
 * be copied.
 */
function setAside(view, files) {
  const { byteLength } = view;
  if (byteLength < THRESHOLD || byteLength >= LARGEST || files.length === MOST) return null;
  const kind = kindOf(view);
  if (kind < 0) return null;
  const fd = seal(view);
  if (fd < 0) return null;
  files.push(fd);
  return { kind, byteLength, index: files.length - 1 };
}

/** The view that a message refers to; takes its descriptor out of `files`. */
function takeBack({ kind, byteLength, index }, files) {
  const fd = files[index] ?? -1;
  if (kind >= VIEWS.length || fd < 0) throw new Error('a large buffer is missing');
  files[index] = -1;
  const memory = binding.openSealed(fd, byteLength);
  if (typeof memory === 'number') throw errnoException(memory, 'mmap');
  return kind === 0 ? Buffer.from(memory) : new globalThis[VIEWS[kind]](memory);
}

function closeAll(files) {
  for (const fd of files) {
    if (fd >= 0) binding.closeDescriptor(fd);
  }
}

/**
 * A zeroed Buffer of `size` bytes to be filled in place. Sent inside an 'advanced' message to a
 * process that has brood, too, its memory is handed over without a copy, and the Buffer has length
 * 0 afterwards; sent elsewhere it is a Buffer like any other.
 */
function sharedBuffer(size) {
  validateInteger(size, 'size', 0, LARGEST - 1);
  if (size < THRESHOLD) return Buffer.alloc(size);
  const memory = binding.sharedMemory(size);
  if (typeof memory === 'number') throw errnoException(memory, 'memfd_create');
  if (memory === undefined) return Buffer.alloc(size);
  const [buffer, number] = memory;
  regions.set(buffer, number);
  return Buffer.from(buffer);
}

module.exports = { closeAll, setAside, sharedBuffer, takeBack };
