'use strict';

// The public face of a channel: `subprocess.channel` and `process.channel`. It only keeps account
// of who wants the event loop kept alive; everything else is the channel's.

const EventEmitter = require('node:events');
const { emitsChannelUnref } = require('../node_version');
const { validateNumber } = require('../validators');

// A second of spinning is no waiting any more.
const LONGEST_BUSY = 1_000_000;

class Control extends EventEmitter {
  #native;
  #count = 0;
  #explicit = false;

  constructor(native) {
    super();
    this.#native = native;
  }

  // Counted references come and go with listeners. Once the user has called ref() or unref() the
  // state is theirs and the count has no effect.
  refCounted() {
    if (++this.#count === 1 && !this.#explicit) this.#native.ref();
  }

  unrefCounted() {
    if (--this.#count !== 0 || this.#explicit) return;
    this.#native.unref();
    if (emitsChannelUnref) this.emit('unref');
  }

  ref() {
    this.#explicit = true;
    this.#native.ref();
  }

  unref() {
    this.#explicit = true;
    this.#native.unref();
  }

  // Has the event loop look for messages for that many microseconds before it sleeps, as long as
  // that pays; 0 ends it. Never with a single processor.
  busyPoll(micros) {
    validateNumber(micros, 'micros', 0, LONGEST_BUSY);
    this.#native.busyPoll(micros);
  }

  get fd() {
    return this.#native.fd;
  }
}

module.exports = { Control };
