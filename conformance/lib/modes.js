'use strict';
// Where brood is put for a run: what a mode adds to the command line and to the environment of the
// test's process. `stock` adds nothing and is what the others are compared with.

const path = require('node:path');

const REGISTER = path.resolve(__dirname, '..', '..', 'register.js');
const PRELOADS = path.resolve(__dirname, '..', 'preload');

const MODES = {
  stock: {},
  // The test and what it forks: fork() hands process.execArgv on.
  register: { args: ['-r', REGISTER] },
  // The test and every Node below it, however it was started.
  'node-options': { env: { NODE_OPTIONS: `--require=${REGISTER}` } },
  // The test alone, its children are stock; and the reverse. Neither preload stands in execArgv.
  parent: { env: { NODE_OPTIONS: `--require=${path.join(PRELOADS, 'parent.js')}` } },
  child: { env: { NODE_OPTIONS: `--require=${path.join(PRELOADS, 'child.js')}` } },
};

const GROUPS = {
  all: ['register', 'node-options', 'parent', 'child'],
  everywhere: ['register', 'node-options'],
};

/** `parent,everywhere` -> ['parent', 'register', 'node-options'] */
function expandModes(text) {
  const names = text.split(',').flatMap((name) => GROUPS[name] ?? [name]);
  const unknown = names.find((name) => !Object.hasOwn(MODES, name));
  if (unknown !== undefined) throw new Error(`no such mode: ${unknown}`);
  return [...new Set(names)];
}

module.exports = { MODES, REGISTER, expandModes };
