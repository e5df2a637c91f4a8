'use strict';
// Where the compiled addon is, and whether it can be loaded here at all: asked when brood is
// required, while the loading itself waits for the first use.

const { existsSync } = require('node:fs');
const { join } = require('node:path');

const root = join(__dirname, '..');
const addon = join(root, 'brood.node');

/** An error about the addon: one sentence that says what to do. */
function addonError(code, message, cause) {
  const error = new Error(message, cause && { cause });
  error.code = code;
  return error;
}

/** The name of a runtime that has libuv's symbols but aborts when they are called, or null. */
function foreignRuntime({ versions }) {
  if (versions.bun) return 'Bun';
  return versions.deno ? 'Deno' : null;
}

/** Throws unless this is Node on Linux and the addon is built. */
function assertUsable() {
  const runtime = foreignRuntime(process);
  if (runtime !== null) {
    throw addonError(
      'ERR_BROOD_UNSUPPORTED',
      `brood is an addon for Node.js and does not run under ${runtime}: use node:child_process there.`,
    );
  }
  if (process.platform !== 'linux') {
    throw addonError(
      'ERR_BROOD_UNSUPPORTED',
      `brood runs on Linux only and this is ${process.platform}: use node:child_process there.`,
    );
  }
  if (!existsSync(addon)) {
    throw addonError(
      'ERR_BROOD_NOT_BUILT',
      `brood's addon is not built: install Rust and run "npm run build" in ${root}.`,
    );
  }
}

module.exports = { addon, addonError, assertUsable, root };
