'use strict';
// After all tests: counts again, prints both counts, and fails the run when they differ. What was
// left running is killed then, for it may hold the outputs that somebody waits to see closed.

const { settle, takeStock } = require('./leaks');

module.exports = async () => {
  const before = globalThis[Symbol.for('brood.test.before')];
  const differs = await settle(before);
  const after = takeStock();
  console.log(
    `descriptors: ${before.descriptors.size} before all tests, ${after.descriptors.size} after; ` +
      `processes: ${before.processes.size} before, ${after.processes.size} after`,
  );
  if (differs.length === 0) return;
  for (const pid of after.processes.keys()) kill(pid);
  throw new Error(`the tests leaked\n  ${differs.join('\n  ')}`);
};

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // Ended meanwhile.
  }
}
