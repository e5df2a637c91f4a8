'use strict';
// Which object is `cluster`: in a worker Node's own; in a primary brood's, unless register has made
// Node's own object brood's.

const EventEmitter = require('node:events');
const stock = require('node:cluster');
const { setUpPrimary } = require('./face');

let own;
let isInstalled = false;

function currentCluster() {
  if (stock.isWorker || isInstalled) return stock;
  own ??= setUpPrimary(new EventEmitter());
  return own;
}

/** Makes Node's object the cluster of a primary; returns false when it has workers of its own. */
function install() {
  if (stock.isWorker || isInstalled) return true;
  if (Object.keys(stock.workers).length > 0) return false;
  setUpPrimary(stock);
  isInstalled = true;
  return true;
}

module.exports = { currentCluster, install };
