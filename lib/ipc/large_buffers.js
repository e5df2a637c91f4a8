'use strict';

// Large buffers inside 'advanced' messages, and long JSON texts, travel beside the stream where both
// ends are brood's: in an area of the channel, which is used again and again, or else in sealed
// memory of their own. The two halves of that, and the Buffers a sender fills in place. How memory is
// made and checked is the addon's.

const { Buffer } = require('node:buffer');
const binding = require('../binding');
const { errnoException } = require('../errors');
const { Expiry } = require('./expiry');

// Below this many bytes a copy through the socket is cheaper than a mapping.
const THRESHOLD = 256 * 1024;
// More than this in one message go through the socket.
const MOST = 16;
const LARGEST = 2 ** 32;
const ENOENT = -2;
// What a piece of a message is to the addon.
const FILE = 0;
const AREA = 1;
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

// Where the buffers of sharedBuffer() lie: the number by which the addon knows the memory, and the
// channel whose area it is, if any.
const regions = new WeakMap();
// The ArrayBuffers that have come beside a message.
const received = new WeakSet();

function kindOf(view) {
  if (view.constructor === Buffer) return 0;
  return VIEWS.indexOf(Object.prototype.toString.call(view).slice(8, -1));
}

/** What lies beside one message that is being put together for the channel `native`. */
class Aside {
  constructor(native) {
    this.native = native;
    // What each piece is, and its number, as the addon takes them.
    this.pieces = [];
    // Views whose bytes are put in their place once all of the message is known: what of a message
    // that fails halfway the peer could read in an area, and sharedBuffer()s would be lost.
    this.copies = [];
    this.handedOver = [];
  }

  get count() {
    return this.pieces.length / 2;
  }

