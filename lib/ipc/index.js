'use strict';

// What the rest of lib/ uses of inter-process communication.

const { channelOf, checkMessage, setupChannel } = require('./channel');
const { nativeHandleType } = require('./native_handle');

module.exports = { channelOf, checkMessage, setupChannel, nativeHandleType };
