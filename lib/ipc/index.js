'use strict';

// What the rest of lib/ uses of inter-process communication.

const { setupChannel } = require('./channel');
const { nativeHandleType } = require('./native_handle');
const { makeOffer, withOffer } = require('./upgrade');

module.exports = { makeOffer, nativeHandleType, setupChannel, withOffer };
