'use strict';

// What the rest of lib/ uses of inter-process communication.

const { channelOf, setupChannel } = require('./channel');
const { nativeHandleType } = require('./native_handle');

module.exports = { channelOf, setupChannel, nativeHandleType };