  // Negative numbers are errors: then there is no piece.
  #add(kind, number) {
    if (number < 0) return false;
    this.pieces.push(kind, number);
    return true;
  }

  #put(view) {
    return this.#handsOver(view) || this.#reserve(view) || this.#add(FILE, binding.sealBytes(view));
  }

  #handsOver({ buffer, byteLength }) {
    const region = regions.get(buffer);
    if (region === undefined || byteLength !== buffer.byteLength) return false;
    if (region.native !== null && region.native !== this.native) return false;
    if (this.handedOver.some((other) => other.buffer === buffer)) return false;
    this.handedOver.push({ buffer, byteLength, region, at: this.pieces.length + 1 });
    this.pieces.push(region.native === null ? FILE : AREA, -1);
    return true;
  }

  #reserve(view) {
    const { byteLength } = view;
    if (!this.native.takesAreas(byteLength)) return false;
    const number = binding.areaReserve(this.native.id, byteLength);
    if (number >= 0) this.copies.push(view, number);
    return this.#add(AREA, number);
  }

  /** Puts a large view here; how the message refers to it, or null when it is to be copied. */
  view(view) {
    const { byteLength } = view;
    if (byteLength < THRESHOLD || byteLength >= LARGEST || this.count === MOST) return null;
    const kind = kindOf(view);
    if (kind < 0 || !this.#put(view)) return null;
    return { kind, byteLength, index: this.count - 1 };
  }

  /** Puts a long text here; its length in bytes, or -1 when that cannot be. */
  text(text) {
    if (text.length < THRESHOLD) return -1;
    if (this.native.takesAreas(text.length)) {
      const placed = binding.areaCopyText(this.native.id, text);
      if (typeof placed !== 'number' && this.#add(AREA, placed[0])) return placed[1];
    }
    const sealed = binding.sealText(text);
    if (typeof sealed === 'number') return -1;
    this.#add(FILE, sealed[0]);
    return sealed[1];
  }

  /** All of the message is known: puts every view where it belongs. */
  fill() {
    const { id } = this.native;
    // None is handed over unless all can be: what is gone with a message that fails is lost.
    for (const { buffer, byteLength } of this.handedOver) {
      if (buffer.byteLength !== byteLength) check(ENOENT);
    }
    for (let i = 0; i < this.copies.length; i += 2) {
      check(binding.areaFill(id, this.copies[i + 1], this.copies[i]));
    }
    for (const { buffer, region, at } of this.handedOver) {
      this.pieces[at] = check(this.#handOver(buffer, region, at));
      regions.delete(buffer);
    }
  }

  #handOver(buffer, { native, number }, at) {
    if (native === null) return binding.handOver(buffer, number);
    const status = binding.areaHandOver(native.id, buffer, number, buffer.byteLength);
    if (status !== ENOENT) return status;
    // The areas have ended with a peer that is gone, as the sending of any other message will say.
    this.pieces[at - 1] = FILE;
    return binding.sealBytes(new Uint8Array(buffer));
  }

  /** The message will not be sent. */
  drop() {
    for (let i = 0; i < this.pieces.length; i += 2) {
      const number = this.pieces[i + 1];
      if (number < 0) continue;
      if (this.pieces[i] === AREA) binding.areaLetGo(this.native.id, number);
      else binding.closeDescriptor(number);
    }
  }
}

// What a getter of the message has detached or resized meanwhile cannot be sent any more.
function check(status) {
  if (status >= 0) return status;
  throw errnoException(status, 'write');
}

/** What came beside a message is not what the message says. */
class Mismatch extends Error {}

/** What came beside one message: descriptors, ArrayBuffers and strings, of which each is used once;
 * of `limit` bytes in all. */
class Beside {
  constructor(pieces, limit = LONGEST_MESSAGE) {
    this.pieces = pieces;
    this.left = limit;
  }

  #take(index, byteLength) {
    const piece = this.pieces[index] ?? -1;
    if (piece === -1) throw new Mismatch('a large buffer is missing');
    this.left -= byteLength;
    if (this.left < 0) throw new Mismatch('it is longer than the limit');
    this.pieces[index] = -1;
    return piece;
  }

  #memory(index, byteLength) {
    const piece = this.#take(index, byteLength);
    const memory = typeof piece === 'number' ? binding.openSealed(piece, byteLength) : piece;
    if (typeof memory === 'number') throw errnoException(memory, 'mmap');
    if (memory.byteLength !== byteLength) {
      throw new Mismatch('a large buffer is not of the length it should have');
    }
    received.add(memory);
    return memory;
  }

  view(kind, index, byteLength) {
    if (kind >= VIEWS.length) throw new Mismatch('a large buffer is of an unknown kind');
    const memory = this.#memory(index, byteLength);
    return kind === 0 ? Buffer.from(memory) : new globalThis[VIEWS[kind]](memory);
  }

  text(index, byteLength) {
    const piece = this.#take(index, byteLength);
    if (typeof piece === 'string') return piece;
    if (typeof piece !== 'number') throw new Mismatch('a long text is none');
    const text = binding.openSealedText(piece, byteLength);
    if (typeof text === 'number') throw errnoException(text, 'mmap');
    return text;
  }
}

function closeAll(pieces) {
  for (const piece of pieces) {
    if (typeof piece === 'number' && piece >= 0) binding.closeDescriptor(piece);
  }
}

// Memory of messages that have been received is kept for the next ones, for a while.
const blocks = new Expiry((idle) => binding.blocksTrim(idle));

/** A zeroed Buffer of `size` bytes in memory that can be handed over to any one process. */
function sharedBuffer(size) {
  if (size < THRESHOLD) return Buffer.alloc(size);
  const memory = binding.sharedMemory(size);
  if (typeof memory === 'number') throw errnoException(memory, 'memfd_create');
  if (memory === undefined) return Buffer.alloc(size);
  const [buffer, number] = memory;
  regions.set(buffer, { native: null, number });
  return Buffer.from(buffer);
}

/** A Buffer of `size` bytes in an area of the channel `native`; undefined when there is none. */
function areaBuffer(native, size) {
  if (!native.takesAreas(size)) return undefined;
  const memory = binding.areaBuffer(native.id, size);
  if (typeof memory === 'number' || memory === undefined) return undefined;
  const [buffer, number] = memory;
  regions.set(buffer, { native, number });
  return Buffer.from(buffer);
}

/** Takes the memory of a buffer away from it, if it is one of ours; whether it was. */
function release(buffer) {
  if (!received.delete(buffer) && !regions.delete(buffer)) return false;
  return binding.detach(buffer);
}

module.exports = {
  Aside,
  Beside,
  LARGEST,
  Mismatch,
  THRESHOLD,
  areaBuffer,
  blocks,
  closeAll,
  release,
  sharedBuffer,
};
