'use strict';
// What brood.diagnostics() says: one object for a bug report or a health page.

const fs = require('node:fs');
const os = require('node:os');
const { addon } = require('./addon');
const binding = require('./binding');
const { upgradedChannels } = require('./ipc/upgrade');
const { isInstalled } = require('./register');
const { version } = require('../package.json');

/**
 * Open descriptors of this process, without the one this count needs itself; null where it cannot be
 * had: the permission model forbids to look, or none is left.
 */
function openDescriptors() {
  try {
    return fs.readdirSync('/proc/self/fd').length - 1;
  } catch {
    return null;
  }
}

function diagnostics() {
  const [children, channels, processChannels, orphans] = binding.counts();
  return {
    version,
    binary: addon,
    node: process.versions.node,
    libuv: binding.libuvVersion(),
    kernel: os.release(),
    registered: isInstalled(),
    // Kernel features that were refused here and are done in a slower way.
    fallbacks: binding.missingFeatures(),
    counters: {
      descriptors: openDescriptors(),
      children,
      channels,
      processChannels,
      upgradedChannels: upgradedChannels(),
      // Ended or abandoned children that the next spawn reaps.
      orphans,
    },
  };
}

module.exports = { diagnostics };
