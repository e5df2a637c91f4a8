'use strict';
// A worker's process: the environment, flags and options that the cluster's settings give it.

const { fork } = require('../child_process/fork');
const { ERR_SOCKET_BAD_PORT } = require('../errors');
const { validatePort } = require('../validators');
const { LANE_VERSION } = require('./lane_version');

const INSPECT_FLAG = /--inspect(?:-brk|-port)?|--debug-port/;
const FIRST_PORT = 1024;
const LAST_PORT = 65535;

let lastPortOffset = 0;

function isInspected(execArgv) {
  const { NODE_OPTIONS = '' } = process.env;
  return INSPECT_FLAG.test(NODE_OPTIONS) || execArgv.some((flag) => INSPECT_FLAG.test(flag));
}

/** Each worker's inspector listens one port further, unless the user gives a port. */
function inspectPort(given) {
  if (typeof given === 'function') return validatePort(given());
  if (given != null) return validatePort(given);
  const port = process.debugPort + ++lastPortOffset;
  return port > LAST_PORT ? port - LAST_PORT + FIRST_PORT - 1 : port;
}

function execArgvOf({ execArgv, inspectPort: given }) {
  if (given === null) throw new ERR_SOCKET_BAD_PORT('Port', null);
  const port = isInspected(execArgv) ? [`--inspect-port=${inspectPort(given)}`] : [];
  // A copy: fork() leaves the code of `node -e` out of process.execArgv itself, a cluster does not.
  return [...execArgv, ...port];
}

/** Starts the process of worker `id`; `env` stands on top of this process's environment. */
function forkWorker(id, settings, env) {
  return fork(settings.exec, settings.args, {
    cwd: settings.cwd,
    env: {
      ...process.env,
      ...env,
      NODE_UNIQUE_ID: `${id}`,
      BROOD_CLUSTER: `${LANE_VERSION}`,
    },
    serialization: settings.serialization,
    silent: settings.silent,
    windowsHide: settings.windowsHide,
    execArgv: execArgvOf(settings),
    stdio: settings.stdio,
    gid: settings.gid,
    uid: settings.uid,
    maxMessageSize: settings.maxMessageSize,
    // A worker that has no lane, or loses it, is served by a dispatcher that reads Node's protocol.
    upgrade: false,
    dieWithParent: settings.dieWithParent,
    limits: settings.limits,
  });
}

module.exports = { forkWorker };
