'use strict';

// The worker thread that stands in for a child: `count` or `flood`, and how many messages.

const { parentPort, workerData } = require('node:worker_threads');
const SMALL = require('./small');

const { task, count } = workerData;
let left = count;

parentPort.on('message', () => {
  if (task === 'flood') {
    for (let i = 0; i < count; i++) parentPort.postMessage(SMALL);
  } else if (--left === 0) {
    parentPort.postMessage('done');
  }
});
parentPort.postMessage('ready');
