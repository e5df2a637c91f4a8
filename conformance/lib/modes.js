'use strict';
// Where brood is put for a run: what a mode adds to the command line and to the environment of the
// test's process. `stock` adds nothing and is what the others are compared with.

const path = require('node:path');

const REGISTER = path.resolve(__dirname, '..', '..', 'register.js');
const PRELOADS = path.resolve(__dirname, '..', 'preload');
// A preload that does nothing, in the place of register.js.
const EMPTY = path.join(PRELOADS, 'empty.js');

const MODES = {
  stock: () => ({}),
  // The test and what it forks: fork() hands process.execArgv on.
  register: (preload) => ({ args: ['-r', preload] }),
  // The test and every Node below it, however it was started.
  'node-options': (preload) => ({ env: { NODE_OPTIONS: `--require=${preload}` } }),
  // The test alone, its children are stock; and the reverse. Neither stands in execArgv.
  parent: (preload) => through('parent.js', preload),
  child: (preload) => through('child.js', preload),
};

function through(file, preload) {
  const first = path.join(PRELOADS, file);
  return { env: { NODE_OPTIONS: `--require=${first}`, BROOD_CONFORMANCE_PRELOAD: preload } };
}

/** What a mode adds to a command: { args, env }. */
function modeCommand(mode, preload = REGISTER) {
  return { args: [], env: {}, ...MODES[mode](preload) };
}

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

module.exports = { EMPTY, REGISTER, expandModes, modeCommand };
