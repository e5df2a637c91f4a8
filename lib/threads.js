'use strict';
// Whether the main thread has started worker threads; loaded with brood itself, for those that were
// started before are not told of any more.

let hasStarted = false;
process.once('worker', () => (hasStarted = true));

module.exports = { hasStartedThreads: () => hasStarted };
