'use strict';
// A listening socket whose connections the dispatcher hands to the workers: from binding it to
// telling the dispatcher who may have its connections.

const dispatcher = require('./dispatcher');
const { backlogOf, bindHandle, bindTcp } = require('./bind');
const keepAlive = require('./keep_alive');

class DispatchedListener {
  // What the workers' servers share: the keys of TLS tickets.
  data = undefined;
  // What the schedulers' settings call it.
  place = undefined;
  // Of a Unix socket.
  path = undefined;
  #workers = new Set();
  // Workers with a lane that have not yet said that they know this listener.
  #unready = new Set();
  // Replies to give when the socket is bound.
  #pending = [];
  #state = 'binding';
  #sockname = undefined;
  // What is bound, where closing it has an effect of its own: libuv removes the path of a Unix
  // socket then, and closes a descriptor of the user's.
  #handle = null;
  #id = 0;
  #holdsLoop = false;

  constructor(key, request, policy) {
    this.key = key;
    this.request = request;
    this.policy = policy;
    if (request.fd === undefined && request.port !== -1) {
      bindTcp(request, (errno, handle) => this.#bound(errno, handle, true));
    } else {
      const bound = bindHandle(request);
      this.#bound(...(typeof bound === 'number' ? [bound] : [0, bound, false]));
    }
  }

  get isEmpty() {
    return this.#workers.size === 0;
  }

  has(link) {
    return this.#workers.has(link);
  }

  /** The dispatcher's number for it; 0 before it is bound and after it is closed. */
  get id() {
    return Math.max(this.#id, 0);
  }

  get port() {
    return this.#sockname?.port ?? null;
  }

  /** Calls `reply(errno, fields)` once the socket is bound; connections come after the reply. */
  add(link, reply) {
    this.#workers.add(link);
    this.#holdLoop();
    if (this.#state === 'binding') this.#pending.push([link, reply]);
    else this.#admit(link, reply, this.#id);
  }

  #admit(link, reply, id) {
    const isBound = id > 0;
    const fields = { listener: id };
    if (this.#sockname !== undefined) fields.sockname = this.#sockname;
    reply(isBound ? 0 : id, isBound ? fields : {});
    if (!isBound || !this.#workers.has(link)) return;
    if (link.hasLane) this.#unready.add(link);
    else this.#dispatchTo(link);
  }

  /** A worker with a lane has had the reply. */
  ready(link) {
    if (this.#unready.delete(link)) this.#dispatchTo(link);
  }

  /** A worker of this listener has lost its lane, and the dispatcher forgotten it. */
  readmit(link) {
    this.#unready.delete(link);
    if (this.#id > 0) this.#dispatchTo(link);
  }

  #dispatchTo(link) {
    if (!link.isAlive) return;
    link.introduce();
    dispatcher.add(this.#id, link.id, link.channelId);
  }

  remove(link) {
    if (!this.#workers.delete(link)) return false;
    this.#unready.delete(link);
    if (this.#id > 0) dispatcher.remove(this.#id, link.id);
    this.#holdLoop();
    return true;
  }

  #bound(errno, handle, isListening) {
    if (this.#state === 'closed') {
      handle?.close();
      return;
    }
    this.#state = 'bound';
    const id = errno < 0 ? errno : this.#listen(handle, isListening);
    this.#id = id;
    // The first reply of an error closes this listener; the others are of the same error.
    for (const [link, reply] of this.#pending.splice(0)) this.#admit(link, reply, id);
    this.#holdLoop();
  }

  #listen(handle, isListening) {
    if (handle.getsockname !== undefined) {
      this.#sockname = {};
      handle.getsockname(this.#sockname);
      // A passed socket may have any port; Node's worker accepts none but what it has asked for.
      if (this.request.askedPort > 0) this.#sockname.port = this.request.askedPort;
    }
    const backlog = backlogOf(this.request);
    const id = dispatcher.listen(handle.fd, this.key, this.policy, backlog);
    // The dispatcher has a duplicate; the loop must not accept from the same queue.
    if (isListening || id < 0) handle.close();
    else this.#handle = handle;
    return id;
  }

  setPolicy(policy) {
    this.policy = policy;
    if (this.#id > 0) dispatcher.setPolicy(this.#id, policy);
  }

  close() {
    // A handle that is kept may be of a socket that others have, too.
    if (this.#id > 0) dispatcher.close(this.#id, this.#handle === null);
    this.#id = 0;
    this.#state = 'closed';
    this.#handle?.close();
    this.#handle = null;
    this.#holdLoop();
  }

  // As a listening socket of Node's would: while workers are served, and not while it is only kept.
  #holdLoop() {
    const isServing = this.#id >= 0 && this.#state !== 'closed' && this.#workers.size > 0;
    if (isServing === this.#holdsLoop) return;
    this.#holdsLoop = isServing;
    if (isServing) keepAlive.hold();
    else keepAlive.release();
  }

  /** `stats` are the dispatcher's of all listeners. */
  describe(stats) {
    const { accepted = null, waiting = null } = stats.get(this.#id) ?? {};
    return {
      address: this.#sockname?.address ?? this.request.address ?? null,
      port: this.#sockname?.port ?? null,
      workers: this.#workers.size,
      accepted,
      waiting,
    };
  }
}

module.exports = { DispatchedListener };
