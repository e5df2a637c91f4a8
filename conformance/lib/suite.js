'use strict';
// Which of Node's tests there are: the files of a set, the flags each asks for, and the ones its
// status files say to skip here. Running them is runner.js's work.

const fs = require('node:fs');
const path = require('node:path');

const FOLDERS = ['parallel', 'sequential'];
const USES_EITHER_MODULE =
  /(?:require\(|from\s+|import\s+|import\()['"](?:node:)?(?:child_process|cluster)['"]/;

const SETS = {
  'child-process': (name) => name.startsWith('test-child-process-'),
  cluster: (name) => name.startsWith('test-cluster-'),
  others: (name, source) =>
    !SETS['child-process'](name) && !SETS.cluster(name) && USES_EITHER_MODULE.test(source()),
};

function findTests(nodeSrc, set, filter) {
  const belongs = SETS[set];
  const tests = [];
  for (const folder of FOLDERS) {
    const directory = path.join(nodeSrc, 'test', folder);
    const rules = readStatusFile(path.join(directory, `${folder}.status`));
    for (const name of fs.readdirSync(directory).sort()) {
      if (!/^test-.*\.m?js$/.test(name)) continue;
      const file = path.join(directory, name);
      const read = () => fs.readFileSync(file, 'utf8');
      if (!belongs(name, read)) continue;
      if (filter && !filter.test(`${folder}/${name}`)) continue;
      const source = read();
      const flags = parseFlags(source);
      tests.push({
        id: `${folder}/${name}`,
        name: name.replace(/\.m?js$/, ''),
        file,
        folder,
        source,
        flags,
        usesInternals: flags.some((flag) => /^--expose[-_]internals$/.test(flag)),
        skippedByStatus: rules.get(name.replace(/\.m?js$/, ''))?.includes('SKIP') ?? false,
      });
    }
  }
  return tests;
}

/** The major version of Node that a source tree is of. */
function treeMajor(nodeSrc) {
  const header = fs.readFileSync(path.join(nodeSrc, 'src', 'node_version.h'), 'utf8');
  return Number(/^#define NODE_MAJOR_VERSION (\d+)$/m.exec(header)[1]);
}

/** The words after `// Flags:` near the head of a test. */
function parseFlags(source) {
  const line = /^\/\/ Flags:[ \t]+(--.*)$/m.exec(source.slice(0, 1500));
  return line ? line[1].trim().split(/\s+/) : [];
}

function readStatusFile(file, variables = machineVariables()) {
  const rules = new Map();
  if (fs.existsSync(file)) parseStatus(fs.readFileSync(file, 'utf8'), variables, rules);
  return rules;
}

/** Adds `name -> [outcome]` of every section whose condition holds on this machine. */
function parseStatus(text, variables, rules = new Map()) {
  let applies = false;
  for (const raw of text.split('\n')) {
    const line = raw.replace(/#.*/, '').trim();
    const section = /^\[(.*)\]$/.exec(line);
    if (section) {
      applies = holds(section[1], variables);
      continue;
    }
    const rule = /^(\S+)\s*:\s*(.+)$/.exec(line);
    if (rule && applies) rules.set(rule[1], rule[2].split(/\s*,\s*/));
  }
  return rules;
}

/** Evaluates `$system==linux && $arch==x64 || true`; what it does not know is false. */
function holds(condition, variables) {
  return condition.split('||').some((side) =>
    side.split('&&').every((term) => {
      const comparison = /^\s*\$(\w+)\s*(==|!=)\s*(\w+)\s*$/.exec(term);
      if (!comparison) return term.trim() === 'true';
      const equal = variables[comparison[1]] === comparison[3];
      return comparison[2] === '==' ? equal : !equal;
    }),
  );
}

function machineVariables() {
  const system = process.platform === 'darwin' ? 'macos' : process.platform;
  return { system, arch: process.arch, mode: 'release', type: 'simple', asan: 'off' };
}

module.exports = { SETS: Object.keys(SETS), findTests, parseFlags, parseStatus, treeMajor };
