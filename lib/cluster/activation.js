'use strict';
// Listening sockets that the service manager has opened and passed to the primary.

/** The descriptor of the socket passed for an address, or undefined: there is none. */
function takeActivated() {
  return undefined;
}

module.exports = { takeActivated };
