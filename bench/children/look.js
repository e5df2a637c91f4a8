'use strict';

// Looks at every byte of a large message, or of its `text`, and answers with its length.

const NEVER_THERE = '\x01';

process.on('message', (message) => {
  const payload = message.text ?? message;
  process.send(payload.includes(NEVER_THERE) ? -1 : payload.length);
});
