'use strict';
// The primary's listening sockets: which one a worker's request is for, who may have one, and how
// long each lives. Binding and handing over are the two kinds of listener's.

const path = require('node:path');
const activation = require('./activation');
const { EACCES, bindDatagram, bindHandle } = require('./bind');
const dispatcher = require('./dispatcher');
const { DispatchedListener } = require('./dispatched_listener');
const { isAbsent, isDatagram } = require('./messages');
const { POLICIES } = require('./policies');
const { place, policyName, policyTable } = require('./scheduling');
const { SharedListener } = require('./shared_listener');
const { clearTimeout, setTimeout } = require('../start').timers;

const DEFAULT_GRACE_MS = 10_000;
const LONGEST_TIMER_MS = 2 ** 31 - 1;

class Listeners {
  /** The policy of places that have none of their own. */
  defaultPolicy = POLICIES.SCHED_RR;
  #settings;
  // What setScheduler() said of single places.
  #policies = new Map();
  // What a worker asks for -> the listener that others who ask for the same share.
  #byRequest = new Map();
  #all = new Set();
  #lastKey = 0;
  // Listeners whose last worker has crashed -> { link, timer }: that worker, and the end of the grace.
  #kept = new Map();

  /** `settings()` returns the cluster's settings of the moment. */
  constructor(settings) {
    this.#settings = settings;
  }

  /** Answers a worker's request for a socket; `reply(fields, handle)` is called once. */
  query(link, message, reply) {
    let isAllowed = false;
    try {
      isAllowed = this.#isAllowed(link, message);
    } finally {
      // The worker has its answer also when the user's function has thrown.
      if (!isAllowed) reply({ errno: EACCES, data: message.data });
    }
    if (!isAllowed) return;
    const request = keyOf(message);
    const known = this.#byRequest.get(request);
    const listener = known === undefined || known.has(link) ? this.#create(message) : known;
    if (known === undefined) this.#byRequest.set(request, listener);
    this.#use(listener);
    listener.data ||= message.data;
    listener.add(link, (errno, fields, handle) => {
      if (errno) this.#discard(listener);
      else this.#byRequest.set(request, listener);
      reply({ errno, key: listener.key, data: listener.data, ...fields }, handle);
    });
  }

