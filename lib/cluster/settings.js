'use strict';
// cluster.settings: Node's defaults, what setupPrimary() is given, and checks of what brood adds.

const { validateFunction, validateNumber } = require('../validators');
const { policyTable } = require('./scheduling');

/** Checks the settings of the cluster's own; options of fork() are checked where a worker is forked. */
function validateOwn({ listen, listenerGrace, scheduling }) {
  if (listen !== undefined) validateFunction(listen, 'settings.listen');
  if (listenerGrace !== undefined) validateGrace(listenerGrace);
  policyTable(scheduling, 'settings.scheduling');
}

function validateGrace(grace) {
  validateNumber(grace, 'settings.listenerGrace', 0);
}

/** The settings that hold after setupPrimary(options). */
function mergeSettings(current, options) {
  const settings = {
    args: process.argv.slice(2),
    exec: process.argv[1],
    execArgv: process.execArgv,
    silent: false,
    ...current,
    ...options,
  };
  validateOwn(settings);
  settings.execArgv = withLogFile(settings.execArgv);
  return settings;
}

/** V8's profiles hold addresses, so those of several processes in one file would be useless. */
function withLogFile(execArgv) {
  const isProfiled = execArgv.some((flag) => flag.startsWith('--prof'));
  if (!isProfiled || execArgv.some((flag) => flag.startsWith('--logfile='))) return execArgv;
  return [...execArgv, '--logfile=v8-%p.log'];
}

module.exports = { mergeSettings };
