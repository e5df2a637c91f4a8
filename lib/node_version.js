'use strict';
// Every place where the versions of Node that brood supports (20 to 26) behave differently has its
// switch here, so that the rest of the code asks for a behaviour and never for a number.

const path = require('node:path');

const [major, minor] = process.versions.node.split('.').map(Number);

let strictConstructorNames;

function describesNamelessAsObject() {
  try {
    return path.join({ constructor: { name: '' } }) === undefined;
  } catch (error) {
    return error.message.endsWith('[Object]');
  }
}

module.exports = {
  // Node 26 checks numeric options with its general validators; older ones have messages of their
  // own.
  generalNumericValidators: major >= 26,

  // Node 26, and 24 from some release on, describes a received object by its constructor's name only
  // when that name is a non-empty string. Asked for when such a message is made.
  get strictConstructorNames() {
    return (strictConstructorNames ??= describesNamelessAsObject());
  },

  // Node 24 warns (DEP0190) when arguments are given together with a shell.
  warnsOnShellArguments: major >= 24,

  // A spawn timeout ends with the process until Node 26, which keeps it until the streams are
  // closed too.
  timeoutEndsOn: major >= 26 ? 'close' : 'exit',

  // Node 20 calls the permission model experimental: a shorter message, and no resource in the
  // error.
  permissionErrorNamesResource: major >= 22,

  // Node 26 asks for the net permission before it makes a stream of a pipe that is open already.
  pipesNeedNetPermission: major >= 26,

  // What spawnSync reports as stdout and stderr of a program that never ran.
  noOutput: major >= 22 ? undefined : null,

  // Until Node 22 the object behind `subprocess.channel` emits 'unref' when its last counted
  // reference goes.
  emitsChannelUnref: major < 24,

  // Until Node 24 `_channel` stands for `channel`, with a deprecation warning (DEP0129).
  hasDeprecatedChannel: major < 26,

  // A server's maxConnections of 0 means no limit until Node 22, where it refuses all.
  zeroMaxConnectionsRefuses: major >= 22,

  // Node 22.12 and 23.1 have a server drop connections above its maxConnections on demand.
  hasDropMaxConnection:
    major >= 24 || (major === 23 && minor >= 1) || (major === 22 && minor >= 12),
};
