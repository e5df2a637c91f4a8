'use strict';

// Measures a row: in each run every contestant once, each in a process of its own, and every run
// begins with another one, so that a machine that warms up or slows down favours nobody.

const { spawn } = require('node:child_process');
const path = require('node:path');

const LIMIT_MS = 300_000;
// Variables that would put brood under the stock contestant, or take it away from brood's.
const UNWANTED = ['NODE_OPTIONS', 'NODE_DEBUG', 'BROOD_DISABLE', 'NODE_UNIQUE_ID'];

const running = new Set();

/**
 * Resolves with `{ runs, errors }`: of each run the figures by contestant, and the error of each
 * contestant that failed, which is not asked again.
 */
async function measure(row, { runs, node, quick, progress }) {
  const names = Object.keys(row.contestants);
  const measured = [];
  const errors = {};
  for (let i = 0; i < runs; i++) {
    const figures = {};
    const first = i % names.length;
    for (const name of [...names.slice(first), ...names.slice(0, first)]) {
      progress.begin(`${row.id}, run ${i + 1} of ${runs}, ${name}`);
      if (errors[name]) continue;
      try {
        figures[name] = await measureOnce(row, name, node, quick);
      } catch (error) {
        errors[name] = error.message;
      }
    }
    measured.push(figures);
  }
  return { runs: measured, errors };
}

async function measureOnce(row, name, node, quick) {
  const args = [path.join(__dirname, 'one.js'), row.id, name];
  const env = { ...process.env, BENCH_QUICK: quick ? '1' : '' };
  for (const variable of UNWANTED) delete env[variable];
  const { code, signal, stdout, stderr, late } = await collect(node, args, env);
  if (late) throw new Error(`no result within ${LIMIT_MS / 1000} s${said(stderr)}`);
  if (code !== 0) throw new Error(`ended with ${signal ?? code}${said(stderr)}`);
  if (stdout === '') throw new Error(`ended without a result${said(stderr)}`);
  return JSON.parse(stdout);
}

/** In a process group of its own: whatever a measurement leaves behind ends with it. */
function collect(node, args, env) {
  const child = spawn(node, args, { env, detached: true, stdio: ['ignore', 'pipe', 'pipe'] });
  const output = { stdout: '', stderr: '', late: false };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8').on('data', (text) => (output[name] += text));
  }
  return new Promise((resolve, reject) => {
    child.once('error', reject);
    if (child.pid === undefined) return;
    running.add(child.pid);
    const timer = setTimeout(() => {
      output.late = true;
      killGroup(child.pid);
    }, LIMIT_MS);
    child.once('exit', () => {
      clearTimeout(timer);
      killGroup(child.pid);
      running.delete(child.pid);
    });
    child.once('close', (code, signal) => resolve({ ...output, code, signal }));
  });
}

function killGroup(pid) {
  try {
    process.kill(-pid, 'SIGKILL');
  } catch {
    // Nothing of it is left.
  }
}

/** Ends what is being measured; for a run that is interrupted. */
function stop() {
  for (const pid of running) killGroup(pid);
}

/** The line of a process's complaint that says what went wrong. */
function said(stderr) {
  const lines = stderr.split('\n').filter((line) => line.trim() !== '');
  const line =
    lines.find((text) => /^\s*(\w*Error|thread .* panicked)\b/.test(text)) ?? lines.at(-1);
  return line ? `: ${line.trim().slice(0, 200)}` : '';
}

module.exports = { measure, stop };
