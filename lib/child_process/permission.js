'use strict';
// Node's permission model as far as starting processes goes. Node does not enforce it on native
// code, so brood does: without the permission nothing starts, and with it the flags are handed on
// to children (see environment.js).

const { ERR_ACCESS_DENIED } = require('../errors');
const { permissionErrorNamesResource, pipesNeedNetPermission } = require('../node_version');

const RESTRICTED = 'Access to this API has been restricted';

const MODEL_FLAG = /^--(?:permission|permission-audit|experimental-permission)(?:=|$)/;
const AUDIT_FLAG = /^--permission-audit(?:=|$)/;
const GRANT_FLAG = /^--allow-[a-z]/;

// Absent unless Node was started with the permission model.
const { permission } = process;

// In audit mode a missing permission is reported, and the call goes on.
const isAudit =
  permission !== undefined &&
  [...process.execArgv, ...words(process.env.NODE_OPTIONS)].some((word) => AUDIT_FLAG.test(word));

function words(nodeOptions) {
  return nodeOptions ? nodeOptions.split(/\s+/) : [];
}

/** Throws ERR_ACCESS_DENIED when this process may not start `file`. */
function requireChildPermission(file) {
  // In audit mode the question is what Node reports on its diagnostics channel.
  if (permission === undefined || permission.has('child', file) || isAudit) return;
  if (!permissionErrorNamesResource) throw new ERR_ACCESS_DENIED(RESTRICTED, 'ChildProcess', '');
  const advice = 'Use --allow-child-process to manage permissions.';
  throw new ERR_ACCESS_DENIED(`${RESTRICTED}. ${advice}`, 'ChildProcess', file);
}

/** Whether this process may have streams to its children. */
function mayHaveStreams() {
  if (permission === undefined || !pipesNeedNetPermission || isAudit) return true;
  return permission.has('net');
}

/** Throws what Node would, which it would do too late: when the child is running. */
function requireStreamPermission() {
  if (mayHaveStreams()) return;
  const advice = 'Use --allow-net to manage permissions.';
  throw new ERR_ACCESS_DENIED(`${RESTRICTED}. ${advice}`, 'Net');
}

/** The permission flags this process was started with, each in the form NODE_OPTIONS takes. */
function ownFlags() {
  const flags = [];
  process.execArgv.forEach((arg, i, all) => {
    if (!MODEL_FLAG.test(arg) && !GRANT_FLAG.test(arg)) return;
    // A path may be given as a word of its own.
    const next = all[i + 1];
    const isSplit = /^--allow-fs-(?:read|write)$/.test(arg) && next !== undefined;
    flags.push(quoteForNodeOptions(isSplit ? `${arg}=${next}` : arg));
  });
  return flags;
}

function quoteForNodeOptions(word) {
  return /[\s"\\]/.test(word) ? `"${word.replace(/["\\]/g, '\\$&')}"` : word;
}

/**
 * The value NODE_OPTIONS needs in a child with arguments `args` for the flags of this process to
 * hold there too.
 */
function withPermissionFlags(nodeOptions, args) {
  const isGiven = (word) => MODEL_FLAG.test(word);
  if (args.some(isGiven) || words(nodeOptions).some(isGiven)) return nodeOptions;
  return [...(nodeOptions ? [nodeOptions] : []), ...ownFlags()].join(' ');
}

module.exports = {
  hasPermissionModel: permission !== undefined,
  mayHaveStreams,
  requireChildPermission,
  requireStreamPermission,
  withPermissionFlags,
};
