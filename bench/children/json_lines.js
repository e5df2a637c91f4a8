'use strict';

// Lines of JSON over a stream, as a program without child_process's channel would write them.

const { once } = require('node:events');
const SMALL = require('./small');

/** Calls `listener` with each message that arrives. */
function onMessages(stream, listener) {
  let rest = '';
  stream.setEncoding('utf8').on('data', (text) => {
    const lines = (rest + text).split('\n');
    rest = lines.pop();
    for (const line of lines) listener(JSON.parse(line));
  });
}

/** Writes the small message `count` times, as fast as the stream permits. */
async function writeAll(stream, count) {
  for (let i = 0; i < count; i++) {
    if (!stream.write(`${JSON.stringify(SMALL)}\n`)) await once(stream, 'drain');
  }
}

module.exports = { onMessages, writeAll };
