'use strict';
// cluster, with what brood adds: workers that ask for one port, a scheduler chosen for it, a worker
// that is drained and replaced without losing a request, and a table of what the primary knows.
//   node examples/cluster.js

const { once } = require('node:events');
const http = require('node:http');
const cluster = require('../cluster.js');

const WORKERS = 2;
const REQUESTS = 40;

if (cluster.isPrimary) primary();
else http.createServer((request, response) => response.end(`${process.pid}`)).listen(0);

async function primary() {
  cluster.setupPrimary({
    // 0 is how the worker below asks for any free port.
    scheduling: { 0: 'least-connections' },
    // Nothing but such a port may be asked for.
    listen: ({ port }) => port === 0,
  });
  const workers = [];
  for (let i = 0; i < WORKERS; i++) workers.push(await startWorker());
  const [{ port, policy }] = cluster.listeningSockets();
  console.log(`${WORKERS} workers share a port, policy ${policy}`);

  console.log('answered by', count(await askMany(port)), 'workers');

  // A rolling replacement: the successor first, then the old one gets nothing new and leaves.
  const [old] = workers;
  await startWorker();
  old.draining = true;
  const left = once(old, 'exit');
  const answers = askMany(port);
  old.disconnect();
  await left;
  console.log('answered while one was replaced:', (await answers).length, 'of', REQUESTS);

  console.table(cluster.stats(), ['id', 'state', 'lane', 'accepted', 'waiting']);
  cluster.disconnect();
}

/** A worker that listens. */
async function startWorker() {
  const worker = cluster.fork();
  await once(worker, 'listening');
  return worker;
}

/** REQUESTS requests, each on a connection of its own; resolves with who answered them. */
function askMany(port) {
  return Promise.all(
    Array.from({ length: REQUESTS }, async () => {
      const [response] = await once(http.get({ port, agent: false }), 'response');
      return (await response.toArray()).join('');
    }),
  );
}

function count(pids) {
  return new Set(pids).size;
}
