'use strict';

// One end of an IPC channel on the JavaScript side: send() and disconnect() and their states, and
// which event each arriving message becomes. Queueing, framing and acknowledgement are the
// addon's; what handles turn into is handles.js.

const { EventEmitter } = require('node:events');
const net = require('node:net');
const { constants } = require('node:os');
const { deprecate } = require('node:util');
const {
  ACKNOWLEDGEMENT,
  ANSWER,
  FULL,
  NO_REPLY,
  NativeChannel,
  REFUSAL,
  UNHEARD,
} = require('./native_channel');
const { Control } = require('./control');
const { QUIETLY, isInternal, isAnnouncement } = require('./internal_message');
const { kinds, kindOf } = require('./handles');
const { adoptDescriptor, nativeHandleType } = require('./native_handle');
const codecs = require('./serialization');
const binding = require('../binding');
const { hasDeprecatedChannel } = require('../node_version');
const { validateObject } = require('../validators');
const {
  ERR_BROOD_IPC_MESSAGE,
  ERR_BROOD_IPC_PROTOCOL,
  ERR_INVALID_ARG_TYPE,
  ERR_INVALID_HANDLE_TYPE,
  ERR_IPC_CHANNEL_CLOSED,
  ERR_IPC_DISCONNECTED,
  ERR_MISSING_ARGS,
  errnoException,
} = require('../errors');

const SENDABLE = ['string', 'object', 'number', 'boolean'];
const EBADF = -constants.errno.EBADF;
const ENOBUFS = -constants.errno.ENOBUFS;
const NONE = Object.freeze({ __proto__: null });

// As it is before anybody wraps it.
const { emit } = EventEmitter.prototype;

const channels = new WeakMap();

class Channel {
  // disconnect() has three states. 'open'; 'closing': requested, but messages are held behind an
  // unacknowledged handle, so `channel` is set and `connected` false; 'closed': both are gone.
  #state = 'open';
  #finishing = false;
  #peerHasEnded = false;
  // To be finished as soon as all that has come is emitted.
  #isDue = false;
  #parked = [];
  // A handle is being made. What has come behind it, which in brood's own framing does not wait for
  // the acknowledgement, is emitted after its message.
  #reviving = false;
  #behind = [];
  #onClose;

  constructor(target, native, onClose) {
    this.target = target;
    this.native = native;
    this.sockets = native.sockets;
    this.control = new Control(native);
    this.#onClose = onClose;
    native.onmessages = (...batch) => this.#receive(...batch);
    native.onend = () => this.#end();
    native.onbroken = (why) => this.cutOff(why);
    native.onhandleLost = warnHandleLost;
    native.onstarved = warnStarved;
    native.onreleased = () => this.#released();
    native.onwhole = () => this.#finishing && this.#finishSoon();
    native.ondrained = () => target.emit('drain');
    native.onerror = (error) => this.#fail(error);
    native.onclosed = () => native.failCompletions(() => new ERR_IPC_CHANNEL_CLOSED());
  }

  // Node's public send(): may be called in any state.
  send(message, handle, options, callback) {
    if (typeof handle === 'function') {
      [handle, options, callback] = [undefined, undefined, handle];
    } else if (typeof options === 'function') {
      [options, callback] = [undefined, options];
    } else if (options !== undefined) {
      validateObject(options, 'options');
    }
    if (this.target.connected) return this.target._send(message, handle, options, callback);
    this.#fail(new ERR_IPC_CHANNEL_CLOSED(), callback);
    return false;
  }

  // Sends while the channel exists, also after disconnect() was requested. Returns whether the
  // caller may go on sending.
  write(message, handle, options, callback) {
    checkMessage(message);
    options ??= NONE;
    if (!handle) return this.#dispatch(message, -1, options, callback);
    const wrapped = { cmd: 'NODE_HANDLE', type: kindOf(handle), msg: message };
    const kind = kinds[wrapped.type];
    const native = kind.detach(this, wrapped, handle, options);
    // Sent before, or closed already: the message goes alone.
    if (!native) return this.#dispatch(message, -1, options, callback);
    try {
      const fd = descriptorOf(native);
      // Negative: it has none yet.
      if (fd < 0) return this.#refuse(EBADF, options, callback);
      return this.#dispatch(wrapped, fd, options, callback);
    } finally {
      // The addon has its own duplicate by now, or the sending has failed for good.
      if (kind.closesSource && !options.keepOpen) native.close();
    }
  }

