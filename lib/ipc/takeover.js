'use strict';

// In a child that stock Node has already given a channel: replaces Node's end by ours, without
// losing a byte. Node set its end up before any preload ran; where it stands in a state we do not
// know exactly, it is left in place and the child works without brood's channel.

const binding = require('../binding');
const { setupChannel } = require('./channel');
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

// What Node has read of the channel and not yet understood: the beginning of a frame.
function unreadRemainder(pipe) {
  const jsonBuffer = ownSymbol(pipe, 'kJSONBuffer');
  if (jsonBuffer !== undefined) {
    const decoder = pipe[ownSymbol(pipe, 'kStringDecoder')];
    if (decoder !== undefined && decoder.lastNeed > 0) return null;
    return { serialization: 'json', bytes: Buffer.from(pipe[jsonBuffer]) };
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
  pipe.readStop();
  pipe.onread = () => {};
  pipe.close();
  for (const { event, listener } of listeners) process.removeListener(event, listener);
  const channel = attach(symbol, fd, remainder);
  moveParkedMessages(stockControl, channel);
  return true;
}

// Node keeps messages without a listener under a symbol of its control object, and may have a tick
// pending that will look there: leave an empty list for it.
function moveParkedMessages(stockControl, channel) {
  const pending = ownSymbol(stockControl, 'kPendingMessages');
  if (pending === undefined) return;
  for (const [, message, handle] of stockControl[pending]) channel.park(message, handle);
  channel.control[pending] = [];
}

function attach(symbol, fd, { serialization, bytes }) {
  const channel = setupChannel(process, fd, serialization, { received: bytes });
  const { control, native } = channel;
  process[symbol] = native;
  // A child's channel keeps it alive only while somebody listens.
  native.unref();
  for (const event of LISTENED) {
    for (let i = process.listenerCount(event); i > 0; i--) control.refCounted();
  }
  process.on('newListener', (event) => {
    if (LISTENED.includes(event)) control.refCounted();
  });
  process.on('removeListener', (event) => {
    if (LISTENED.includes(event)) control.unrefCounted();
  });
  return channel;
}

module.exports = { takeOverChannel };
