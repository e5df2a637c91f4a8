'use strict';

// Looks at every byte of a large message, or of its `text`, and answers with its length. Called with
// brood's path, it gives the memory back when it has looked.

const NEVER_THERE = '\x01';

const [brood] = process.argv.slice(2);
const release = brood ? require(brood).releaseBuffer : () => {};

process.on('message', (message) => {
  const payload = message.text ?? message;
  const { length } = payload;
  const answer = payload.includes(NEVER_THERE) ? -1 : length;
  if (typeof payload !== 'string') release(payload);
  process.send(answer);
});
