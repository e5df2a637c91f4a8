'use strict';
// Listening sockets that the service manager has opened and passed to the primary.

/** Which passed socket is meant by which address: an object of name -> port or path. */
function nameActivated() {}

/** The descriptor of the socket passed for a request, or undefined: there is none. */
function takeActivated() {
  return undefined;
}

module.exports = { nameActivated, takeActivated };
