'use strict';
// Builds the addon and puts it beside index.js as brood.node. Cargo decides whether there is
// anything to compile; the file appears by a rename, so nobody ever loads half of one.

const { spawnSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const ROOT = path.resolve(__dirname, '..');
const ADDON = path.join(ROOT, 'brood.node');

function main() {
  if (process.platform !== 'linux') {
    fail(`brood does not support ${process.platform} yet, only Linux: nothing was built.`);
  }
  checkCargo();
  install(compile());
}

function checkCargo() {
  const wanted = /^rust-version = "(.+)"$/m.exec(read('Cargo.toml'))[1];
  const rustc = spawnSync('rustc', ['--version'], { cwd: ROOT, encoding: 'utf8' });
  const cargo = spawnSync('cargo', ['--version'], { cwd: ROOT, encoding: 'utf8' });
  if (cargo.error || rustc.error) {
    fail(`brood is compiled on this machine and needs Rust ${wanted} or newer with cargo on PATH.`);
  }
  const found = /^rustc (\d+\.\d+)/.exec(rustc.stdout)?.[1] ?? 'unknown';
  if (isOlder(found, wanted)) {
    fail(`brood needs Rust ${wanted} or newer, and the rustc on PATH is ${found}.`);
  }
}

function isOlder(found, wanted) {
  const [major, minor] = found.split('.').map(Number);
  const [wantedMajor, wantedMinor] = wanted.split('.').map(Number);
  return major < wantedMajor || (major === wantedMajor && minor < wantedMinor);
}

/** Returns the path of the compiled library, as cargo reports it, wherever it is told to build. */
function compile() {
  const args = [
    'build',
    '--release',
    '--lib',
    '--locked',
    '--message-format=json-render-diagnostics',
  ];
  const cargo = spawnSync('cargo', args, {
    cwd: ROOT,
    stdio: ['ignore', 'pipe', 'inherit'],
    encoding: 'utf8',
    maxBuffer: Infinity,
  });
  if (cargo.status !== 0) {
    fail(
      'cargo could not build the addon: its own words are above. A C linker (cc) is needed too.',
    );
  }
  const artifacts = cargo.stdout
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line));
  const files = artifacts.flatMap(({ filenames = [] }) => filenames);
  return files.findLast((file) => path.basename(file) === 'libbrood.so');
}

/** Copies unless the same file is there already; processes that have the old one loaded keep it. */
function install(built) {
  if (fs.existsSync(ADDON) && fs.readFileSync(ADDON).equals(fs.readFileSync(built))) return;
  const draft = `${ADDON}.${process.pid}`;
  fs.copyFileSync(built, draft);
  fs.renameSync(draft, ADDON);
}

function read(name) {
  return fs.readFileSync(path.join(ROOT, name), 'utf8');
}

function fail(sentence) {
  console.error(sentence);
  process.exit(1);
}

main();
