'use strict';
// Loads the compiled addon: brood.node beside package.json, and nowhere else. Whatever is wrong ends
// in one error with one sentence that says what to do.

const { addon, addonError, assertUsable, root } = require('./addon');
const { version } = require('../package.json');

function refuseOtherVersion(binding) {
  const found = binding.version;
  if (found === version) return;
  throw addonError(
    'ERR_BROOD_VERSION',
    `brood is version ${version} but its addon is ${found}: run "npm run build" in ${root}.`,
  );
}

function open() {
  try {
    return require(addon);
  } catch (cause) {
    const advice =
      cause.code === 'ERR_DLOPEN_DISABLED'
        ? 'run Node with --allow-addons.'
        : `run "npm run build" in ${root}.`;
    throw addonError(
      'ERR_BROOD_LOAD',
      `brood's addon cannot be loaded (${cause.message}): ${advice}`,
      cause,
    );
  }
}

function load() {
  assertUsable();
  const binding = open();
  refuseOtherVersion(binding);
  return binding;
}

module.exports = load();
