'use strict';

// Looks at every byte of a large message and answers with its length.

const NEVER_THERE = '\x01';

process.on('message', (payload) => {
  process.send(payload.includes(NEVER_THERE) ? -1 : payload.length);
});
