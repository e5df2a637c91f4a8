'use strict';

// sharedBuffer(): which memory a Buffer that is to be filled in place is given, and releaseBuffer(),
// by which memory is given back before it is collected. What becomes of it when it is sent is
// large_buffers.js's.

const { ChildProcess } = require('node:child_process');
const { isAnyArrayBuffer } = require('node:util').types;
const { channelOf } = require('./channel');
const { LARGEST, areaBuffer, release, sharedBuffer: bufferForAnybody } = require('./large_buffers');
const { ERR_INVALID_ARG_TYPE } = require('../errors');
const { validateInteger } = require('../validators');

/** The process behind a ChildProcess, a cluster's Worker or `process` itself. */
function processOf(peer) {
  for (const it of [peer, peer?.process]) {
    if (it instanceof ChildProcess || it === process) return it;
  }
  throw new ERR_INVALID_ARG_TYPE('peer', ['ChildProcess', 'Worker', 'process'], peer);
}

/**
 * A Buffer of `size` bytes to be filled in place. Sent whole inside an 'advanced' message to a
 * process that has brood, too, its memory is handed over without a copy, and the Buffer has length 0
 * afterwards; sent elsewhere it is a Buffer like any other.
 *
 * Without `peer` its bytes are zero. With `peer`, the process it is meant for, it lies in memory that
 * is used again and again: its bytes are those of an earlier message to the same peer, which can read
 * them at any time, and only to that peer is it handed over.
 */
function sharedBuffer(size, peer) {
  validateInteger(size, 'size', 0, LARGEST - 1);
  if (peer === undefined) return bufferForAnybody(size);
  const native = channelOf(processOf(peer))?.native;
  return (native && areaBuffer(native, size)) ?? bufferForAnybody(size);
}

/**
 * Gives back the memory of a large Buffer, typed array or ArrayBuffer that has come in a message, or
 * that sharedBuffer() has made, for the next message to use: all that lies in its memory has length
 * 0 afterwards. Returns false, and does nothing, for any other.
 */
function releaseBuffer(buffer) {
  if (ArrayBuffer.isView(buffer)) return release(buffer.buffer);
  if (isAnyArrayBuffer(buffer)) return release(buffer);
  throw new ERR_INVALID_ARG_TYPE(
    'buffer',
    ['ArrayBuffer', 'Buffer', 'TypedArray', 'DataView'],
    buffer,
  );
}

module.exports = { releaseBuffer, sharedBuffer };
