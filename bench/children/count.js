'use strict';

// Says it is ready, counts the messages it is told to expect, and says when they are all there.

let left = Number(process.argv[2]);
process.on('message', () => {
  if (--left === 0) process.send('done');
});
process.send('ready');
