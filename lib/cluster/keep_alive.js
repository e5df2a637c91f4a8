'use strict';
// Keeps the event loop alive while somebody holds it: a listening socket does that in Node, and the
// dispatcher's sockets are not the loop's.

const { clearInterval, setInterval } = require('../start').timers;

const LONGEST_MS = 2 ** 31 - 1;

let holders = 0;
let timer;

function hold() {
  if (++holders === 1) timer = setInterval(() => {}, LONGEST_MS);
}

function release() {
  if (--holders === 0) clearInterval(timer);
}

module.exports = { hold, release };
