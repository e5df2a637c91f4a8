'use strict';
// What the primary keeps of one worker beside the public Worker: how to reach it, what the
// dispatcher calls it, and whether it has a lane.

const dispatcher = require('./dispatcher');
const { LANE_VERSION } = require('./lane_version');
const { channelOf } = require('../ipc');
const { AS_ANSWER, QUIETLY } = require('../ipc/internal_message');
const { adoptDescriptor } = require('../ipc/native_handle');
const { validateBoolean, validateInteger } = require('../validators');

const DEFAULT_WEIGHT = 1;
const MAX_WEIGHT = 65535;

let sequence = 0;

class Link {
  id = dispatcher.newWorkerId();
  hasLane = false;
  /** The process has ended, and its Worker's 'exit' is still to come. */
  isExiting = false;
  weight = DEFAULT_WEIGHT;
  draining = false;
  #isIntroduced = false;
  #wasOfferedLane = false;
  #hasEnded = false;

  /**
   * `isForeign`: the worker runs under another user than this process. `leave()` sends it away.
   */
  constructor(worker, isForeign, leave) {
    this.worker = worker;
    this.isForeign = isForeign;
    this.leave = leave;
  }

  /** The native channel's number, 0 when the worker is not connected. */
  get channelId() {
    return channelOf(this.worker.process)?.native.id ?? 0;
  }

  /** Whether it can be given connections at all. */
  get isAlive() {
    return !this.#hasEnded && this.channelId !== 0;
  }

  /** Sends one of the cluster's own messages. A worker that is gone is told of by its events. */
  send(fields) {
    this.#send(fields, undefined, QUIETLY);
  }

  /** Answers a request. A worker that asks on and on, and reads no answer, is cut off. */
  answer({ seq }, fields, handle) {
    this.#send({ ...fields, ack: seq }, handle, AS_ANSWER);
  }

  #send(fields, handle, options) {
    const { process } = this.worker;
    if (!process.connected) return;
    process._send({ cmd: 'NODE_CLUSTER', ...fields, seq: sequence++ }, handle, options);
  }

  /** The peer does not keep to the protocol. */
  cutOff(why) {
    channelOf(this.worker.process)?.cutOff(why);
  }

  setWeight(weight) {
    validateInteger(weight, 'worker.weight', 1, MAX_WEIGHT);
    this.weight = weight;
    this.#tellDispatcher();
  }

  setDraining(draining) {
    validateBoolean(draining, 'worker.draining');
    this.draining = draining;
    this.#tellDispatcher();
  }

  /** Tells the dispatcher what it must know before it gives the worker its first connection. */
  introduce() {
    if (!this.#isIntroduced) this.#tellDispatcher();
  }

  #tellDispatcher() {
    if (this.#hasEnded) return;
    this.#isIntroduced = true;
    dispatcher.setWorker(this.id, this.weight, this.draining);
  }

  /** The worker knows lanes: opens one and sends it the other end. Without one it is as stock. */
  offerLane(version) {
    const { process } = this.worker;
    // Once: a worker that does not read would have another descriptor queued each time.
    if (version !== LANE_VERSION || this.#wasOfferedLane || !process.connected) return;
    // Whoever has a listening socket can take it from everybody else.
    const fd = dispatcher.openLane(this.id, !this.isForeign);
    if (fd < 0) return;
    const end = adoptDescriptor(fd);
    if (end === null) return dispatcher.forget(this.id);
    this.hasLane = this.#wasOfferedLane = true;
    process._send({ cmd: 'NODE_BROOD', act: 'lane' }, end, QUIETLY);
    end.close();
  }

  /** The worker could not take its lane, or has lost it: from here on it is as stock. */
  dropLane() {
    this.hasLane = false;
    this.#isIntroduced = false;
    dispatcher.forget(this.id);
  }

  /** The process has ended: nothing the dispatcher holds for it is wanted any more. */
  end() {
    this.#hasEnded = true;
    dispatcher.bury(this.id);
  }
}

module.exports = { Link };
