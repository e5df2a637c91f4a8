'use strict';
// spawnSync(), execSync() and execFileSync(): results, errors and limits as Node has them.

const { createHash } = require('node:crypto');
const fs = require('node:fs');
const os = require('node:os');
const path = require('node:path');
const { expectNoLeaks } = require('../helpers/leaks');
const { brood, describeError, expectAlike } = require('./side_by_side');

const NOWHERE = 'no-such-program-of-brood';

/** Output in a form that is compared quickly, however long it is. */
function digest(output) {
  if (output == null) return output;
  const hash = createHash('sha1').update(output).digest('hex');
  return [typeof output, output.length, hash, String(output.slice(0, 50))];
}

/** A result without the process number, its keys in their order. */
function plain(result) {
  const { error, output, pid, stdout, stderr, ...rest } = result;
  return {
    ...rest,
    keys: Object.keys(result),
    error: describeError(error),
    output: output && output.map(digest),
    same: output && output[1] === stdout && output[2] === stderr,
    none: output === null && [stdout, stderr],
    pid: typeof pid,
  };
}

const spawnSync = (cp, ...args) => plain(cp.spawnSync(...args));

test.each([
  ['output and status', ['sh', ['-c', 'echo out; echo err >&2; exit 3']]],
  ['an end by signal', ['sh', ['-c', 'kill -9 $$']]],
  ['text', ['echo', ['x'], { encoding: 'utf8' }]],
  ['hexadecimal text', ['echo', ['x'], { encoding: 'hex' }]],
  ['bytes when asked for', ['echo', ['x'], { encoding: 'buffer' }]],
  ['input as text', ['cat', { input: 'given' }]],
  ['input in another encoding', ['cat', { input: '616263', encoding: 'hex' }]],
  ['input as bytes', ['cat', { input: Buffer.from('given') }]],
  ['input as another view', ['cat', { input: new Uint16Array([0x6161, 0x6262]) }]],
  ...(globalThis.Float16Array
    ? [['input as halves', ['wc', ['-c'], { input: new Float16Array(4) }]]]
    : []),
  ['input as a DataView', ['cat', { input: new DataView(new ArrayBuffer(4), 1, 2) }]],
  ['large input', ['wc', ['-c'], { input: Buffer.alloc(3e6) }]],
  ['input nobody reads', ['true', { input: Buffer.alloc(3e6) }]],
  ['input where there is no pipe', ['true', { input: 'x', stdio: 'ignore' }]],
  ['no input', ['cat', { input: '' }]],
  ['a missing program', [NOWHERE, ['a', 'b']]],
  ['a program that may not be run', ['/etc/passwd']],
  ['a missing directory', ['pwd', { cwd: '/no/such/directory' }]],
  ['an empty directory', ['pwd', { cwd: '' }]],
  ['too many arguments', ['true', ['x'.repeat(3e6)]]],
  ['a timeout', ['sleep', ['60'], { timeout: 50 }]],
  ['a timeout with a signal', ['sleep', ['60'], { timeout: 50, killSignal: 'SIGKILL' }]],
  ['a timeout that is not reached', ['true', { timeout: 60000 }]],
  ['a grandchild that outlives the timeout', ['sh', ['-c', 'sleep 1 & exit 0'], { timeout: 300 }]],
  ['too much output', ['sh', ['-c', 'printf 123456'], { maxBuffer: 5 }]],
  ['too much output on two pipes', ['sh', ['-c', 'printf 123; printf 456 >&2'], { maxBuffer: 5 }]],
  ['output up to the limit', ['sh', ['-c', 'printf 12345'], { maxBuffer: 5 }]],
  ['no limit', ['head', ['-c', '3000000', '/dev/zero'], { maxBuffer: Infinity }]],
  ['zero for no limit', ['echo', ['x'], { maxBuffer: 0 }]],
  ['undefined for no limit', ['head', ['-c', '2000000', '/dev/zero'], { maxBuffer: undefined }]],
  ['nothing on any pipe', ['true', { stdio: 'ignore' }]],
  ['more pipes', ['sh', ['-c', 'echo x >&3'], { stdio: ['pipe', 'ignore', 'pipe', 'pipe'] }]],
  ['a shell', ['echo $0 "$A"', { shell: true, env: { A: '1' } }]],
  ['another name', ['sh', ['-c', 'echo $0'], { argv0: 'other' }]],
  ['arguments that are no strings', ['printf', ['%s|', 1, true, [2, 3]]]],
])('spawnSync has the result of Node: %s', (title, args) =>
  expectAlike((cp) => {
    const result = spawnSync(cp, ...args);
    // Whether the child has ended by itself before it is killed for its output is a race, and so is
    // how much it has said by then.
    return result.error?.code === 'ENOBUFS' ? result.error : result;
  }),
);

