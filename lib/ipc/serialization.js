'use strict';

// The two codecs of a channel: how one message becomes text or bytes, which any number of channels
// of one codec may send, and how a batch the addon has split into frames becomes messages. Framing
// itself (newlines, length prefixes) is the addon's.

const v8 = require('node:v8');
const binding = require('../binding');
const { ERR_INVALID_ARG_VALUE } = require('../errors');

// Tags that Node's 'advanced' wire puts before a host object.
const VIEW_TAG = 0;
const PLAIN_TAG = 1;

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
    const tag = this.readUint32();
    if (tag === VIEW_TAG) return super._readHostObject();
    if (tag !== PLAIN_TAG) throw new Error(`unknown host object tag ${tag}`);
    return this.readValue();
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

  send(id, text, fd, flags) {
    return binding.channelSend(id, text, fd, flags);
  },

  // `batch` is a JSON array of `count` messages. One parse for all of them is a quarter cheaper
  // than one for each; when a line is not valid by itself, parse line by line to find which.
  decode(id, batch, count) {
    try {
      const messages = JSON.parse(batch);
      if (messages.length === count) return { messages };
    } catch {
      // Fall through: some line is not JSON.
    }
    return decodeEach(binding.channelLines(id), JSON.parse);
  },
};

const advanced = {
  advanced: true,

  encode(message) {
    const serializer = new Serializer();
    serializer.writeHeader();
    serializer.writeValue(message);
    return serializer.releaseBuffer();
  },

  send(id, bytes, fd, flags) {
    return binding.channelSendBytes(id, bytes, fd, flags);
  },

  // `batch` is one Buffer, `ranges` the start and end of each message in it.
  decode(id, batch, count, ranges) {
    const frames = Array.from({ length: count }, (_, index) =>
      batch.subarray(ranges[2 * index], ranges[2 * index + 1]),
    );
    return decodeEach(frames, (bytes) => {
      const deserializer = new Deserializer(bytes);
      deserializer.readHeader();
      return deserializer.readValue();
    });
  },
};

function decodeEach(frames, decodeOne) {
  const messages = [];
  for (const frame of frames) {
    try {
      messages.push(decodeOne(frame));
    } catch (error) {
      return { messages, error };
    }
  }
  return { messages };
}

module.exports = { json, advanced };
