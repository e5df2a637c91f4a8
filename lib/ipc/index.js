'use strict';

// What the rest of lib/ uses of inter-process communication.

const { channelOf, checkMessage, setupChannel } = require('./channel');
const { nativeHandleType } = require('./native_handle');
const { makeOffer, withOffer } = require('./upgrade');

module.exports = {
  channelOf,
  checkMessage,
  makeOffer,
  nativeHandleType,
  setupChannel,
  withOffer,
};
