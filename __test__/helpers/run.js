'use strict';
// Starts Node on a fixture or an example with stock child_process, the impartial witness, and
// collects what became of it.

const { spawn } = require('node:child_process');
const path = require('node:path');

const ROOT = path.resolve(__dirname, '..', '..');
const LIMIT_MS = 20000;

/** The path of a file in __test__/fixtures. */
function fixture(name) {
  return path.join(ROOT, '__test__', 'fixtures', name);
}

/**
 * Runs `node ...args` and resolves to { code, signal, stdout, stderr } when it has ended and closed
 * its outputs. `env` is added to this process's own; `onStart(child)` may talk to it meanwhile.
 * Past `limit` ms its whole process group is killed and the promise rejects with what it said.
 */
function runNode(
  args,
  { env, cwd = ROOT, limit = LIMIT_MS, node = process.execPath, onStart } = {},
) {
  const child = spawn(node, args, {
    cwd,
    detached: true,
    env: { ...process.env, ...env },
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => (output[name] += text));
  }
  onStart?.(child);
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => {
      killGroup(child.pid);
      const said = `${output.stdout}${output.stderr}`;
      reject(new Error(`node ${args.join(' ')} still runs after ${limit} ms. It said:\n${said}`));
    }, limit);
    child.once('error', reject);
    child.once('close', (code, signal) => {
      clearTimeout(timer);
      resolve({ code, signal, ...output });
    });
  });
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Ended meanwhile.
  }
}

/** Resolves with the match once `stream`'s text matches; rejects when it ends without. */
function waitForOutput(stream, pattern) {
  return new Promise((resolve, reject) => {
    let text = '';
    const look = (chunk) => {
      text += chunk;
      const match = pattern.exec(text);
      if (!match) return;
      stream.off('data', look);
      resolve(match);
    };
    stream.on('data', look);
    stream.once('end', () => reject(new Error(`ended without ${pattern}; it said:\n${text}`)));
  });
}

module.exports = { ROOT, fixture, runNode, waitForOutput };
