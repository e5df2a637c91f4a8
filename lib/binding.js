'use strict';
// Finds and loads the compiled addon: brood.node beside package.json, and nowhere else. Whatever is
// wrong ends in one error with one sentence that says what to do.

const { existsSync, readFileSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const addon = join(root, 'brood.node');

function loadError(code, message, cause) {
  const error = new Error(message, cause && { cause });
  error.code = code;
  return error;
}

/**
 * Bun and Deno resolve libuv's symbols and abort when they are called, so this comes before the
 * addon is touched.
 */
function refuseOtherRuntimes({ versions, platform }) {
  const runtime = versions.bun ? 'Bun' : versions.deno ? 'Deno' : null;
  if (runtime) {
    throw loadError(
      'ERR_BROOD_UNSUPPORTED',
      `brood is an addon for Node.js and does not run under ${runtime}: use node:child_process there.`,
    );
  }
  if (platform !== 'linux') {
    throw loadError(
      'ERR_BROOD_UNSUPPORTED',
      `brood runs on Linux only and this is ${platform}: use node:child_process there.`,
    );
  }
}

function refuseOtherVersion(binding) {
  const { version } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'));
  const found = binding.version;
  if (found === version) return;
  throw loadError(
    'ERR_BROOD_VERSION',
    `brood is version ${version} but its addon is ${found}: run "npm run build" in ${root}.`,
  );
}

function open() {
  if (!existsSync(addon)) {
    throw loadError(
      'ERR_BROOD_NOT_BUILT',
      `brood's addon is not built: install Rust and run "npm run build" in ${root}.`,
    );
  }
  try {
    return require(addon);
  } catch (cause) {
    const advice =
      cause.code === 'ERR_DLOPEN_DISABLED'
        ? 'run Node with --allow-addons.'
        : `run "npm run build" in ${root}.`;
    throw loadError(
      'ERR_BROOD_LOAD',
      `brood's addon cannot be loaded (${cause.message}): ${advice}`,
      cause,
    );
  }
}

function load() {
  refuseOtherRuntimes(process);
  const binding = open();
  refuseOtherVersion(binding);
  return binding;
}

module.exports = load();
