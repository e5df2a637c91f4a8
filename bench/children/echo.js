'use strict';

// Sends every message back; with `greet` says hello first, with `busy N` looks for messages for N
// microseconds before it sleeps, where its channel can.

process.on('message', (message) => process.send(message));
if (process.argv[2] === 'greet') process.send('hello');
if (process.argv[2] === 'busy') process.channel.busyPoll?.(Number(process.argv[3]));
