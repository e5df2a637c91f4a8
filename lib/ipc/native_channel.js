'use strict';

// One channel of the addon as an object: what `channel` code in this folder holds instead of a
// number. Sends gather within a turn of the event loop; completions come back in order.

const { AsyncResource } = require('node:async_hooks');
const binding = require('../binding');
const { calledByAddon } = require('../called_by_addon');
const { Expiry } = require('./expiry');
const { flushBeforeSignals, gathering } = require('./gathering');
const { THRESHOLD } = require('./large_buffers');
const { transmit } = require('./serialization');
const { countUpgrade } = require('./upgrade');
const { errnoException } = require('../errors');

// Flags of channelSend.
const GATHER = 1;
const REPLY = 2;
const NOTIFY = 4;
const REFUSE = 8;
const ANSWER = 16;
const UNHEARD = 32;

// What a message may be to the addon besides a message.
const NO_REPLY = 0;
const ACKNOWLEDGEMENT = REPLY;
const REFUSAL = REPLY | REFUSE;

// Bits of channelSend's result; the message's number stands above them.
const PENDING = 1;
const FULL = 2;
const SEQUENCE = 4;

// A bit of a channel's features.
const AREAS = 4;

// Events of a channel, numbered as in src/binding/channel.rs.
const EVENTS = [
  'onend',
  'onbroken',
  'oncompleted',
  'onhandleLost',
  'onreleased',
  'ondrained',
  'onclosed',
  'onsendFailed',
  'onupgraded',
  'onstarved',
  'onwhole',
];

binding.setChannelCallbacks(
  calledByAddon(function onMessages(batch, count, handles, ranges, memory) {
    this.onmessages(batch, count, handles, ranges, memory);
  }),
  calledByAddon(function onEvent(kind, detail, errno) {
    this[EVENTS[kind]](detail, errno);
  }),
);

flushBeforeSignals();

function endTurn(native) {
  native.turnOpen = false;
  if (native.gathered) native.flush();
}

/** The callback of one send(), for the async context in which that was called. */
class Completion extends AsyncResource {
  #onsent;

  constructor(sequence, onsent) {
    super('WRITEWRAP');
    this.sequence = sequence;
    this.#onsent = onsent;
  }

  settle(error) {
    this.runInAsyncScope(process.nextTick, process, this.#onsent, error);
    this.emitDestroy();
  }
}

class NativeChannel {
  // `received` are bytes of the stream that somebody else has read before, if any; `isRoomy` says
  // that the peer's end was made by our spawn; `offer` is the one that was made to the peer.
  constructor(fd, codec, { maxMessageSize = 0, received, isRoomy = false, offer }) {
    this.fd = fd;
    this.codec = codec;
    this.maxMessageSize = maxMessageSize || undefined;
    this.sockets = { got: Object.create(null), send: Object.create(null) };
    this.turnOpen = false;
    this.gathered = false;
    this.completions = [];
    // What brood's own framing may be used for, as bits; null while this end speaks Node's protocol.
    this.features = null;
    this.areas = new Expiry((idle) => binding.areasExpire(this.id, idle));
    this.onmessages = null;
    this.onend = null;
    this.onbroken = null;
    this.onhandleLost = null;
    this.onreleased = null;
    this.ondrained = null;
    this.onclosed = null;
    this.onstarved = null;
    this.onwhole = null;
    this.onerror = null;
    this.id = binding.channelOpen(this, fd, codec.advanced, maxMessageSize, isRoomy);
    if (this.id < 0) throw errnoException(this.id, 'open');
    if (received?.length > 0) binding.channelFeed(this.id, received);
    if (offer) binding.channelOffer(this.id, offer);
  }

  onupgraded(features) {
    this.features = features;
    countUpgrade();
  }

  // Whether something of this size is to be put into an area, of which there may be some from here
  // on.
  takesAreas(size) {
    if (size < THRESHOLD || (this.features & AREAS) === 0 || this.id === 0) return false;
    this.areas.start();
    return true;
  }

