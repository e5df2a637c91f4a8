'use strict';

// Puts brood in the place of Node's built-in module, for the whole process: the exports of
// node:child_process are changed in place, so that require, import and what Node's own modules
// hold see the same functions. In a child the IPC channel is taken over as well.

const Module = require('node:module');
const { debug } = require('./debug');

let installed = false;

// Why brood must not be installed here, or null.
function objection() {
  if (process.env.BROOD_DISABLE === '1') return 'BROOD_DISABLE=1 is set';
  if (process.versions.bun || process.versions.deno) return 'this runtime is not Node.js';
  return null;
}

function install() {
  const why = objection();
  if (why !== null) return stayStock(why);
  let brood;
  try {
    brood = require('./child_process');
  } catch (error) {
    return stayStock(error.message);
  }
  const stock = require('node:child_process');
  for (const name of Object.keys(stock)) {
    if (Object.hasOwn(brood, name)) stock[name] = brood[name];
  }
  Module.syncBuiltinESMExports();
  if (process.connected) require('./ipc/takeover').takeOverChannel();
  installed = true;
  debug('installed');
  return true;
}

function stayStock(why) {
  debug("Node's own child_process stays in place: %s", why);
  return false;
}

function isInstalled() {
  return installed;
}

module.exports = { install, isInstalled };
