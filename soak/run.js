'use strict';
// `npm run soak`: kills workers at random under load and checks that nothing is lost that need not
// be. `--seconds 600`, `--workers 4`, `--stock` (workers without brood), `--thread` (the primary in
// a worker thread), `--policy rr`. Exits with 1 when a promise is broken.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { parseArgs } = require('node:util');
const { Worker } = require('node:worker_threads');

// How long after the primary a client may learn of a worker's death.
const MARGIN_MS = 250;

// The first half of a run warms the heap up; in the second it must not grow by more. Short runs do
// not tell.
const MEMORY_MAY_GROW = 1.1;
const SECONDS_THAT_TELL = 60;

/** Runs one soak; resolves with its figures and a list of broken promises. */
async function run({ seconds = 10, workers = 4, isBrood = true, inThread = false, policy = 'rr' }) {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-soak-'));
  const log = path.join(folder, 'served');
  fs.writeFileSync(log, '');
  try {
    const given = { seconds, workers, isBrood, policy, log };
    const result = inThread ? await inWorkerThread(given) : await require('./primary').soak(given);
    return judge(result, fs.readFileSync(log, 'utf8').split('\n').slice(0, -1), seconds);
  } finally {
    fs.rmSync(folder, { recursive: true });
  }
}

function inWorkerThread(workerData) {
  const worker = new Worker(path.join(__dirname, 'primary.js'), { workerData });
  return new Promise((resolve, reject) => worker.once('message', resolve).once('error', reject));
}

function judge({ served, refused, failures, kills, before, halfway, after }, log, seconds) {
  const unexplained = failures.filter(
    ({ start, end }) => !kills.some(({ at, seen }) => end >= at && start <= seen + MARGIN_MS),
  );
  const twice = log.length - new Set(log).size;
  const broken = [];
  if (refused > 0) broken.push(`${refused} connections were refused`);
  if (twice > 0) broken.push(`${twice} requests were served twice`);
  if (unexplained.length > 0) {
    const which = JSON.stringify(unexplained[0]);
    broken.push(
      `${unexplained.length} requests failed although nobody was killed meanwhile: ${which}, …`,
    );
  }
  if (after.descriptors !== before.descriptors) {
    broken.push(`${before.descriptors} descriptors before, ${after.descriptors} after`);
  }
  if (seconds >= SECONDS_THAT_TELL && after.bytes > halfway.bytes * MEMORY_MAY_GROW) {
    broken.push(`${halfway.bytes} bytes of memory halfway, ${after.bytes} at the end`);
  }
  return {
    served,
    refused,
    twice,
    failed: failures.length,
    kills: kills.length,
    before,
    halfway,
    after,
    broken,
  };
}

async function main() {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '10' },
      workers: { type: 'string', default: '4' },
      stock: { type: 'boolean', default: false },
      thread: { type: 'boolean', default: false },
      policy: { type: 'string', default: 'rr' },
    },
  });
  const result = await run({
    seconds: Number(values.seconds),
    workers: Number(values.workers),
    isBrood: !values.stock,
    inThread: values.thread,
    policy: values.policy,
  });
  console.log(result);
  process.exitCode = result.broken.length > 0 ? 1 : 0;
}

module.exports = { run };

if (require.main === module) main();
