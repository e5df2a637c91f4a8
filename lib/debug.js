'use strict';

// One line under NODE_DEBUG=brood for each decision a user may wonder about.

const { debuglog } = require('node:util');

module.exports = { debug: debuglog('brood') };
