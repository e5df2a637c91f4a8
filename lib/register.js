'use strict';

// Puts brood in the place of Node's built-in modules, for the whole process: the exports of
// node:child_process and node:cluster are changed in place, so that require, import and what Node's
// own modules hold see the same functions. In a child the IPC channel is taken over as well, and a
// cluster worker joins a primary of brood's.

const Module = require('node:module');
const { assertUsable } = require('./addon');
const { joinCluster } = require('./cluster/join');
const { debug } = require('./debug');
const { takeOffer } = require('./ipc/upgrade');

let installed = false;

// brood's functions for Node's names; throws when the addon cannot be had.
function replacements(stock) {
  assertUsable();
  const brood = require('./child_process');
  const names = Object.keys(stock).filter((name) => Object.hasOwn(brood, name));
  return names.map((name) => [name, brood[name]]);
}

function install() {
  takeOffer();
  if (process.env.BROOD_DISABLE === '1') return stayStock('BROOD_DISABLE=1 is set');
  if (lacksStreams()) return stayStock('without --allow-net it has no streams to children');
  const stock = require('node:child_process');
  let functions;
  try {
    functions = replacements(stock);
  } catch (error) {
    return stayStock(error.message);
  }
  for (const [name, value] of functions) stock[name] = value;
  require('./child_process/exec').setFacade(stock);
  installCluster();
  Module.syncBuiltinESMExports();
  if (process.connected) require('./ipc/takeover').takeOverChannel();
  joinCluster();
  installed = true;
  debug('installed');
  return true;
}

/** The permission model's code is loaded only where there is one. */
function lacksStreams() {
  if (process.permission === undefined) return false;
  return !require('./child_process/permission').mayHaveStreams();
}

function installCluster() {
  if (require('./cluster').install()) return;
  debug("Node's own cluster stays in place: it has workers");
}

function stayStock(why) {
  debug("Node's own child_process stays in place: %s", why);
  return false;
}

function isInstalled() {
  return installed;
}

module.exports = { install, isInstalled };
