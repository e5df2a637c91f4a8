'use strict';

// Large buffers inside 'advanced' messages, and long JSON texts, travel beside the stream, as sealed
// memory, where both ends are brood's: the two halves of that, and the allocation a sender fills in
// place. What is sealed and how it is checked is the addon's.

const { Buffer } = require('node:buffer');
const binding = require('../binding');
const { errnoException } = require('../errors');
const { validateInteger } = require('../validators');

// Below this many bytes a copy through the socket is cheaper than a mapping.
const THRESHOLD = 256 * 1024;
// More than this in one message go through the socket.
const MOST = 16;
const LARGEST = 2 ** 32;
// The longest message by default: what a string can hold.
const LONGEST_MESSAGE = 2 ** 29 - 24;

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

/** Puts a long text into `files` and returns its length in bytes, or -1 when that cannot be. */
function setTextAside(text, files) {
  if (text.length < THRESHOLD) return -1;
  const sealed = binding.sealText(text);
  if (typeof sealed === 'number') return -1;
  files.push(sealed[0]);
  return sealed[1];
}

/** What came beside one message: descriptors, of which each is used once, of `limit` bytes in all. */
class Beside {
  constructor(files, limit = LONGEST_MESSAGE) {
    this.files = files;
    this.left = limit;
  }

  #take(index, byteLength) {
    const fd = this.files[index] ?? -1;
    if (fd < 0) throw new Error('a large buffer is missing');
    this.left -= byteLength;
    if (this.left < 0) throw new Error('it is longer than the limit');
    this.files[index] = -1;
    return fd;
  }

  view(kind, index, byteLength) {
    if (kind >= VIEWS.length) throw new Error('a large buffer is of an unknown kind');
    const memory = binding.openSealed(this.#take(index, byteLength), byteLength);
    if (typeof memory === 'number') throw errnoException(memory, 'mmap');
    return kind === 0 ? Buffer.from(memory) : new globalThis[VIEWS[kind]](memory);
  }

  text(index, byteLength) {
    const text = binding.openSealedText(this.#take(index, byteLength), byteLength);
    if (typeof text === 'number') throw errnoException(text, 'mmap');
    return text;
  }
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

module.exports = { Beside, closeAll, setAside, setTextAside, sharedBuffer };
