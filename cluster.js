'use strict';
// `brood/cluster`: the cluster module by itself.

module.exports = require('./index.js').cluster;
