'use strict';

// Runs the load client and the dispatcher in Rust (bench/load, bench/limits), processes of their
// own.

const { once } = require('node:events');
const { run, start } = require('../programs');

const CONCURRENT = 32;
// Code in JavaScript takes that long to be compiled as it stays; SCHED_NONE has none of its own.
const WARM_UP_SECONDS = 2;
const SECONDS = 3;

/**
 * Warms up and then loads the HTTP server at `port`, in a way that the client knows; resolves with
 * `{ requests, errors, seconds }`, the errors of the warm-up included. `begin()` is called between
 * the two.
 */
async function load(port, options) {
  const result = await knock(port, options);
  if (result.requests === 0) throw new Error(`no request was answered, ${result.errors} failed`);
  return result;
}

/** The same, whether anything is answered or not. */
async function knock(port, { kind = 'new-connections', quick, begin }) {
  const warmUp = await run('load', [port, WARM_UP_SECONDS, CONCURRENT, kind]);
  await begin?.();
  const result = await run('load', [port, quick ? 1 : SECONDS, CONCURRENT, kind]);
  return { ...result, errors: warmUp.errors + result.errors };
}

/** The dispatcher without JavaScript: `{ port, report(), stop() }`. */
async function startDispatcher(args) {
  const program = start('dispatch', args);
  const lines = require('node:readline').createInterface({ input: program.stdout });
  const answer = async () => {
    const [line] = await Promise.race([
      once(lines, 'line'),
      once(program, 'exit').then(([code]) => {
        throw new Error(`dispatch ended with ${code}`);
      }),
    ]);
    return JSON.parse(line);
  };
  const { port } = await answer();
  return {
    port,
    /** Resolves with `{ accepted, cpu }` since its start; cpu in microseconds. */
    report() {
      program.stdin.write('\n');
      return answer();
    },
    async stop() {
      program.stdin.end();
      await once(program, 'exit');
    },
  };
}

/** A measurement with the dispatcher in the place of the primary. */
function dispatched(mode, script) {
  return async ({ quick }) => {
    const dispatcher = await startDispatcher([mode, process.execPath, script]);
    let before;
    const options = { quick, begin: async () => (before = await dispatcher.report()) };
    const { requests, errors, seconds } = await load(dispatcher.port, options);
    const after = await dispatcher.report();
    await dispatcher.stop();
    return {
      rate: requests / seconds,
      lost: errors,
      cpu: (after.cpu - before.cpu) / (after.accepted - before.accepted),
    };
  };
}

module.exports = { dispatched, knock, load };
