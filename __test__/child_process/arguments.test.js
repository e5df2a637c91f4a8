'use strict';
// Argument checks: each call is made to Node's child_process and to brood's with a long list of odd
// values. Both must accept, or both must refuse with the same code, name and message. The program
// named does not exist, so that what is accepted starts nothing.

const stock = require('node:child_process');
const { inspect } = require('node:util');
const brood = require('../..');

const PROGRAM = 'no-such-program-of-brood';
const nothing = () => {};

class Thing {}

const VALUES = [
  undefined,
  null,
  true,
  false,
  0,
  1,
  -1,
  1.5,
  NaN,
  Infinity,
  -Infinity,
  2 ** 31,
  -(2 ** 40),
  12345678901234,
  10n,
  -(2n ** 40n),
  Symbol('odd'),
  '',
  'text',
  "it's",
  'a text that is longer than twenty-eight characters',
  `'${'x'.repeat(30)}`,
  'a\0b',
  {},
  { name: 'x', list: [1, 2, 3] },
  { long: 'x'.repeat(200) },
  Object.create(null),
  new Thing(),
  new (class {})(),
  new Map([[1, 2]]),
  new Date(0),
  /x/,
  nothing,
  function Named() {},
  new Uint8Array([65, 66]),
  Buffer.from('a\0b'),
  new URL('http://localhost/'),
  new URL('file:///tmp'),
  new URL('file:///tmp/a%2fb'),
  new URL('file://elsewhere/tmp'),
  new URL('file:///tmp/a%00b'),
];

const ARRAYS = [[], [1, 2], ['a', 'b\0'], [null, undefined], [{}, 'pipe', 'pipe']];

// What this one call does with the value: (the module, the value) => whatever it returns.
const option = (key) => [
  [`spawn: ${key}`, (cp, value) => cp.spawn(PROGRAM, [], { [key]: value })],
  [`spawnSync: ${key}`, (cp, value) => cp.spawnSync(PROGRAM, { [key]: value })],
  [`execFile: ${key}`, (cp, value) => cp.execFile(PROGRAM, { [key]: value })],
  [`fork: ${key}`, (cp, value) => cp.fork('x', { execPath: PROGRAM, stdio: SILENT, [key]: value })],
];
const SILENT = ['ignore', 'ignore', 'ignore', 'ipc'];

