'use strict';

// Keeps `server.getConnections()` and `server.close()` true when a server's sockets live in other
// processes: the sender asks with NODE_SOCKET_* messages, the receiver counts and answers.

const EventEmitter = require('node:events');
const { AS_ANSWER } = require('./internal_message');
const { ERR_CHILD_CLOSED_BEFORE_REPLY } = require('../errors');

// The sender's side: one for each server and child. net.Server calls getConnections() and close(),
// and drops it on 'exit'.
class SentSockets extends EventEmitter {
  constructor(target, key) {
    super();
    this.key = key;
    this.child = target;
    target.once('exit', () => this.emit('exit', this));
  }

  close(callback) {
    this.#ask('NODE_SOCKET_NOTIFY_CLOSE', 'NODE_SOCKET_ALL_CLOSED', true, callback);
  }

  getConnections(callback) {
    this.#ask('NODE_SOCKET_GET_COUNT', 'NODE_SOCKET_COUNT', false, (error, reply) => {
      if (error) callback(error);
      else callback(null, reply.count);
    });
  }

  #ask(question, answer, swallowErrors, callback) {
    const { child, key } = this;
    const finish = (error, reply) => {
      child.removeListener('disconnect', onDisconnect);
      child.removeListener('internalMessage', onReply);
      callback(error, reply);
    };
    const onDisconnect = () => finish(new ERR_CHILD_CLOSED_BEFORE_REPLY());
    const onReply = (reply) => {
      if (reply.cmd === answer && reply.key === key) finish(null, reply);
    };
    if (!child.connected) {
      onDisconnect();
      return;
    }
    child._send({ cmd: question, key }, undefined, { swallowErrors });
    child.once('disconnect', onDisconnect);
    child.on('internalMessage', onReply);
  }
}

// The receiver's side: how many of one server's sockets are open here.
class ReceivedSockets extends EventEmitter {
  constructor(target, key) {
    super();
    this.connections = 0;
    this.key = key;
    this.child = target;
    target.on('internalMessage', (message) => {
      if (message.key === key) this.#answer(message.cmd);
    });
  }

  add({ socket }) {
    this.connections++;
    socket.once('close', () => {
      if (--this.connections === 0) this.emit('empty', this);
    });
  }

  #answer(question) {
    if (question === 'NODE_SOCKET_NOTIFY_CLOSE') {
      if (this.connections === 0) this.#tell({ cmd: 'NODE_SOCKET_ALL_CLOSED', key: this.key });
      else this.once('empty', () => this.#tell({ cmd: 'NODE_SOCKET_ALL_CLOSED', key: this.key }));
    } else if (question === 'NODE_SOCKET_GET_COUNT') {
      this.#tell({ cmd: 'NODE_SOCKET_COUNT', key: this.key, count: this.connections });
    }
  }

  #tell(message) {
    if (this.child.connected) this.child._send(message, undefined, AS_ANSWER);
  }
}

// The list for `key` among a channel's `sockets`, made on first use.
function socketList(sockets, direction, target, key) {
  const lists = sockets[direction];
  lists[key] ??= new (direction === 'send' ? SentSockets : ReceivedSockets)(target, key);
  return lists[key];
}

module.exports = { socketList };
