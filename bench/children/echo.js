'use strict';

// Sends every message back; with `greet` says hello first.

process.on('message', (message) => process.send(message));
if (process.argv[2] === 'greet') process.send('hello');