  #dispatch(message, fd, options, callback) {
    const kind = options.isAnswer === true ? ANSWER : replyKind(message);
    const unheard = fd >= 0 && !this.#hearsReplies() ? UNHEARD : 0;
    const status = this.native.send(message, fd, kind | unheard, callback);
    if (status >= 0) return (status & FULL) === 0;
    if (kind === ANSWER && status === ENOBUFS) {
      this.cutOff('peer asks on and reads no answer');
      return false;
    }
    return this.#refuse(status, options, callback);
  }

  // Whether somebody would notice that the reply to a handle is no internalMessage.
  #hearsReplies() {
    const { target } = this;
    return target.listenerCount('internalMessage') > 0 || target.emit !== emit;
  }

  // It could not be written; the caller may go on.
  #refuse(errno, options, callback) {
    if (!options.swallowErrors) this.#fail(errnoException(errno, 'write'), callback);
    return true;
  }

  // Sends what `codec.encode` has made of a message for all channels of that codec.
  writeEncoded(encoded) {
    return this.native.sendEncoded(encoded, -1, NO_REPLY) >= 0;
  }

  #fail(error, callback) {
    if (typeof callback === 'function') process.nextTick(callback, error);
    else process.nextTick(() => this.target.emit('error', error));
  }

  disconnect() {
    const { target } = this;
    if (!target.connected) {
      target.emit('error', new ERR_IPC_DISCONNECTED());
      return;
    }
    target.connected = false;
    this.#state = 'closing';
    if (binding.channelIdle(this.native.id)) target._disconnect();
  }

  #released() {
    if (this.#state === 'closing') this.target._disconnect();
  }

  // The channel is gone for the user from here on; what is queued is still written. Messages that
  // have arrived are emitted, but handles among them are closed; one that has arrived in part is
  // waited for.
  close() {
    if (this.#state === 'closed') return;
    this.#state = 'closed';
    this.target.connected = false;
    this.target.channel = null;
    if (binding.channelReceiving(this.native.id)) this.#finishing = true;
    else this.#finishSoon();
  }

  // What stands behind a handle that is being made is emitted first.
  #finishSoon() {
    process.nextTick(() => {
      this.#isDue = this.#reviving || this.#behind.length > 0;
      if (!this.#isDue) this.#finish();
    });
  }

  #finish(isCutOff = false) {
    this.#finishing = false;
    if (this.#onClose === null) return;
    const onClose = this.#onClose;
    this.#onClose = null;
    this.native.shutdown(isCutOff);
    // As in Node, the child's 'close' comes first when it was the peer that has ended the channel.
    if (this.#peerHasEnded) {
      process.nextTick(() => this.target.emit('disconnect'));
      onClose?.();
      return;
    }
    try {
      this.target.emit('disconnect');
    } finally {
      onClose?.();
    }
  }

  // The peer has closed its end.
  #end() {
    this.#peerHasEnded = true;
    this.close();
    if (this.#finishing) this.#finishSoon();
  }

  // The peer does not keep to the protocol: nothing it says is trusted any more.
  cutOff(why) {
    if (this.#state === 'closed' && !this.#finishing) return;
    const error = new ERR_BROOD_IPC_PROTOCOL(why);
    this.#state = 'closed';
    this.#finishing = false;
    this.target.connected = false;
    this.target.channel = null;
    this.native.readStop();
    process.nextTick(() => {
      try {
        this.#report(error);
      } finally {
        this.#finish(true);
      }
    });
  }

  // What the peer has done must not end a process that does not listen.
  #report(error) {
    if (this.target.listenerCount('error') > 0) this.target.emit('error', error);
    else process.emitWarning(error.message, { code: error.code });
  }

  // One message cannot be read, and those behind it can. A child has it from its own parent: there it
  // is an uncaught exception, as in Node.
  #lose(error, handle) {
    if (this.#drops(handle)) return;
    if (handle !== undefined) this.#reply({ cmd: 'NODE_HANDLE_ACK' });
    handle?.close();
    process.nextTick(() => {
      if (this.target === process) throw error;
      this.#report(new ERR_BROOD_IPC_MESSAGE(error.message));
    });
  }

  #receive(batch, count, handles, ranges, memory) {
    // What was read before this, in the same go, has ended the channel.
    if (this.native.id === 0) return closeReceived(handles, memory);
    const decoded = codecs.decode(this.native, batch, count, ranges, memory);
    const { messages, unreadable, error } = decoded;
    let nextHandle = 0;
    for (let index = 0; index < messages.length; index++) {
      const message = messages[index];
      let native;
      if (handles !== undefined && handles[nextHandle] === index) {
        const fd = handles[nextHandle + 1];
        native = fd < 0 ? null : adoptDescriptor(fd);
        nextHandle += 2;
      }
      if (unreadable?.has(index)) this.#lose(unreadable.get(index), native);
      else this.#deliver(message, native);
    }
    if (error !== undefined) {
      closeDescriptors(handles, nextHandle);
      this.cutOff(`a message could not be decoded: ${error.message}`);
    } else if (this.#finishing && count > 0) {
      // The message that close() waited for is among these.
      this.#finishSoon();
    }
  }

  #deliver(message, handle) {
    if (this.#drops(handle)) return;
    process.nextTick(emitMessage, this, message, handle, isInternal(message));
  }

  // Whether nobody takes a message any more; its handle is closed then.
  #drops(handle) {
    if (this.#state !== 'closed' || this.#finishing) return false;
    if (handle instanceof net.Socket) handle.destroy();
    else handle?.close();
    return true;
  }

  // In the tick after its arrival a message becomes an event.
  emit(message, handle, internal) {
    if (this.#reviving || this.#behind.length > 0) this.#behind.push([message, handle, internal]);
    else this.#emit(message, handle, internal);
  }

  // One of those behind a handle: each has a tick of its own, as if it had come now.
  emitNext() {
    if (this.#reviving || this.#behind.length === 0) return;
    const [message, handle, internal] = this.#behind.shift();
    this.#goOn();
    this.#emit(message, handle, internal);
  }

  #goOn() {
    if (this.#behind.length > 0) process.nextTick(emitNext, this);
    else if (this.#isDue) this.#finishSoon();
  }

  #emit(message, handle, internal) {
    const { target } = this;
    if (internal) {
      if (isAnnouncement(message)) return;
      if (message.cmd === 'NODE_HANDLE') this.#acceptHandle(message, handle);
      target.emit('internalMessage', message, handle);
    } else if (this.#parked.length === 0 && target.listenerCount('message') > 0) {
      target.emit('message', message, handle);
    } else {
      this.park(message, handle);
      this.flushParked();
    }
  }

  // Messages that came before anybody listened are kept for the first listener.
  park(message, handle) {
    this.#parked.push([message, handle]);
  }

  #hasParked() {
    return this.#parked.length > 0 && this.target.listenerCount('message') > 0;
  }

  flushParked() {
    try {
      while (this.#hasParked()) {
        this.target.emit('message', ...this.#parked.shift());
      }
    } finally {
      // A listener has thrown: the rest is still for it.
      if (this.#hasParked()) process.nextTick(() => this.flushParked());
    }
  }

  #acceptHandle(message, native) {
    const kind = Object.hasOwn(kinds, message.type) ? kinds[message.type] : undefined;
    if (kind === undefined || message.msg === undefined) {
      native?.close();
      this.cutOff('a NODE_HANDLE message names no known type of handle or carries no message');
      return;
    }
    if (!native) {
      // The descriptor was lost on the way (MSG_CTRUNC: we are out of descriptors): ask again.
      this.#reply({ cmd: 'NODE_HANDLE_NACK' });
      return;
    }
    this.#reply({ cmd: 'NODE_HANDLE_ACK' });
    const datagram = nativeHandleType(native) === 'udp';
    if (datagram !== message.type.startsWith('dgram.')) {
      native.close();
      this.cutOff(`a descriptor sent as ${message.type} is another kind of socket`);
      return;
    }
    if (message.key !== undefined && typeof message.key !== 'string') {
      native.close();
      this.cutOff('a NODE_HANDLE message has a key that is no string');
      return;
    }
    this.#revive(kind, message, native);
  }

  #revive(kind, message, native) {
    const { msg } = message;
    this.#reviving = true;
    const settled = () => {
      this.#reviving = false;
      this.#goOn();
    };
    const revived = (handle) => {
      const isDropped = this.#drops(handle);
      process.nextTick(() => {
        settled();
        if (!isDropped) this.#emit(msg, handle, isInternal(msg));
      });
    };
    const failed = (error) => {
      settled();
      this.cutOff(`a descriptor sent as ${message.type} cannot be one: ${error.message}`);
    };
    try {
      kind.revive(this, message, native, revived, failed);
    } catch (error) {
      settled();
      throw error;
    }
  }

  #reply(message) {
    if (this.#state !== 'closed') this.target._send(message, null, QUIETLY);
  }
}