  // Answers the parent's offer; messages go by Node's protocol until the parent has agreed.
  acceptUpgrade(offer, version) {
    return binding.channelAccept(this.id, offer, version);
  }

  // Node's protocol for good, although an upgrade was offered; false when it is too late.
  pin() {
    return this.id === 0 || binding.channelPin(this.id);
  }

  // Somebody listens for the peer's replies to handles from here on.
  hearReplies() {
    if (this.id !== 0) binding.channelHearReplies(this.id);
  }

  // Sends one message. `fd` is a descriptor to go with it or -1 (the addon duplicates it); `kind` is
  // ACKNOWLEDGEMENT or REFUSAL for those, which may overtake held messages, ANSWER for what the
  // peer has asked for (-ENOBUFS when it has left too much of that unread), with UNHEARD added for a
  // handle to which the reply need not become a message. Returns the addon's status; `onsent(error)`
  // is called once the bytes are the kernel's.
  send(message, fd, kind, onsent) {
    // An answer is counted as what it is in the stream.
    const isPlain = this.features === null || fd >= 0 || kind === ANSWER;
    const encoded = isPlain ? this.codec.encode(message) : this.codec.encodeFor(this, message);
    return this.sendEncoded(encoded, fd, kind, onsent);
  }

  // The same for what the channel's codec has made of a message already.
  sendEncoded(encoded, fd, kind, onsent) {
    const flags = kind & REPLY ? 0 : this.#flagsInTurn(onsent);
    const status = transmit(this.id, encoded, fd, kind | flags);
    if (status < 0) return status;
    if (typeof onsent !== 'function') return status;
    if (status & PENDING || this.completions.length > 0) {
      this.completions.push(new Completion(Math.floor(status / SEQUENCE), onsent));
      // What stood before a message that is written has been, too, or has failed: the end of the turn
      // will tell.
      if (!(status & PENDING)) this.#gather();
    } else {
      process.nextTick(onsent, null);
    }
    return status;
  }

  // The first message of a turn is written at once, the others together.
  #flagsInTurn(onsent) {
    const notify = typeof onsent === 'function' ? NOTIFY : 0;
    if (!this.turnOpen) {
      this.turnOpen = true;
      process.nextTick(endTurn, this);
      return notify;
    }
    this.#gather();
    return notify | GATHER;
  }

  #gather() {
    if (this.gathered) return;
    this.gathered = true;
    gathering.add(this);
  }

  flush() {
    this.gathered = false;
    gathering.delete(this);
    if (this.id !== 0) this.oncompleted(binding.channelFlush(this.id));
  }

  oncompleted(upTo) {
    const { completions } = this;
    let done = 0;
    while (done < completions.length && completions[done].sequence <= upTo) done++;
    if (done === 0) return;
    for (const completion of completions.splice(0, done)) completion.settle(null);
  }

  // The kernel refused the descriptor of one message; the channel goes on.
  onsendFailed(sequence, errno) {
    const index = this.completions.findIndex((entry) => entry.sequence === sequence);
    const error = errnoException(errno, 'write');
    if (index < 0) this.onerror(error);
    else this.completions.splice(index, 1)[0].settle(error);
  }

  // Calls every callback that still waits with the error `why()` makes.
  failCompletions(why) {
    for (const completion of this.completions.splice(0)) completion.settle(why());
  }

  busyPoll(micros) {
    if (this.id !== 0) binding.channelBusyPoll(this.id, micros);
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

  // Stops receiving. What is still queued is written first, in the background, unless the peer is
  // not to be waited for; onclosed() follows.
  shutdown(atOnce) {
    if (this.id === 0) return;
    this.flush();
    this.areas.stop();
    const lingers = binding.channelShutdown(this.id, atOnce);
    this.id = 0;
    this.fd = -1;
    if (!lingers) this.onclosed();
  }
}

module.exports = { ACKNOWLEDGEMENT, ANSWER, FULL, NO_REPLY, NativeChannel, REFUSAL, UNHEARD };
