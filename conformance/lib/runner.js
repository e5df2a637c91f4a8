'use strict';
// Runs one test file in a process group of its own, with its own temporary folder and a time limit,
// and leaves nothing of it behind. What the outcome means is the caller's business.

const { spawn } = require('node:child_process');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { modeCommand } = require('./modes');

const MARK = 'BROOD_CONFORMANCE_RUN';
const KEPT_OUTPUT = 16 * 1024;
const OUTPUT_GRACE_MS = 1000;

let serial = 0;

/**
 * Resolves to { outcome: 'pass' | 'skip' | 'fail', detail, output, ms }. `detail` says why a test
 * skipped itself, or how a failing one ended.
 */
async function runTest(test, { node, nodeSrc, mode, preload, timeoutMs, sameMajor }) {
  const mark = `${process.pid}-${++serial}`;
  const temporary = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-c-'));
  const started = process.hrtime.bigint();
  const { args, env } = modeCommand(mode, preload);
  const child = spawn(node, [...args, ...test.flags, test.file], {
    cwd: nodeSrc,
    detached: true,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      ...cleanEnvironment(),
      // What tools/test.py of the tree sets for a test.
      NODE_TEST_DIR: temporary,
      TEST_SERIAL_ID: '0',
      TEST_THREAD_ID: '0',
      TEST_PARALLEL: test.folder === 'parallel' ? '1' : '0',
      // A newer binary has globals that the tree does not know and would call leaked.
      ...(sameMajor ? {} : { NODE_TEST_KNOWN_GLOBALS: '0' }),
      [MARK]: mark,
      ...env,
    },
  });
  const output = collect(child);
  let timedOut = false;
  const timer = setTimeout(() => {
    timedOut = true;
    killLeftovers(child.pid, mark);
  }, timeoutMs);

  const ended = await new Promise((resolve) => {
    child.once('error', (error) => resolve({ error }));
    child.once('exit', (code, signal) => resolve({ code, signal }));
  });
  clearTimeout(timer);
  killLeftovers(child.pid, mark);
  await closed(child);
  fs.rmSync(temporary, { recursive: true, force: true, maxRetries: 3 });
  return {
    ...judge(ended, timedOut, timeoutMs, output.stdout()),
    output: output.all(),
    ms: Number((process.hrtime.bigint() - started) / 1000000n),
  };
}

function judge({ error, code, signal }, timedOut, timeoutMs, stdout) {
  if (error) return { outcome: 'fail', detail: error.message };
  if (timedOut) return { outcome: 'fail', detail: `still running after ${timeoutMs / 1000} s` };
  if (signal) return { outcome: 'fail', detail: `killed by ${signal}` };
  if (code !== 0) return { outcome: 'fail', detail: `exit code ${code}` };
  const skipped = /^1\.\.0 # Skipped: (.*)$/m.exec(stdout);
  return skipped ? { outcome: 'skip', detail: skipped[1] } : { outcome: 'pass', detail: '' };
}

function cleanEnvironment() {
  const env = { ...process.env };
  for (const name of Object.keys(env)) {
    if (/^(NODE_|BROOD_|npm_|INIT_CWD$|FORCE_COLOR$|NO_COLOR$)/.test(name)) delete env[name];
  }
  return env;
}

function collect(child) {
  const text = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr']) {
    child[name].setEncoding('utf8');
    child[name].on('data', (chunk) => {
      text[name] = (text[name] + chunk).slice(-KEPT_OUTPUT);
    });
  }
  return { stdout: () => text.stdout, all: () => text.stdout + text.stderr };
}

/** Waits for both outputs to end, but not for ever: a stray process may hold them. */
function closed(child) {
  return new Promise((resolve) => {
    const timer = setTimeout(() => {
      child.stdout.destroy();
      child.stderr.destroy();
      resolve();
    }, OUTPUT_GRACE_MS);
    const done = () => {
      clearTimeout(timer);
      resolve();
    };
    if (child.stdout.closed && child.stderr.closed) done();
    else child.once('close', done);
  });
}

/** Kills the test's process group, and what left it but still carries its mark. */
function killLeftovers(pid, mark) {
  if (pid === undefined) return;
  kill(-pid);
  const wanted = `\0${MARK}=${mark}\0`;
  for (const entry of fs.readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue;
    if (`\0${readEnvironment(entry)}`.includes(wanted)) kill(Number(entry));
  }
}

function readEnvironment(pid) {
  try {
    return fs.readFileSync(`/proc/${pid}/environ`, 'latin1');
  } catch {
    return ''; // ended meanwhile, or not ours to read
  }
}

function kill(pid) {
  try {
    process.kill(pid, 'SIGKILL');
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}

module.exports = { runTest, judge };