function emitMessage(channel, message, handle, internal) {
  channel.emit(message, handle, internal);
}

function emitNext(channel) {
  channel.emitNext();
}

// Throws unless send() can take it.
function checkMessage(message) {
  if (typeof message === 'object' || SENDABLE.includes(typeof message)) return;
  if (message === undefined) throw new ERR_MISSING_ARGS('message');
  throw new ERR_INVALID_ARG_TYPE('message', SENDABLE, message);
}

function replyKind(message) {
  if (typeof message !== 'object' || message === null || !('cmd' in message)) return NO_REPLY;
  // A getter is not called: the serializer will do that.
  switch (Object.getOwnPropertyDescriptor(message, 'cmd')?.value) {
    case 'NODE_HANDLE_ACK':
      return ACKNOWLEDGEMENT;
    case 'NODE_HANDLE_NACK':
      return REFUSAL;
    default:
      return NO_REPLY;
  }
}

function descriptorOf(native) {
  if (typeof native.fd !== 'number') throw new ERR_INVALID_HANDLE_TYPE();
  return native.fd;
}

function closeDescriptors(handles, from) {
  for (let i = from + 1; handles !== undefined && i < handles.length; i += 2) {
    if (handles[i] >= 0) binding.closeDescriptor(handles[i]);
  }
}

