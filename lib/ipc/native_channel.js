'use strict';

// One channel of the addon as an object: what `channel` code in this folder holds instead of a
// number. Sends gather within a turn of the event loop; completions come back in order.

const binding = require('../binding');
const { errnoException } = require('../errors');

// Flags of channelSend.
const GATHER = 1;
const REPLY = 2;

// Bits of channelSend's result; the sequence number stands above them.
const PENDING = 1;
const FULL = 2;
const HELD = 4;
const SEQUENCE = 8;

// Events of a channel, numbered as in src/binding/channel.rs.
const EVENTS = ['end', 'broken', 'completed', 'handleLost', 'released', 'drained', 'closed'];

binding.setChannelCallbacks(
  function onMessages(batch, count, handles) {
    this.onmessages(batch, count, handles);
  },
  function onEvent(kind, detail) {
    this[`on${EVENTS[kind]}`](detail);
  },
);

function endTurn(native) {
  native.turnOpen = false;
  if (native.gathered && native.id !== 0) binding.channelFlush(native.id);
  native.gathered = false;
}

class NativeChannel {
  constructor(fd, codec, maxMessageSize) {
    this.fd = fd;
    this.codec = codec;
    this.sockets = { got: Object.create(null), send: Object.create(null) };
    this.turnOpen = false;
    this.gathered = false;
    this.completions = [];
    this.onmessages = null;
    this.onend = null;
    this.onbroken = null;
    this.onhandleLost = null;
    this.onreleased = null;
    this.ondrained = null;
    this.onclosed = null;
    this.id = binding.channelOpen(this, fd, codec.advanced, maxMessageSize);
    if (this.id < 0) throw errnoException(this.id, 'open');
  }

  // Sends one message. `fd` is a descriptor to go with it or -1 (the addon duplicates it);
  // `reply` marks the acknowledgements that may overtake held messages. Returns the addon's
  // status; `onsent(error)` is called once the bytes are the kernel's.
  send(message, fd, reply, onsent) {
    let flags = reply ? REPLY : 0;
    if (this.turnOpen) {
      flags |= GATHER;
      this.gathered = true;
    } else {
      this.turnOpen = true;
      process.nextTick(endTurn, this);
    }
    const status = this.codec.send(this.id, message, fd, flags);
    if (status < 0) return status;
    if (typeof onsent !== 'function') return status;
    if (status & PENDING) {
      this.completions.push({ sequence: Math.floor(status / SEQUENCE), onsent });
    } else {
      process.nextTick(onsent, null);
    }
    return status;
  }

  oncompleted(upTo) {
    const { completions } = this;
    let done = 0;
    while (done < completions.length && completions[done].sequence <= upTo) done++;
    for (const { onsent } of completions.splice(0, done)) process.nextTick(onsent, null);
  }

  // Calls every callback that still waits with the error `why()` makes.
  failCompletions(why) {
    for (const { onsent } of this.completions.splice(0)) process.nextTick(onsent, why());
  }

  ref() {
    if (this.id !== 0) binding.channelRef(this.id, true);
  }

  unref() {
    if (this.id !== 0) binding.channelRef(this.id, false);
  }

  readStart() {
    if (this.id !== 0) binding.channelRead(this.id, true);
  }

  readStop() {
    if (this.id !== 0) binding.channelRead(this.id, false);
  }

  // Stops receiving. What is still queued is written first, in the background.
  shutdown() {
    if (this.id !== 0) binding.channelShutdown(this.id);
    this.id = 0;
  }
}

module.exports = { NativeChannel, FULL, HELD };
