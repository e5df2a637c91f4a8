'use strict';
// How many connections are open in a worker's servers that the dispatcher serves.

class OpenConnections {
  #total = 0;
  #watched = new WeakSet();
  // Server -> how many it had when it was looked at last, of those that had some, whether or not they
  // listen still.
  #open = new Map();
  #onChange;

  /** `onChange()` is called when connections have been closed. */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  get total() {
    return this.#total;
  }

  /** Counts those of `server` from now on. */
  watch(server) {
    if (this.#watched.has(server)) return;
    this.#watched.add(server);
    this.look(server);
    this.#listen(server);
  }

  /** Takes in how many `server` has: to be called when one may have been opened. */
  look(server) {
    const connections = server._connections;
    this.#total += connections - (this.#open.get(server) ?? 0);
    if (connections > 0) this.#open.set(server, connections);
    else this.#open.delete(server);
  }

  /** Finds what has gone without being closed: a connection that was sent to another process. */
  lookAtAll() {
    for (const server of this.#open.keys()) this.look(server);
  }

  /**
   * Learns of connections that close by what a socket calls last then. An accessor in the place of
   * `_connections` would tell of all changes, but have V8 look up each property of the server, which
   * is several for a request, in a dictionary.
   */
  #listen(server) {
    const { _emitCloseIfDrained: emitCloseIfDrained } = server;
    const onClosed = () => {
      this.look(server);
      this.#onChange();
      return emitCloseIfDrained.call(server);
    };
    Object.defineProperty(server, '_emitCloseIfDrained', {
      configurable: true,
      writable: true,
      value: onClosed,
    });
  }
}

module.exports = { OpenConnections };