function closeReceived(handles, memory = []) {
  closeDescriptors(handles, 0);
  codecs.closePieces(memory);
}

function warnHandleLost() {
  process.emitWarning(
    'Handle did not reach the receiving process correctly',
    'SentHandleNotReceivedWarning',
  );
}

function warnStarved() {
  process.emitWarning('A message has arrived and waits, because there is no memory for it', {
    code: 'BROOD_IPC_NO_MEMORY',
  });
}

const deprecatedChannel = {
  configurable: true,
  enumerable: false,
  get: deprecate(
    function () {
      return this.channel;
    },
    '_channel is deprecated. Use ChildProcess.channel instead.',
    'DEP0129',
  ),
  set: deprecate(
    function (value) {
      this.channel = value;
    },
    '_channel is deprecated. Use ChildProcess.channel instead.',
    'DEP0129',
  ),
};

// Makes `target` (a ChildProcess, or `process` in a child) one end of the channel behind `fd`,
// whose ownership passes to the channel. `options.onClose` is called once, when it has ended.
function setupChannel(target, fd, serialization, options = {}) {
  const codec = codecs[serialization];
  const native = new NativeChannel(fd, codec, options);
  const channel = new Channel(target, native, options.onClose);
  channels.set(target, channel);
  target.channel = channel.control;
  target.connected = true;
  target.send = function send(message, handle, sendOptions, callback) {
    return channel.send(message, handle, sendOptions, callback);
  };
  target._send = function _send(message, handle, sendOptions, callback) {
    // Node's older signature: a boolean stood for swallowErrors.
    if (typeof sendOptions === 'boolean') sendOptions = { swallowErrors: sendOptions };
    return channel.write(message, handle, sendOptions, callback);
  };
  target.sendAsync = function sendAsync(message, handle, sendOptions) {
    return new Promise((resolve, reject) => {
      // send() would take a function for its callback, and nothing would settle the promise.
      if (typeof handle === 'function') throw new ERR_INVALID_HANDLE_TYPE();
      if (sendOptions !== undefined) validateObject(sendOptions, 'options');
      // A promise has to settle, whatever comes of it.
      const options = { ...sendOptions, swallowErrors: false };
      this.send(message, handle, options, (error) => (error ? reject(error) : resolve()));
    });
  };
  target.disconnect = function disconnect() {
    channel.disconnect();
  };
  target._disconnect = function _disconnect() {
    channel.close();
  };
  if (hasDeprecatedChannel) Object.defineProperty(target, '_channel', deprecatedChannel);
  target.on('newListener', (event) => {
    if (event === 'internalMessage') native.hearReplies();
    process.nextTick(() => channel.flushParked());
  });
  native.readStart();
  return channel;
}

// The channel of a ChildProcess or of `process`, undefined when it has none of ours.
function channelOf(target) {
  return channels.get(target);
}

module.exports = { channelOf, checkMessage, setupChannel };
