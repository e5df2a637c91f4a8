'use strict';

// The two codecs of a channel: how one message becomes text or bytes, which any number of channels
// of one codec may send, and how a batch the addon has split into frames becomes messages. Framing
// itself is the addon's.

const v8 = require('node:v8');
const binding = require('../binding');
const { Aside, Beside, Mismatch, THRESHOLD, blocks, closeAll } = require('./large_buffers');
const { plainText } = require('./plain_message');
const { ERR_INVALID_ARG_VALUE } = require('../errors');

// Tags that Node's 'advanced' wire puts before a host object.
const VIEW_TAG = 0;
const PLAIN_TAG = 1;
// brood's own, where both ends are.
const LARGE_TAG = 2;
const TEXT_TAG = 3;
const STRING_TAG = 4;
// V8's own tag before any host object.
const HOST_OBJECT = Buffer.from('\\');

// A bit of a channel's features.
const SHARED_MEMORY = 2;

class Serializer extends v8.DefaultSerializer {
  // What structured clone cannot carry (native handles, say) goes the way JSON would send it: as
  // an object of its own enumerable properties.
  _writeHostObject(object) {
    if (ArrayBuffer.isView(object)) {
      this.writeUint32(VIEW_TAG);
      return super._writeHostObject(object);
    }
    this.writeUint32(PLAIN_TAG);
    this.writeValue({ ...object });
    return undefined;
  }
}

class Deserializer extends v8.DefaultDeserializer {
  _readHostObject() {
    return this._readTagged(this.readUint32());
  }

  _readTagged(tag) {
    if (tag === VIEW_TAG) return super._readHostObject();
    if (tag !== PLAIN_TAG) throw new Error(`unknown host object tag ${tag}`);
    return this.readValue();
  }
}

// As above, with large buffers put aside.
class LargeSerializer extends Serializer {
  constructor(native) {
    super();
    this.aside = new Aside(native);
  }

  _writeHostObject(object) {
    const place = ArrayBuffer.isView(object) ? this.aside.view(object) : null;
    if (place === null) return super._writeHostObject(object);
    this.writeUint32(LARGE_TAG);
    this.writeUint32(place.kind);
    this.writeUint32(place.index);
    this.writeUint32(place.byteLength);
    return undefined;
  }
}

class LargeDeserializer extends Deserializer {
  // All of the message, if it is one that lies beside the stream, and whether as JSON.
  text = undefined;
  isJson = false;

  constructor(bytes, beside) {
    super(bytes);
    this.beside = beside;
  }

  _readHostObject() {
    const tag = this.readUint32();
    if (tag === LARGE_TAG) {
      const [kind, index, byteLength] = [this.readUint32(), this.readUint32(), this.readUint32()];
      return this.beside.view(kind, index, byteLength);
    }
    if (tag !== TEXT_TAG && tag !== STRING_TAG) return this._readTagged(tag);
    this.text = this.beside.text(0, this.readUint32());
    this.isJson = tag === TEXT_TAG;
    // V8 takes objects only; what the text says may be none.
    return {};
  }
}

const json = {
  advanced: false,

  encode(message) {
    const text = JSON.stringify(message);
    // A toJSON() that returns nothing: what Node would write here is not JSON.
    if (text === undefined) throw new ERR_INVALID_ARG_VALUE('message', message, 'has no JSON form');
    return text;
  },

  // For a peer that is brood, too, and a message that has no handle.
  encodeFor(native, message) {
    const asItIs = encodeString(native, message);
    if (asItIs !== undefined) return asItIs;
    const text = this.encode(message);
    const isShort = text.length < THRESHOLD || (native.features & SHARED_MEMORY) === 0;
    return isShort ? text : encodeText(native, text);
  },
};

const advanced = {
  advanced: true,

  encode(message) {
    return serialize(new Serializer(), message);
  },

  encodeFor(native, message) {
    const text = encodeString(native, message) ?? plainText(message);
    if (text !== undefined) return text;
    const isShared = (native.features & SHARED_MEMORY) !== 0;
    return isShared ? encodeLarge(native, message) : this.encode(message);
  },
};

// A serialized message with what lies beside it.
class LargeMessage {
  constructor(bytes, { pieces }) {
    this.bytes = bytes;
    this.pieces = pieces;
  }
}

function serialize(serializer, message) {
  serializer.writeHeader();
  serializer.writeValue(message);
  return serializer.releaseBuffer();
}

// A message of which all the JSON lies beside it, if it is long.
function encodeText(native, text) {
  return textBeside(native, text, TEXT_TAG) ?? text;
}

