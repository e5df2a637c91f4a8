'use strict';
// A socket that every worker gets a handle of, so that the operating system chooses who is served:
// SCHED_NONE, and all datagram sockets. Nothing watches it in the primary.

const { POLICIES } = require('./policies');

class SharedListener {
  policy = POLICIES.SCHED_NONE;
  // What the workers' servers share: the keys of TLS tickets.
  data = undefined;
  // What the schedulers' settings call it.
  place = undefined;
  // Of a Unix socket.
  path = undefined;
  #workers = new Set();
  #handle = null;
  #errno = 0;

  /** `bind()` returns a native handle or a negative errno. */
  constructor(key, request, bind) {
    this.key = key;
    this.request = request;
    const bound = bind(request);
    if (typeof bound === 'number') this.#errno = bound;
    else this.#handle = bound;
  }

  /** Calls `reply(errno, fields, handle)`, as the other kind of listener does. */
  add(link, reply) {
    this.#workers.add(link);
    reply(this.#errno, {}, this.#handle);
  }

  get port() {
    return this.#name().port ?? null;
  }

  has(link) {
    return this.#workers.has(link);
  }

  get isEmpty() {
    return this.#workers.size === 0;
  }

  remove(link) {
    return this.#workers.delete(link);
  }

  /** The other kind has to do with lanes; here the worker has all it needs. */
  ready() {}
  readmit() {}

  /** Who is served the operating system has decided. */
  setPolicy() {}

  close() {
    this.#handle?.close();
    this.#handle = null;
  }

  #name() {
    const name = {};
    this.#handle?.getsockname?.(name);
    return name;
  }

  describe() {
    const name = this.#name();
    return {
      address: name.address ?? this.request.address ?? null,
      port: name.port ?? null,
      workers: this.#workers.size,
      accepted: null,
      waiting: null,
    };
  }
}

module.exports = { SharedListener };
