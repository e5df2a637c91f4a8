'use strict';

// The programs in Rust that a row needs beside Node: limits and the load client. Built once at the
// start of a run; the processes that measure find them through the environment.

const path = require('node:path');

// Not loaded before it is used: S16 measures what loading it costs.
const childProcess = () => require('node:child_process');

const ROOT = path.join(__dirname, '..');
const VARIABLE = 'BENCH_PROGRAMS';

/** Compiles all of them and says where they are in this process's environment. */
function build() {
  const args = ['build', '--release', '--locked', '--examples'];
  const cargo = childProcess().spawnSync(
    'cargo',
    [...args, '--message-format=json-render-diagnostics'],
    {
      cwd: ROOT,
      stdio: ['ignore', 'pipe', 'inherit'],
      encoding: 'utf8',
      maxBuffer: Infinity,
    },
  );
  if (cargo.error) throw new Error(`cargo is needed for these rows: ${cargo.error.message}`);
  if (cargo.status !== 0) throw new Error('cargo could not build the programs of the benchmark');
  const artifacts = cargo.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const built = artifacts.findLast(({ executable }) => executable);
  process.env[VARIABLE] = path.dirname(built.executable);
}

function pathOf(name) {
  return path.join(process.env[VARIABLE], name);
}

/** Starts one; its standard input and output are pipes. */
function start(name, args) {
  const stdio = ['pipe', 'pipe', 'inherit'];
  return childProcess().spawn(pathOf(name), args.map(String), { stdio });
}

/** Runs one to its end and resolves with the JSON it printed. */
async function run(name, args) {
  const program = start(name, args);
  program.stdin.end();
  let output = '';
  program.stdout.setEncoding('utf8').on('data', (text) => (output += text));
  const code = await new Promise((resolve, reject) => {
    program.once('error', reject);
    program.once('close', resolve);
  });
  if (code !== 0) throw new Error(`${name} ended with ${code}`);
  return JSON.parse(output);
}

module.exports = { build, run, start };