test('inherited and given descriptors are written to', () =>
  expectAlike((cp) => {
    const file = path.join(os.tmpdir(), `brood-sync-${process.pid}`);
    const fd = fs.openSync(file, 'w+');
    const result = spawnSync(cp, 'sh', ['-c', 'echo out; echo err >&2'], {
      stdio: ['ignore', fd, { fd }],
    });
    fs.closeSync(fd);
    const text = fs.readFileSync(file, 'utf8');
    fs.unlinkSync(file);
    return [result, text];
  }));

test('overlapped and native handles are taken too, where Node aborts', () => {
  const { stdout } = brood.spawnSync('echo', ['x'], { stdio: ['ignore', 'overlapped', 'pipe'] });
  expect(String(stdout)).toBe('x\n');
});

test('resourceUsage is on the result but is not counted among its properties', () => {
  const result = brood.spawnSync('true');
  expect(Object.keys(result.resourceUsage)).toEqual(Object.keys(process.resourceUsage()));
  expect(Object.keys(result)).not.toContain('resourceUsage');
  expect(brood.spawnSync(NOWHERE).resourceUsage).toBeUndefined();
});

const attempt = (run) => {
  try {
    return run();
  } catch (error) {
    return { ...describeError(error), pid: typeof error.pid, error: error.error === error };
  }
};

test.each([
  ['output', (cp) => cp.execSync('echo x')],
  ['text', (cp) => cp.execSync('echo x', { encoding: 'utf8' })],
  ['a failure', (cp) => cp.execSync('echo out; echo err >&2; exit 5', { stdio: 'pipe' })],
  ['an end by signal', (cp) => cp.execSync('kill -9 $$')],
  ['a timeout', (cp) => cp.execSync('exec sleep 60', { timeout: 50 })],
  ['too much output', (cp) => cp.execSync('printf 123456', { maxBuffer: 5 })],
  ['output of a program', (cp) => cp.execFileSync('echo', ['a', 'b'])],
  ['a failure of a program', (cp) => cp.execFileSync('sh', ['-c', 'exit 5', 'x'])],
  ['a failure by another name', (cp) => cp.execFileSync('sh', ['-c', 'exit 5'], { argv0: 'me' })],
  ['a missing program', (cp) => cp.execFileSync(NOWHERE, ['a'])],
  ['nothing where nothing is piped', (cp) => cp.execFileSync('true', { stdio: 'ignore' })],
  ['input', (cp) => cp.execFileSync('cat', { input: 'given' })],
])('execSync and execFileSync return or throw as in Node: %s', (title, run) =>
  expectAlike((cp) => {
    const result = attempt(() => run(cp));
    if (title !== 'too much output') return result;
    // Whether the child has ended by itself before it is killed is a race.
    return [result.code, String(result.stdout)];
  }),
);

test('standard error is shown unless stdio says where it goes', () =>
  expectAlike((cp) => {
    const shown = [];
    const { write } = process.stderr;
    process.stderr.write = (text) => shown.push(String(text));
    try {
      cp.execSync('echo shown >&2');
      cp.execSync('echo hidden >&2', { stdio: 'pipe' });
      cp.execFileSync('sh', ['-c', 'echo shown too >&2']);
    } finally {
      process.stderr.write = write;
    }
    return shown;
  }));

test('a hundred runs leave nothing behind', () =>
  expectNoLeaks(() => {
    for (let i = 0; i < 100; i++) brood.spawnSync(i % 2 ? 'true' : NOWHERE, { input: 'x' });
  }));
