'use strict';
// Every place where the versions of Node that brood supports (20 to 26) behave differently has its
// switch here, so that the rest of the code asks for a behaviour and never for a number.

const major = Number.parseInt(process.versions.node, 10);

module.exports = {
  // Node 26 checks numeric options with its general validators; older ones have messages of their
  // own.
  generalNumericValidators: major >= 26,

  // Node 26 describes a received object by its constructor's name only when that name is a
  // non-empty string.
  strictConstructorNames: major >= 26,

  // Node 24 reworded the message about arrays that are too short.
  arrayLengthWording: major >= 24 ? 'must have a length of at least' : 'must be longer than',

  // Node 24 warns (DEP0190) when arguments are given together with a shell.
  warnsOnShellArguments: major >= 24,

  // A spawn timeout ends with the process until Node 26, which keeps it until the streams are
  // closed too.
  timeoutEndsOn: major >= 26 ? 'close' : 'exit',

  // Node 20 calls the permission model experimental: a shorter message, and no resource in the
  // error.
  permissionErrorNamesResource: major >= 22,

  // What spawnSync reports as stdout and stderr of a program that never ran.
  noOutput: major >= 22 ? undefined : null,

  // Until Node 22 the object behind `subprocess.channel` emits 'unref' when its last counted
  // reference goes.
  emitsChannelUnref: major < 24,

  // Until Node 24 `_channel` stands for `channel`, with a deprecation warning (DEP0129).
  hasDeprecatedChannel: major < 26,

  // A server's maxConnections of 0 means no limit until Node 22, where it refuses all.
  zeroMaxConnectionsRefuses: major >= 22,
};
