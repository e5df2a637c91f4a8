'use strict';

// In a child that stock Node has already given a channel: replaces Node's end by ours, without
// losing a byte. Node set its end up before any preload ran; where it stands in a state we do not
// know exactly, it is left in place and the child works without brood's channel.

const binding = require('../binding');
const { setupChannel } = require('./channel');
const { answerOffer } = require('./upgrade');
const { debug } = require('../debug');

const LISTENED = ['message', 'disconnect'];

function ownSymbol(object, description) {
  return Object.getOwnPropertySymbols(object).find((symbol) => symbol.description === description);
}

// The listeners Node's set-up put on `process`, told by what their source says or is called.
function stockListeners() {
  const find = (event, isStock) => {
    const listener = process.listeners(event).find(isStock);
    return listener && { event, listener };
  };
  return [
    find('internalMessage', (f) => f.toString().includes('NODE_HANDLE_ACK')),
    find('newListener', (f) => f.toString().includes('kPendingMessages')),
    find('newListener', (f) => f.name === 'onNewListener'),
    find('removeListener', (f) => f.name === 'onRemoveListener'),
  ];
}

// The beginning of a character whose end has not been read.
function undecoded(decoder) {
  return decoder
    ? decoder.lastChar.subarray(0, decoder.lastTotal - decoder.lastNeed)
    : Buffer.alloc(0);
}

// What Node has read of the channel and not yet understood: the beginning of a frame.
function unreadRemainder(pipe) {
  const jsonBuffer = ownSymbol(pipe, 'kJSONBuffer');
  if (jsonBuffer !== undefined) {
    const decoder = pipe[ownSymbol(pipe, 'kStringDecoder')];
    const bytes = Buffer.concat([Buffer.from(pipe[jsonBuffer]), undecoded(decoder)]);
    return { serialization: 'json', bytes };
  }
  const messageBuffer = ownSymbol(pipe, 'kMessageBuffer');
  if (messageBuffer === undefined) return null;
  const parts = [].concat(pipe[messageBuffer]);
  return { serialization: 'advanced', bytes: Buffer.concat(parts) };
}

function isQuiescent(pipe) {
  return (
    pipe.fd >= 0 &&
    !process._handleQueue &&
    !process._pendingMessage &&
    !pipe.pendingHandle &&
    pipe.writeQueueSize === 0
  );
}

// Takes the channel over and returns whether it did.
function takeOverChannel() {
  const symbol = ownSymbol(process, 'kChannelHandle');
  const pipe = symbol === undefined ? undefined : process[symbol];
  if (!process.connected || !pipe) return false;
  const remainder = unreadRemainder(pipe);
  const listeners = stockListeners();
  if (remainder === null || listeners.includes(undefined) || !isQuiescent(pipe)) {
    debug("the channel is not in a state we know: Node's own stays in place");
    return false;
  }
  const fd = binding.duplicateDescriptor(pipe.fd);
  if (fd < 0) return false;
  const stockControl = process.channel;
  const wasReferenced = pipe.hasRef();
  pipe.readStop();
  let channel;
  try {
    channel = setupChannel(process, fd, remainder.serialization, { received: remainder.bytes });
  } catch (error) {
    debug("the channel cannot be opened, Node's own stays in place: %s", error.message);
    pipe.readStart();
    return false;
  }
  pipe.onread = () => {};
  pipe.close();
  process[symbol] = channel.native;
  removeStockListeners(listeners);
  countListeners(channel, wasReferenced);
  moveParkedMessages(stockControl, channel);
  answerOffer(channel.native);
  process.nextTick(() => channel.flushParked());
  return true;
}

// A message that Node has read may wait in a tick: when it carries a handle, Node's own listener
// for internal messages is the one that knows what to do with it, so it goes a tick later.
function removeStockListeners(listeners) {
  for (const { event, listener } of listeners) {
    if (event !== 'internalMessage') process.removeListener(event, listener);
    else process.nextTick(() => process.removeListener(event, listener));
  }
}

// Node keeps messages without a listener in a list under a symbol of its control object. What is in
// there becomes ours, and so does what its ticks that are still to come will add.
function moveParkedMessages(stockControl, channel) {
  const pending = ownSymbol(stockControl, 'kPendingMessages');
  if (pending === undefined) return;
  for (const [, message, handle] of stockControl[pending]) channel.park(message, handle);
  const forward = (list, key, value) => {
    if (key !== 'length') channel.park(value[1], value[2]);
    return true;
  };
  channel.control[pending] = new Proxy([], { set: forward });
}

// A child's channel keeps it alive only while somebody listens, unless the program has called ref()
// or unref() itself: told by a state that its listeners do not explain.
function countListeners({ control, native }, wasReferenced) {
  native.unref();
  let count = 0;
  for (const event of LISTENED) count += process.listenerCount(event);
  for (let i = 0; i < count; i++) control.refCounted();
  if (wasReferenced && count === 0) control.ref();
  if (!wasReferenced && count > 0) control.unref();
  process.on('newListener', (event) => {
    if (LISTENED.includes(event)) control.refCounted();
  });
  process.on('removeListener', (event) => {
    if (LISTENED.includes(event)) control.unrefCounted();
  });
}

// The parent has offered brood's own framing, which needs our end of the channel.
function takeUpOffer() {
  try {
    if (process.connected) takeOverChannel();
  } catch (error) {
    debug("the parent's offer cannot be taken up: %s", error.message);
  }
}

module.exports = { takeOverChannel, takeUpOffer };