  #isAllowed(link, { address, port, addressType, fd }) {
    // A descriptor's number gives whoever names it the rights of this process.
    if (fd !== undefined && link.isForeign) return false;
    const { listen } = this.#settings();
    return listen === undefined || listen({ address, port, addressType, fd }, link.worker) === true;
  }

  #create(message) {
    this.#makeRoom(message);
    // What the worker calls it. A worker may ask for one address again before it has let go of it.
    const key = `${++this.#lastKey}:${keyOf(message)}`;
    const request = { ...message, address: shortest(message), ...activated(message) };
    const at = place(message);
    const listener = newListener(key, request, this.#policyFor(at));
    listener.place = at;
    listener.path = message.port === -1 ? at : undefined;
    this.#all.add(listener);
    return listener;
  }

  #policyFor(at) {
    const { scheduling } = this.#settings();
    const set = this.#policies.get(at) ?? policyTable(scheduling, 'scheduling').get(at);
    return set ?? this.defaultPolicy;
  }

  /** What is only kept for a replacement gives way to another request for its port or path. */
  #makeRoom(message) {
    if (message.port === 0 || isDatagram(message)) return;
    for (const listener of this.#kept.keys()) {
      if (isAt(listener, place(message))) this.#discard(listener);
    }
  }

  /** A worker has told that it knows of its listener. */
  ready(link, listenerId) {
    for (const listener of this.#all) {
      if (listener.id === listenerId) listener.ready(link);
    }
  }

  /** The worker has no lane any more: it is served as a stock one. */
  readmit(link) {
    for (const listener of this.#all) {
      if (listener.has(link)) listener.readmit(link);
    }
  }

  /** A worker has closed a server. */
  close(link, key) {
    for (const listener of this.#all) {
      if (listener.key === key && listener.has(link)) return this.#remove(listener, link, false);
    }
  }

  /** A worker is leaving, on purpose or because it has crashed. */
  removeWorker(link, hasCrashed) {
    for (const listener of this.#all) this.#remove(listener, link, hasCrashed);
  }

  /** A worker that seemed to have crashed has ended as it wanted to. */
  hasNotCrashed(link) {
    for (const [listener, kept] of this.#kept) {
      if (kept.link === link) this.#discard(listener);
    }
  }

  has(link) {
    return [...this.#all].some((listener) => listener.has(link));
  }

  /** Whether a worker accepts connections from a socket that all workers have. */
  sharesSocket(link) {
    const isShared = (one) => one instanceof SharedListener && !isDatagram(one.request);
    return [...this.#all].some((listener) => isShared(listener) && listener.has(link));
  }

  #remove(listener, link, hasCrashed) {
    if (!listener.remove(link) || !listener.isEmpty) return;
    const grace = this.#settings().listenerGrace ?? DEFAULT_GRACE_MS;
    const isListening = listener instanceof DispatchedListener && listener.id !== 0;
    if (hasCrashed && isListening && grace > 0) this.#keep(listener, link, grace);
    else this.#discard(listener);
  }

  /** Clients wait in the socket's queue for a replacement of the worker that has crashed. */
  #keep(listener, link, grace) {
    const isEndless = grace > LONGEST_TIMER_MS;
    const timer = isEndless ? undefined : setTimeout(() => this.#discard(listener), grace);
    timer?.unref();
    this.#kept.set(listener, { link, timer });
  }

  #use(listener) {
    clearTimeout(this.#kept.get(listener)?.timer);
    this.#kept.delete(listener);
  }

  #discard(listener) {
    this.#use(listener);
    this.#all.delete(listener);
    for (const [request, known] of this.#byRequest) {
      if (known === listener) this.#byRequest.delete(request);
    }
    listener.close();
  }

  closeKept() {
    for (const listener of this.#kept.keys()) this.#discard(listener);
  }

  /** Sets the policy of every listener, and of those to come that the settings say nothing of. */
  setPolicy(policy) {
    this.defaultPolicy = policy;
    this.#policies.clear();
    for (const listener of this.#all) listener.setPolicy(policy);
  }

  /** Sets the policy of the listeners at one port or path, now and in future. */
  setPolicyAt(at, policy) {
    this.#policies.set(at, policy);
    for (const listener of this.#all) {
      if (isAt(listener, at)) listener.setPolicy(policy);
    }
  }

  describe() {
    const stats = dispatcher.listenerStats();
    return [...this.#all].map((listener) => {
      const { address, port, workers, accepted, waiting } = listener.describe(stats);
      const policy = policyName(listener.policy);
      return { address: listener.path ?? address, port, policy, workers, accepted, waiting };
    });
  }
}

/** Datagrams have no connections that could be shared out. */
function newListener(key, request, policy) {
  if (isDatagram(request)) return new SharedListener(key, request, bindDatagram);
  if (policy === POLICIES.SCHED_NONE) return new SharedListener(key, request, bindHandle);
  return new DispatchedListener(key, request, policy);
}

/** Requests with one key share a socket. Each of a worker's servers on any port has its own. */
function keyOf({ address, port, addressType, fd, index }) {
  const isAnyPort = fd === undefined && (isAbsent(port) || Number(port) === 0);
  const own = isAnyPort ? `:${index}` : '';
  return `${address}:${port}:${addressType}:${fd}${own}`;
}

/** A Unix path as it is or relative to here, whichever fits better into the 108 bytes there are. */
function shortest({ address, port }) {
  if (port !== -1 || typeof address !== 'string') return address;
  const relative = path.relative(process.cwd(), address);
  return address.length < relative.length ? address : relative;
}

/** A socket that the service manager has opened for us takes the place of binding one. */
function activated(message) {
  if (message.fd !== undefined) return undefined;
  const fd = activation.takeActivated(message);
  return fd === undefined ? undefined : { fd, address: null, port: null, askedPort: message.port };
}

/** Whether a listener was asked for at a place, or has got its port there. */
function isAt(listener, at) {
  return listener.place === at || String(listener.port) === at;
}

module.exports = { Listeners };
