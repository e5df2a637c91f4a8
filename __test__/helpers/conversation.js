'use strict';
// Children that answer each message: how they are asked and ended, and the ones with brood at both
// ends of their channel.

const { once } = require('node:events');
const { fork } = require('../..');
const { ROOT, fixture } = require('./run');

const REGISTER = ['-r', `${ROOT}/register.js`];

/** Sends a message; resolves with what comes next. */
async function ask(child, message) {
  const reply = once(child, 'message');
  child.send(message);
  return (await reply)[0];
}

/** Disconnects a child, and waits until it has ended. */
async function end(child) {
  child.disconnect();
  await once(child, 'close');
}

/** A child that sends everything back, or runs another fixture, once both ends speak brood's frames. */
async function upgraded(options, script = 'upgraded.js') {
  const child = fork(fixture(script), {
    execArgv: REGISTER,
    serialization: 'advanced',
    ...options,
  });
  await ask(child, 'first');
  return child;
}

module.exports = { REGISTER, ask, end, upgraded };
