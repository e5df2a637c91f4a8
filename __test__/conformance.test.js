'use strict';
// The conformance runner on a tree of a few invented tests: what it counts, excepts and refuses.

const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');

const { findException } = require('../conformance/lib/exceptions');
const { expandModes } = require('../conformance/lib/modes');
const { judge } = require('../conformance/lib/runner');
const { parseFlags, parseStatus } = require('../conformance/lib/suite');
const { ROOT, runNode } = require('./helpers/run');

test('flags are the words of the first Flags line', () => {
  const source = `'use strict';\n// Flags: --expose-gc  --no-warnings\n// Flags: --later\n`;
  expect(parseFlags(source)).toEqual(['--expose-gc', '--no-warnings']);
  expect(parseFlags('// Flags are explained elsewhere')).toEqual([]);
});

test('a status file counts only where its conditions hold', () => {
  const text = `
    prefix parallel
    [true] # everywhere
    test-a: SKIP
    [$system==linux && $arch==x64]
    test-b: PASS, FLAKY   # sometimes
    [$system==win32 || $system==linux]
    test-c: SKIP
    [$system!=linux]
    test-d: SKIP
    [$unheard==of]
    test-e: SKIP`;
  const rules = parseStatus(text, { system: 'linux', arch: 'x64' });
  expect(Object.fromEntries(rules)).toEqual({
    'test-a': ['SKIP'],
    'test-b': ['PASS', 'FLAKY'],
    'test-c': ['SKIP'],
  });
});

test('modes may be named one by one or in groups', () => {
  expect(expandModes('parent,everywhere,parent')).toEqual(['parent', 'register', 'node-options']);
  expect(() => expandModes('elsewhere')).toThrow('no such mode: elsewhere');
});

test('an exception holds for the modes and versions it names, or for all', () => {
  const entries = [
    { test: 'test-a', modes: ['child'], versions: [20, 22], reason: 'r' },
    { test: 'test-b', reason: 'r' },
  ];
  const find = (name, mode, major) => findException(entries, { name }, mode, major);
  expect(find('test-a', 'child', 22)).toBe(entries[0]);
  expect(find('test-a', 'parent', 22)).toBeUndefined();
  expect(find('test-a', 'child', 24)).toBeUndefined();
  expect(find('test-b', 'parent', 26)).toBe(entries[1]);
});

test('an outcome is told from exit code, signal, time limit and output', () => {
  const outcome = (ended, timedOut, stdout = '') => judge(ended, timedOut, 1000, stdout).outcome;
  expect(outcome({ code: 0 }, false)).toBe('pass');
  expect(outcome({ code: 0 }, false, '1..0 # Skipped: not here\n')).toBe('skip');
  expect(outcome({ code: 1 }, false)).toBe('fail');
  expect(outcome({ code: null, signal: 'SIGSEGV' }, false)).toBe('fail');
  expect(outcome({ code: 0 }, true)).toBe('fail');
  expect(outcome({ error: new Error('no such file') }, false)).toBe('fail');
});

describe('a whole run', () => {
  let tree;

  beforeAll(() => {
    tree = fs.mkdtempSync(path.join(os.tmpdir(), 'brood-tree-'));
    const write = (name, text) => {
      fs.mkdirSync(path.dirname(path.join(tree, name)), { recursive: true });
      fs.writeFileSync(path.join(tree, name), text);
    };
    const inBrood = `/lib.child_process/.test(refusal(() => require('child_process').spawn()))`;
    const refusal = `function refusal(f) { try { f(); } catch (error) { return error.stack; } }`;
    write('src/node_version.h', '#define NODE_MAJOR_VERSION 20\n');
    write('test/common/index.js', '');
    write('test/parallel/parallel.status', '[true]\ntest-child-process-status: SKIP\n');
    write('test/parallel/test-child-process-good.js', `require('child_process');`);
    write('test/parallel/test-child-process-status.js', `process.exit(1);`);
    write('test/parallel/test-child-process-broken.js', `process.exit(1);`);
    write(
      'test/parallel/test-child-process-worse.js',
      `${refusal} if (${inBrood}) process.exit(1);`,
    );
    write(
      'test/parallel/test-child-process-bare.js',
      `if (process.execArgv.includes('-r')) process.exit(1);`,
    );
    write(
      'test/parallel/test-child-process-skips.js',
      `console.log('1..0 # Skipped: another machine');`,
    );
    write(
      'test/sequential/test-child-process-stray.js',
      `require('child_process').spawn('sleep', ['60'], { detached: true, stdio: 'inherit' }).unref()`,
    );
    write('test/parallel/test-net-other.js', `process.exit(1);`);
  });

  afterAll(() => fs.rmSync(tree, { recursive: true }));

  const run = (...args) =>
    runNode(['conformance/run.js', '--node-src', tree, '--fresh', ...args], { limit: 60000 });

  test('counts what stock passes, and fails on what brood alone does not', async () => {
    const { code, stdout } = await run('--mode', 'register');
    expect(stdout).toMatch(/^stock passes 4 of 7,/m);
    expect(stdout).toMatch(/test-child-process-status.js: skipped by Node's status file$/m);
    expect(stdout).toMatch(/test-child-process-broken.js: stock fails: exit code 1$/m);
    expect(stdout).toMatch(/test-child-process-skips.js: skips itself: another machine$/m);
    expect(stdout).toMatch(/^FAILED .*test-child-process-worse.js in mode register: exit code 1$/m);
    expect(stdout).toMatch(/test-child-process-bare.js: fails with an empty preload too$/m);
    expect(stdout).toMatch(/^2 passed, 1 failed, 4 skipped$/m);
    expect(code).toBe(1);
  });

  test('passes where nothing fails', async () => {
    const { code, stdout } = await run('--mode', 'all', '--filter', 'good|stray');
    expect(stdout).toMatch(/^8 passed, 0 failed, 0 skipped$/m);
    expect(code).toBe(0);
  });

  test('refuses a folder that is no tree', async () => {
    const { code, stderr } = await runNode(['conformance/run.js', '--node-src', ROOT]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/is not a source tree of Node: it has no test\/parallel$/m);
  });
});
