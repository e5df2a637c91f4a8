'use strict';
// Asked whenever brood is loaded: whether this process is a worker of a primary that offers a lane.
// Everything else is loaded only then.

const { debug } = require('../debug');

function joinCluster() {
  if (process.env.BROOD_CLUSTER === undefined) return;
  try {
    require('./worker').join();
  } catch (error) {
    delete process.env.BROOD_CLUSTER;
    debug('the worker has no lane: %s', error.message);
  }
}

module.exports = { joinCluster };
