'use strict';
// The layout of lane and scoreboard, as the worker's environment and its request for a lane name it.
// Primary and worker may run different versions of brood.

const LANE_VERSION = 3;

module.exports = { LANE_VERSION };
