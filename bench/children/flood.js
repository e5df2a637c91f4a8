'use strict';

// On 'go' sends as many small messages as it was told to, as fast as send() permits.

const SMALL = require('./small');
let left = Number(process.argv[2]);

function more() {
  while (left > 1) {
    left--;
    if (!process.send(SMALL)) {
      left--;
      process.send(SMALL, left > 0 ? more : undefined);
      return;
    }
  }
  if (left === 1) {
    left--;
    process.send(SMALL);
  }
}

process.on('message', more);
process.send('ready');
