'use strict';
// What stock Node makes of each test, remembered between runs for one binary and one tree: only a
// test that stock passes says anything about brood.

const { createHash } = require('node:crypto');
const { execFileSync } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const CACHE = path.resolve(__dirname, '..', '..', '.cache', 'conformance');

/** Remembers outcomes in one file for each binary and tree; an edited test is run anew. */
class Baseline {
  #file;
  #outcomes;

  constructor(node, nodeSrc, version) {
    const { size, mtimeMs } = fs.statSync(node);
    const common = path.join(nodeSrc, 'test', 'common', 'index.js');
    const identity = [version, node, size, mtimeMs, nodeSrc, digest(fs.readFileSync(common))];
    this.#file = path.join(CACHE, `stock-${version}-${digest(identity.join('\n'))}.json`);
    this.#outcomes = readJson(this.#file);
  }

  get(test) {
    const known = this.#outcomes[test.id];
    return known?.source === digest(test.source) ? known : undefined;
  }

  set(test, { outcome, detail }, attempts) {
    this.#outcomes[test.id] = { source: digest(test.source), outcome, detail, attempts };
  }

  save() {
    fs.mkdirSync(CACHE, { recursive: true });
    const draft = `${this.#file}.${process.pid}`;
    fs.writeFileSync(draft, JSON.stringify(this.#outcomes, null, 1));
    fs.renameSync(draft, this.#file);
  }
}

function readJson(file) {
  try {
    return JSON.parse(fs.readFileSync(file, 'utf8'));
  } catch {
    return {}; // not there yet, or unreadable: measured again
  }
}

function digest(data) {
  return createHash('sha256').update(data).digest('hex').slice(0, 16);
}

/** `20.19.2` of the binary at this path. */
function nodeVersion(node) {
  const print = 'process.stdout.write(process.versions.node)';
  return execFileSync(node, ['-e', print], { encoding: 'utf8', env: { PATH: process.env.PATH } });
}

module.exports = { Baseline, nodeVersion };