// A long string that is all of a message, which then needs neither JSON nor a serializer; undefined
// for anything else, and for half a surrogate pair, which UTF-8 cannot say.
function encodeString(native, message) {
  if (typeof message !== 'string' || !native.takesAreas(message.length)) return undefined;
  return message.isWellFormed() ? textBeside(native, message, STRING_TAG) : undefined;
}

function textBeside(native, text, tag) {
  const aside = new Aside(native);
  const byteLength = aside.text(text);
  if (byteLength < 0) return undefined;
  const serializer = new Serializer();
  serializer.writeHeader();
  serializer.writeRawBytes(HOST_OBJECT);
  serializer.writeUint32(tag);
  serializer.writeUint32(byteLength);
  return new LargeMessage(serializer.releaseBuffer(), aside);
}

function encodeLarge(native, message) {
  const serializer = new LargeSerializer(native);
  const { aside } = serializer;
  try {
    const bytes = serialize(serializer, message);
    aside.fill();
    return aside.count === 0 ? bytes : new LargeMessage(bytes, aside);
  } catch (error) {
    aside.drop();
    throw error;
  }
}

// Sends what a codec has made of a message.
function transmit(id, encoded, fd, flags) {
  if (typeof encoded === 'string') return binding.channelSend(id, encoded, fd, flags);
  if (encoded instanceof LargeMessage) {
    return binding.channelSendBeside(id, encoded.bytes, encoded.pieces, flags);
  }
  return binding.channelSendBytes(id, encoded, fd, flags);
}

// What the addon has received in one go: text, which may be too long for one string, or bytes with
// the place of each message. Returns `{ messages, error, unreadable }`: what follows a message that
// breaks the protocol, by `error`, is not decoded; of one that is merely unreadable to this V8 the
// error stands in the map, by its index.
function decode(native, batch, count, ranges, memory) {
  if (typeof batch === 'string') return decodeText(native.id, batch, count);
  if (batch === undefined) return decodeEach(binding.channelLines(native.id), JSON.parse);
  return decodeValues(batch, count, ranges, memory, native.maxMessageSize);
}

// `batch` is a JSON array of `count` messages. One parse for all of them is a quarter cheaper than
// one for each; when a line is not valid by itself, parse line by line to find which.
function decodeText(id, batch, count) {
  try {
    const messages = JSON.parse(batch);
    if (messages.length === count) return { messages };
  } catch {
    // Fall through: some line is not JSON.
  }
  return decodeEach(binding.channelLines(id), JSON.parse);
}

// `batch` is one Buffer, `ranges` the start and end of each message in it, `memory` what came beside
// some messages, behind their index.
function decodeValues(batch, count, ranges, memory, limit) {
  const frames = Array.from({ length: count }, (_, index) =>
    batch.subarray(ranges[2 * index], ranges[2 * index + 1]),
  );
  if (memory === undefined) {
    return decodeEach(frames, (bytes) => readValue(new Deserializer(bytes)), isUnreadableValue);
  }
  const pieces = new Map();
  for (let i = 0; i < memory.length; i += 2) pieces.set(memory[i], memory[i + 1]);
  blocks.start();
  try {
    const read = (bytes, index) =>
      readValue(new LargeDeserializer(bytes, new Beside(pieces.get(index) ?? [], limit)));
    return decodeEach(frames, read, isUnreadableValue);
  } finally {
    closePieces(memory);
  }
}

function readValue(deserializer) {
  deserializer.readHeader();
  const value = deserializer.readValue();
  const { text, isJson } = deserializer;
  if (text === undefined) return value;
  return isJson ? JSON.parse(text) : text;
}

function decodeEach(frames, decodeOne, isUnreadable = () => false) {
  const messages = [];
  const unreadable = new Map();
  for (let index = 0; index < frames.length; index++) {
    try {
      messages.push(decodeOne(frames[index], index));
    } catch (error) {
      if (!isUnreadable(error)) return { messages, unreadable, error };
      unreadable.set(messages.push(undefined) - 1, error);
    }
  }
  return { messages, unreadable };
}

// Whether it is the value that this V8 or Node does not know, for one of another version has written
// it: an error with a cause, say, that Node 20 has sent to Node 22.
function isUnreadableValue(error) {
  return !(error instanceof Mismatch || error instanceof SyntaxError || error.errno !== undefined);
}

// Closes what of `memory` no message has taken.
function closePieces(memory) {
  for (let i = 1; i < memory.length; i += 2) closeAll(memory[i]);
}

module.exports = { advanced, closePieces, decode, json, transmit };
