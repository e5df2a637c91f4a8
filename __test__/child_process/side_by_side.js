'use strict';
// Runs one scenario on Node's child_process and on brood's and compares what they did.

const stock = require('node:child_process');
const brood = require('../..');

/** Fails unless `scenario(module)` comes to the same value with both modules. */
async function expectAlike(scenario) {
  const node = await scenario(stock);
  const ours = await scenario(brood);
  expect(ours).toEqual(node);
  return ours;
}

/** An error as far as both modules must agree on it. */
function describeError(error) {
  if (!error) return error;
  return { ...error, name: error.name, message: error.message, text: String(error) };
}

/** Resolves to the child's events in their order, once it has closed. */
function recordEvents(child, log = []) {
  for (const name of ['spawn', 'exit', 'error', 'disconnect']) {
    child.on(name, (...args) => log.push([name, ...args.map(plain)]));
  }
  return new Promise((resolve) => {
    child.on('close', (...args) => {
      log.push(['close', ...args]);
      resolve(log);
    });
  });
}

function plain(value) {
  return value instanceof Error || value?.stack ? describeError(value) : value;
}

/** Resolves to everything a readable stream says. */
async function textOf(stream) {
  let text = '';
  for await (const chunk of stream.setEncoding('utf8')) text += chunk;
  return text;
}

module.exports = { brood, describeError, expectAlike, recordEvents, stock, textOf };