const POSITIONS = [
  ['spawn: file', (cp, value) => cp.spawn(value)],
  ['spawnSync: file', (cp, value) => cp.spawnSync(value)],
  ['execFile: file', (cp, value) => cp.execFile(value)],
  ['execFileSync: file', (cp, value) => cp.execFileSync(value, { stdio: 'ignore' })],
  ['exec: command', (cp, value) => cp.exec(value, { shell: PROGRAM })],
  ['execSync: command', (cp, value) => cp.execSync(value, { shell: PROGRAM })],
  ['fork: module', (cp, value) => cp.fork(value, { execPath: PROGRAM, stdio: SILENT })],
  ['spawn: args', (cp, value) => cp.spawn(PROGRAM, value)],
  ['spawnSync: args', (cp, value) => cp.spawnSync(PROGRAM, value)],
  ['execFile: args', (cp, value) => cp.execFile(PROGRAM, value)],
  ['execFileSync: args', (cp, value) => cp.execFileSync(PROGRAM, value)],
  ['spawn: options', (cp, value) => cp.spawn(PROGRAM, [], value)],
  ['spawnSync: options', (cp, value) => cp.spawnSync(PROGRAM, [], value)],
  ['execFile: options', (cp, value) => cp.execFile(PROGRAM, [], value)],
  ['execFileSync: options', (cp, value) => cp.execFileSync(PROGRAM, [], value)],
  ['execFile: callback', (cp, value) => cp.execFile(PROGRAM, [], {}, value)],
  ['exec: callback', (cp, value) => cp.exec('x', { shell: PROGRAM }, value)],
  ['fork: options', (cp, value) => cp.fork('\0', [], value)],
  ...option('cwd'),
  ...option('env'),
  ...option('argv0'),
  ...option('shell'),
  ...option('detached'),
  ...option('uid'),
  ...option('gid'),
  ...option('windowsHide'),
  ...option('windowsVerbatimArguments'),
  ...option('killSignal'),
  ...option('timeout'),
  ...option('maxBuffer'),
  ...option('signal'),
  ...option('serialization'),
  ...option('stdio').filter(([title]) => !title.startsWith('fork')),
  ['fork: stdio', (cp, value) => cp.fork('x', { execPath: '\0', stdio: value })],
  ['fork: stdio with a program', (cp, value) => cp.fork('x', { execPath: PROGRAM, stdio: value })],
  ['fork: execArgv', (cp, value) => cp.fork('x', { execPath: PROGRAM, execArgv: value })],
  ['fork: execPath', (cp, value) => cp.fork('x', { execPath: value || PROGRAM })],
  ['fork: args', (cp, value) => cp.fork('x', value, { execPath: PROGRAM })],
  ['spawn: an entry of stdio', (cp, value) => cp.spawn(PROGRAM, { stdio: ['pipe', value] })],
  ['spawnSync: an entry of stdio', (cp, value) => cp.spawnSync(PROGRAM, { stdio: [value] })],
  ['spawn: a variable', (cp, value) => cp.spawn(PROGRAM, { env: { A: value } })],
  ['spawn: an argument', (cp, value) => cp.spawn(PROGRAM, ['a', value])],
  ['spawnSync: input', (cp, value) => cp.spawnSync(PROGRAM, { input: value })],
  ['ChildProcess#spawn', (cp, value) => new cp.ChildProcess().spawn(value)],
  ['ChildProcess#spawn: file', (cp, value) => bare(cp, { file: value || PROGRAM })],
  ['ChildProcess#spawn: args', (cp, value) => bare(cp, { args: value })],
  ['ChildProcess#spawn: envPairs', (cp, value) => bare(cp, { envPairs: value, stdio: SILENT })],
  ['ChildProcess#spawn: stdio', (cp, value) => bare(cp, { stdio: value })],
  ['ChildProcess#spawn: serialization', (cp, value) => bare(cp, { serialization: value })],
  ['kill', (cp, value) => new cp.ChildProcess().kill(value)],
];

function bare(cp, options) {
  const child = new cp.ChildProcess();
  child.on('error', nothing);
  child.spawn({ file: PROGRAM, args: [], ...options });
  return child;
}

/** Node writes into some of what it is given. */
function copyOf(value) {
  if (Array.isArray(value)) return [...value];
  return value?.constructor === Object ? { ...value } : value;
}

function outcome(call, cp, value) {
  try {
    const result = call(cp, value);
    result?.on?.('error', nothing);
    return 'accepted';
  } catch (error) {
    const { name, code, message } = error;
    return { name, code, message, text: String(error), keys: Object.keys(error) };
  }
}

function isBare(value) {
  return typeof value === 'object' && value !== null && !('toString' in value);
}

/** What must not reach Node, or where it contradicts itself. */
function isOutOfBounds(title, value) {
  // In place of fork's `args`, an object is the options and would run a module for real.
  if (title === 'fork: args') return typeof value === 'object' && !Array.isArray(value);
  // Before there is a process, libuv's pid is 0: the signal goes to the caller's process group.
  if (title === 'kill') return value === undefined || value === 1;
  // A descriptor that is no 32-bit integer aborts Node from 22 on.
  if (title.includes('entry of stdio')) return typeof value === 'number' && value !== (value | 0);
  // For what has no string form Node 20 and spawnSync throw, as brood does; spawn of later versions
  // passes an empty string.
  if (title === 'spawn: an argument') return typeof value === 'symbol' || isBare(value);
  return false;
}

// The two answer with numbers of their own processes; everything else must be alike.
test.each(POSITIONS)('%s', (title, call) => {
  for (const value of [...VALUES, ...ARRAYS]) {
    if (isOutOfBounds(title, value)) continue;
    const node = outcome(call, stock, copyOf(value));
    const ours = outcome(call, brood, copyOf(value));
    expect({ value: inspect(value), ...Object(ours) }).toEqual({
      value: inspect(value),
      ...Object(node),
    });
  }
});
