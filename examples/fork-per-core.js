'use strict';
// Spreads one computation over all cores: forks a child for each, gives every child a share of the
// range by message, and adds up what they answer. Run it: node examples/fork-per-core.js

const { availableParallelism } = require('node:os');
const { fork } = require('..');

const LIMIT = 400_000;

// The same file is both programs. Only a forked process has process.send.
if (process.send) child();
else parent();

function parent() {
  const cores = availableParallelism();
  const share = Math.ceil(LIMIT / cores);
  let total = 0;
  let answered = 0;

  for (let core = 0; core < cores; core++) {
    const worker = fork(__filename);
    worker.send({ from: core * share, to: Math.min((core + 1) * share, LIMIT) });
    worker.on('message', ({ primes }) => {
      console.log(`child ${worker.pid} found ${primes} primes`);
      total += primes;
      answered++;
    });
  }

  // By now every child has answered, or died. An answer missing must not look like success.
  process.on('exit', () => {
    console.log(`${answered} of ${cores} children answered: ${total} primes below ${LIMIT}`);
    if (answered < cores) process.exitCode = 1;
  });
}

function child() {
  process.on('message', ({ from, to }) => {
    let primes = 0;
    for (let n = from; n < to; n++) if (isPrime(n)) primes++;
    process.send({ primes });
    // Without the channel nothing keeps this process running, and it ends by itself.
    process.disconnect();
  });
}

function isPrime(n) {
  for (let d = 2; d * d <= n; d++) if (n % d === 0) return false;
  return n > 1;
}
